"""A module for each benchmark, with a `BENCHMARK`; one without it is a part of those.

Measures and checks the answers; says nothing of how its figures are shown.
"""
