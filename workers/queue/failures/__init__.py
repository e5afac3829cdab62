"""Tasks that have failed: how they are kept at a Redis broker for a while, looked at, tried again and dropped.

Decides nothing about tasks: `workers.node.failures` keeps them. Shows nothing of a task's text by itself.
"""
