"""A stack whose only node was killed."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Final

from fleet import bare_app, send_plain
from polling import until

from doctor.stacks import Stack
from pipeline.models import PersonaRequest
from workers.node.fetch.claims import CLAIMS, NODES
from workers.queue.aside.messages import ASIDE

KEY: Final = "calm-flowing-planning"


def killed(stack: Stack) -> None:
    """The only node dies with a task, and what waits grows old."""
    with closing(bare_app(stack.broker.url)) as app:
        send_plain(app, PersonaRequest.create("How do I begin?", KEY))
    until(lambda: sum(stack.queue.llen(name) for name in stack.queue.keys(f"{CLAIMS}*")), "a task is claimed")
    node = stack.nodes[0]
    node.kill()
    for name in stack.queue.zrange(NODES, 0, -1):
        stack.queue.zincrby(NODES, -60_000, name)
    stack.queue.zadd(ASIDE, {"persona\n{}": (time.time() - 120) * 1000})
    stack.queue.rpush("persona", _old_message())


def _old_message() -> bytes:
    return b'{"headers": {"persona_published_at": %d}, "body": ""}' % (time.time() - 600)


OF_THE_DEAD: Final = ("nodes: none", "queues: orphans", "queues: overdue", "queues: waits-long", "beat: none")
"""The names of what is wrong with a stack whose only node was killed, and which has no beat."""
