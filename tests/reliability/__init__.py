"""The fault suite: faults on real nodes and servers under load, and what was lost, wrong or answered twice: `make test-faults`.

It owns what befalls them and the judgement. It never reaches into the product: it sends tasks, asks, invalidates and breaks.
"""
