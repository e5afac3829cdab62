"""The faults, a module for each kind: how each is planted in a stack that is well, and by which name the doctor is to call it."""
