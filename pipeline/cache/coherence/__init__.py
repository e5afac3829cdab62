"""Who knows what was invalidated: the log, a process's view of it, a node's bus, and the nodes that there are.

Says what is valid and what may be served. Keeps no entry.
"""
