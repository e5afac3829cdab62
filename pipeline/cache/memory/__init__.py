"""L1: this process's memory, and which entries stay in it.

Bounded, and judged by its readers. Knows neither the log nor a server.
"""
