"""The knowledge of invalidations: the log, a process's view of it, a node's bus, and the registry of nodes.

Decides which entries are valid and may be served. Keeps no entry.
"""
