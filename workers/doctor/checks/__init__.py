"""What is wrong, by what was seen: a module for each part, a small pure function for each check.

Asks nothing, waits for nothing. A check gives its finding, or None.
"""
