"""What a message may cost its receiver, and how the sender of a refused one is told.

Takes no message from anywhere: `workers.node.poison` and `workers.node.consumer` refuse.
"""
