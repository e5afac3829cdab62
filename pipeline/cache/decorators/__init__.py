"""`@cached`: a function behind a cache, and what of its arguments makes the key.

Refuses what a key would not hold. Reads and writes only through a cache that it is given.
"""
