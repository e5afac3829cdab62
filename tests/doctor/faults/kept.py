"""Faults in what lies at the servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

import redis
from fleet import bare_app
from servers import ValkeyServer

from doctor.faults.planted import NAMESPACE, Fault, Given, added, with_server
from doctor.stacks import Stack
from pipeline.cache.keys import KeySpace
from pipeline.figures import FigureKeys
from workers.node.fetch.claims import CLAIMS
from workers.queue.dead_letters.letter import DEAD_LETTERS, written

EVER: Final = FigureKeys(NAMESPACE).ever


@contextmanager
def unread_queue(stack: Stack) -> Iterator[Given]:
    with closing(bare_app(stack.broker.url)) as app:
        app.control.cancel_consumer("persona.bulk", reply=True)
        try:
            yield {}
        finally:
            app.control.add_consumer("persona.bulk", exchange="persona.bulk", routing_key="persona.bulk", reply=True)


@contextmanager
def endless_result(stack: Stack) -> Iterator[Given]:
    with closing(redis.Redis.from_url(stack.broker.url_of(1))) as results:
        results.set("celery-task-meta-endless", "1")
        try:
            yield {}
        finally:
            results.delete("celery-task-meta-endless")


def _garbled(stack: Stack, server: ValkeyServer) -> None:
    del stack
    with closing(server.client()) as client:
        client.set(KeySpace(NAMESPACE).tail, "not a tail")


FAULTS: Final = (
    Fault("a result without an end", ("results: endless",), endless_result),
    Fault(
        "an entry without an end",
        ("cache: endless",),
        added(lambda stack: stack.entries.set("persona:2:e:x", "1"), lambda stack: stack.entries.delete("persona:2:e:x")),
    ),
    Fault(
        "dead letters",
        ("queues: dead-letters",),
        added(
            lambda stack: stack.queue.lpush(DEAD_LETTERS, written("persona", b"{}", "not a task", whole=True)),
            lambda stack: stack.queue.delete(DEAD_LETTERS),
        ),
    ),
    Fault("a queue that nobody reads", ("queues: unread",), unread_queue),
    Fault(
        "a list of a priority that nobody reads",
        ("queues: unread-priority",),
        added(lambda stack: stack.queue.lpush("persona\x06\x165", "{}"), lambda stack: stack.queue.delete("persona\x06\x165")),
    ),
    Fault(
        "claims of a node that is on no list",
        ("queues: orphans",),
        added(
            lambda stack: stack.queue.lpush(f"{CLAIMS}ghost/1/abcdef01:persona", "{}"),
            lambda stack: stack.queue.delete(f"{CLAIMS}ghost/1/abcdef01:persona"),
        ),
    ),
    Fault("the log's key is another program's", ("coherence: log-unreadable",), with_server("PERSONA_CACHE_URL", _garbled)),
    Fault(
        "the auditor has found stale serves",
        ("coherence: stale",),
        added(
            lambda stack: stack.entries.hset(EVER, mapping={"n.audited": 1000, "n.stale_serves": 3}),
            lambda stack: stack.entries.hdel(EVER, "n.audited", "n.stale_serves"),
        ),
    ),
)
