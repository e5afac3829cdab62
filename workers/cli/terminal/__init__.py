"""What commands show, and how they fail: on standard output the result, on standard error the rest.

Asks no server.
"""
