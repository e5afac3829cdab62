"""One computation a key: among threads, among processes, and for tasks that are queued.

Everything here has a time to live, and every wait a bound. Decides nothing about what is valid.
"""
