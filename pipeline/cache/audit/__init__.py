"""The auditor: whether what was served could be served, by the log itself.

It shares no code with the view, the bus, the lease or the log's reader, so that a fault of theirs is none of its own.
"""
