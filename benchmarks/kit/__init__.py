"""The parts that several benchmarks share, and tests as well: a fleet, a model that answers, a browser, load.

Starts and ends processes; judges no figures.
"""
