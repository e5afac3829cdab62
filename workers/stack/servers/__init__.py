"""The servers that `persona up` brings along: where their programs are, how they are called, on which ports.

Starts none of them: that is the supervisor's.
"""
