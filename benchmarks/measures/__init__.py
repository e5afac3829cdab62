"""A module for each benchmark, with a `BENCHMARK`; a module without it is a part of those.

Measures and checks the answers; does not decide how figures are shown.
"""
