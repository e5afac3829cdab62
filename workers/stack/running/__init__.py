"""A stack that runs already: found from beside it, started in the background, asked how it is, stopped, its logs read.

Starts no service: a supervisor does, in a process of its own.
"""
