"""One computation a key: among threads, among processes, and for tasks that are queued.

Every record here has a time to live, and every wait a bound. Decides nothing about which entries are valid.
"""
