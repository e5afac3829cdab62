"""`@cached`: a function behind a cache, and the key made of its arguments.

Refuses arguments that a key cannot hold. Reads and writes only through a cache that it is given.
"""
