"""How each part is asked: by commands that change nothing, each with a bound.

Judges nothing of what it sees.
"""
