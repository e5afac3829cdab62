"""Keys and the patterns that match them: how they are written, checked, and looked up by the thousand.

Pure: no state of a process, no server.
"""
