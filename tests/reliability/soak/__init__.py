"""The soak: a fleet under mixed load, and a fault every few seconds. `make soak`.

It owns the order of the faults, and the measure of memory, descriptors, connections and keys.
"""
