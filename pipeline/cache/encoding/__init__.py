"""Values to bytes and back, and what msgspec must know before two threads meet it.

Owns which values the cache carries. Reads and writes no tier.
"""
