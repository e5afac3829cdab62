"""L2: the server. Its address, the connections to it, the commands and scripts, and the entries under their keys.

Moves bytes within bounded time, and judges none. The only room that opens a connection.
"""
