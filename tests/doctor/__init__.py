"""Planted faults, each to be named by `persona doctor`, and healthy stacks, of which it is to say nothing."""
