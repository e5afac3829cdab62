"""How far the workers have come with a queue: whether a task of some age can still be waiting in it."""

from __future__ import annotations

import logging
import math
import time
from typing import Any, Final

import msgspec
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from pipeline.cache.encoding.decoders import ready
from workers.queue.names import PUBLISHED_HEADER

KNOWN_S: Final = 1.0
"""How long what was seen of a queue is taken to be so: a program that waits for a thousand tasks looks once a second."""
AWAY_S: Final = 5.0
"""How soon after a look in vain the broker is asked again: a look at one that is stuck takes seconds."""
SKEW_S: Final = 2.0
"""How much the clocks of two senders may differ without harm."""

logger: Final = logging.getLogger(__name__)


@ready
class _Item(msgspec.Struct):
    headers: dict[str, Any]


class Backlog:
    """Looks at the item that a queue's workers will take next. Thread-safe. Nothing here raises because the broker is away.

    Items are taken in the order in which they were queued. So a task that was queued before the next item, or before nothing, was
    taken, or is gone. That is no proof: clocks differ by more than SKEW_S, a task of a dead worker may be put back behind others.
    Callers are to act by it only where being wrong costs little.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._seen: dict[str, tuple[float, float]] = {}

    def has_passed(self, queue: str, queued_at: float) -> bool:
        """Whether no task that was queued at that time (in seconds since 1970, by this host's clock) waits in the queue now.
        False where that is not known: the broker is away, or not Redis, or the next item does not say when it was queued."""
        until_s, next_queued_at = self._seen.get(queue, (-math.inf, 0.0))
        if time.monotonic() > until_s:
            # Of two threads that look at once, either will do.
            try:
                next_queued_at, pause_s = self._look(queue), KNOWN_S
            except (OperationalError, RedisError, OSError) as error:
                logger.info("queue.not_seen: %s: %s", queue, type(error).__name__)
                next_queued_at, pause_s = -math.inf, AWAY_S
            self._seen[queue] = time.monotonic() + pause_s, next_queued_at
        return next_queued_at > queued_at + SKEW_S

    def _look(self, queue: str) -> float:
        """When the next item was queued: infinity for an empty queue, its negative where that is not known."""
        with self._app.producer_or_acquire() as producer:
            connected = getattr(producer.channel, "conn_or_acquire", None)
            if connected is None:  # it is not Redis
                return -math.inf
            with connected() as client:
                item = client.lindex(queue, -1)
        if item is None:
            return math.inf
        queued = queued_at(item)
        return -math.inf if queued is None else queued


def queued_at(item: bytes) -> float | None:
    """When a message was queued, in seconds since 1970 by its sender's clock; None where it does not say so."""
    try:
        at = msgspec.json.decode(item, type=_Item).headers.get(PUBLISHED_HEADER)
    except (msgspec.DecodeError, UnicodeError):
        return None
    return float(at) if isinstance(at, int | float) else None
