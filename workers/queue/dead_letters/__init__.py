"""Messages that no worker can take: how they are kept at a Redis broker, looked at, queued anew and dropped.

Decides nothing about messages: `workers.node` refuses. Shows nothing of a letter's text by itself.
"""
