"""How a node takes messages from a Redis broker: each is claimed in one step, and has an owner until it is acknowledged.

A kombu transport on top of kombu's own. Knows nothing of personas and caches: what is answered at the door is decided elsewhere.
docs/fetch.md has the protocol, what is overridden, and the versions that were tried.
"""
