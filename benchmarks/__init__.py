"""Benchmarks: the costs of this project, beside its peers. Not in the wheel.

Measures by the public faces of `workers` and `pipeline`; neither of them ever imports it.
"""
