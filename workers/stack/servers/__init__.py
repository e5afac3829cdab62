"""The servers that come with `persona up`: their programs, their commands, their ports.

Starts none of them: the supervisor does.
"""
