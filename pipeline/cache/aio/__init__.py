"""The cache for asyncio: the same calls, awaited, and one computation a key among tasks, threads and processes.

Keeps no event loop waiting for a server. Judges nothing: what may be served is decided where it is for threads.
"""
