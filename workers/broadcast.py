"""The broadcast of an invalidation: the exchange, and the sender. The receiver is `workers.node`."""

from __future__ import annotations

import logging
from typing import Final

from celery import Celery
from kombu import Exchange, Queue
from kombu.common import Broadcast
from kombu.exceptions import OperationalError

from pipeline.cache import Invalidation

TASK: Final = "cache.invalidate"
ROUTING_KEY: Final = "all"
EXCHANGE: Final = Exchange("cache.invalidate", type="fanout", durable=False, auto_delete=False)
EXPIRES_S: Final = 60

logger: Final = logging.getLogger(__name__)


def queue_of_node() -> Queue:
    """A node's own queue on the exchange. Not acknowledged: a message that is given back has nobody to go to (on Redis it
    would stay in a list for ever), and a lost one is healed by the log."""
    return Broadcast(name=EXCHANGE.name, exchange=EXCHANGE, routing_key=ROUTING_KEY, no_ack=True, durable=False, auto_delete=True)


class Announcer:
    """Tells every node of an invalidation. At most once, and never an error: what it loses, the log heals within the
    staleness bound."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def __call__(self, invalidation: Invalidation, invalidation_id: str | None) -> None:
        epoch, seq = (invalidation.epoch, invalidation.seq) if invalidation.durable else ("", 0)
        try:
            # On Redis a fanout needs all four: with the exchange's name alone the message is published as a direct one, to a
            # list that nobody reads; with another routing key than the queue's, to a channel that nobody listens to.
            self._app.send_task(
                TASK,
                args=[epoch, seq, list(invalidation.patterns)],
                kwargs={"invalidation_id": invalidation_id} if invalidation_id else {},
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
