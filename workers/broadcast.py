"""The broadcast of an invalidation: the exchange, and the sender. The receiver is `workers.node`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from celery import Celery
from celery.utils import uuid
from kombu import Exchange, Queue
from kombu.common import Broadcast
from kombu.exceptions import OperationalError

from pipeline.cache import Invalidation
from pipeline.figures import Reporter

TASK: Final = "cache.invalidate"
ROUTING_KEY: Final = "all"
EXCHANGE: Final = Exchange("cache.invalidate", type="fanout", durable=False, auto_delete=False)
EXPIRES_S: Final = 60

logger: Final = logging.getLogger(__name__)


def queue_of_node() -> Queue:
    """A node's own queue on the exchange. Not acknowledged: a message that is given back has nobody to go to (on Redis it
    would stay in a list for ever), and a lost one is healed by the log."""
    return Broadcast(name=EXCHANGE.name, exchange=EXCHANGE, routing_key=ROUTING_KEY, no_ack=True, durable=False, auto_delete=True)


class Announced(NamedTuple):
    """A broadcast that was sent: the message's id, and when, in seconds since 1970 by this host's clock."""

    message_id: str
    at: float
    invalidation: Invalidation


class Announcer:
    """Tells every node of an invalidation. At most once, and never an error: what it loses, the log heals within the
    staleness bound."""

    def __init__(self, app: Celery, note: Callable[[Announced], None] | None = None) -> None:
        """`note` is told of each broadcast, also of one that was lost. It must not raise."""
        self._app = app
        self._note = note

    def __call__(self, invalidation: Invalidation, invalidation_id: str | None) -> None:
        epoch, seq = (invalidation.epoch, invalidation.seq) if invalidation.durable else ("", 0)
        announced = Announced(uuid(), time.time(), invalidation)
        try:
            # On Redis a fanout needs all four: with the exchange's name alone the message is published as a direct one, to a
            # list that nobody reads; with another routing key than the queue's, to a channel that nobody listens to.
            self._app.send_task(
                TASK,
                args=[epoch, seq, list(invalidation.patterns)],
                # A node of an older release takes the first that it knows and leaves the other.
                kwargs={"published_at": announced.at} | ({"invalidation_id": invalidation_id} if invalidation_id else {}),
                task_id=announced.message_id,
                exchange=EXCHANGE.name,
                exchange_type=EXCHANGE.type,
                routing_key=ROUTING_KEY,
                declare=[EXCHANGE],
                delivery_mode="transient",
                ignore_result=True,
                expires=EXPIRES_S,
                retry=False,
            )
        except (OperationalError, OSError) as error:
            logger.warning("cache.announcement_lost: the broker is out of reach (%s)", type(error).__name__)
        if self._note is not None:
            self._note(announced)


def note_in(reporter: Callable[[], Reporter]) -> Callable[[Announced], None]:
    """Has each broadcast told by the reporter that there is when it is sent."""

    def note(announced: Announced) -> None:
        done = announced.invalidation
        reporter().invalidated(announced.message_id, announced.at, done.patterns, durable=done.durable)

    return note
