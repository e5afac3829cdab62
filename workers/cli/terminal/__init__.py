"""The commands' output, and their failures: the result on standard output, everything else on standard error.

Asks no server.
"""
