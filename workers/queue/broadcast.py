"""The broadcast of an invalidation: the exchange, and the sender. The receiver is `workers.node.invalidation`."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from celery import Celery
from celery.utils import uuid
from kombu import Exchange, Producer, Queue
from kombu.common import Broadcast

from pipeline.cache import Invalidation
from pipeline.figures import Reporter
from pipeline.settings import DEFAULT_NAMESPACE, Settings
from workers.queue.factory import make_app
from workers.queue.outbox import Outbox

TASK: Final = "cache.invalidate"
ROUTING_KEY: Final = "all"
EXPIRES_S: Final = 60
WAIT_S: Final = 0.25
"""How long an invalidation waits for its notice to be sent: the notice is a hint, which the log does not need."""


def exchange_of(namespace: str) -> Exchange:
    """The exchange of the fleet of that cache namespace; other fleets on the same broker have their own. The default namespace's
    keeps the name that it has always had."""
    name = TASK if namespace == DEFAULT_NAMESPACE else f"{TASK}.{namespace}"
    return Exchange(name, type="fanout", durable=False, auto_delete=False)


def queue_of_node(namespace: str) -> Queue:
    """A node's own queue on the exchange. Not acknowledged: a message that is given back has no receiver (on Redis it would stay
    in a list for ever), and the log makes up for a lost one."""
    exchange = exchange_of(namespace)
    return Broadcast(name=exchange.name, exchange=exchange, routing_key=ROUTING_KEY, no_ack=True, durable=False, auto_delete=True)


def supports_fanout(connection: Any) -> bool:
    """Whether messages of that connection's broker can go to every node. Where not (SQS, say), nodes hear the cache's server."""
    return "fanout" in connection.transport.implements.exchange_type


def leave_no_binding(channel: Any, exchange: Exchange) -> None:
    """Take away what kombu notes on Redis of an exchange's receivers. A fanout there reaches them by their subscriptions, and
    reads no binding; that of a node that was killed, or whose connection broke, would stay for ever. Elsewhere: nothing."""
    bindings = (getattr(channel, "keyprefix_queue", ""), getattr(channel, "keyprefix_binding_permanent", ""))
    if all(bindings):
        with channel.conn_or_acquire() as client:
            client.delete(*(binding % (exchange.name,) for binding in bindings))


class Announced(NamedTuple):
    """A broadcast: the message's id, and its time, in seconds since 1970 by this host's clock."""

    message_id: str
    at: float
    invalidation: Invalidation


class Announcer:
    """Tells every node of the invalidations, in the order in which they were made. At most once, never an error, and no caller
    waits longer than WAIT_S: the log makes up for a lost notice within the staleness bound."""

    def __init__(self, app: Celery, settings: Settings, outbox: Outbox, note: Callable[[Announced], None] | None = None) -> None:
        """`note` is called for each broadcast, also for one that was lost. It must not raise."""
        self._app = app
        self._exchange = exchange_of(settings.cache_namespace)
        self._bound_s = settings.staleness_bound_s
        self._outbox = outbox
        self._note = note
        self._reaches = True

    def __call__(self, invalidation: Invalidation, invalidation_id: str | None) -> bool:
        """Whether the notice is known to be sent. Otherwise it may still go out, as long as it is news to the nodes."""
        announced = Announced(uuid(), time.time(), invalidation)
        sent = self._outbox.post(
            partial(self._publish, announced, invalidation_id),
            wait_s=WAIT_S,
            # After a bound every node has read the log. For a volatile invalidation the notice is the only source.
            useful_s=self._bound_s if invalidation.durable else EXPIRES_S,
        )
        if self._note is not None:
            self._note(announced)
        return sent and self._reaches

    def close(self) -> None:
        """Send the waiting notices, for FLUSH_S at most, and close the connection."""
        self._outbox.close()

    def _publish(self, announced: Announced, invalidation_id: str | None, producer: Producer) -> None:
        if not supports_fanout(producer.connection):
            self._reaches = False
            return
        invalidation = announced.invalidation
        epoch, seq = (invalidation.epoch, invalidation.seq) if invalidation.durable else ("", 0)
        kwargs = {"published_at": announced.at} | ({"invalidation_id": invalidation_id} if invalidation_id else {})
        # Written here and not by the app's `send_task`: that is for tasks, which an app may route, serialize, sign and watch in
        # ways of its own. On Redis a fanout needs the exchange, its type and the queue's own routing key; with another routing
        # key the message goes to a channel that no node listens to.
        producer.publish(
            [
                [epoch, seq, list(invalidation.patterns)],
                kwargs,
                {"callbacks": None, "errbacks": None, "chain": None, "chord": None},
            ],
            headers={"lang": "py", "task": TASK, "id": announced.message_id, "argsrepr": "()", "kwargsrepr": "{}"},
            correlation_id=announced.message_id,
            exchange=self._exchange,
            routing_key=ROUTING_KEY,
            declare=[self._exchange],
            serializer="json",
            delivery_mode="transient",
            expiration=EXPIRES_S,
            retry=False,
        )


def announcer_of(settings: Settings, reporter: Callable[[], Reporter]) -> Announcer:
    """The announcer of a program without a client or an app: the entry point of the group `persona.announcers`."""
    app = make_app(settings)
    return Announcer(app, settings, Outbox(app), note_in(reporter))


def note_in(reporter: Callable[[], Reporter]) -> Callable[[Announced], None]:
    """Have each broadcast recorded by the reporter that exists when it is sent."""

    def note(announced: Announced) -> None:
        done = announced.invalidation
        reporter().invalidated(announced.message_id, announced.at, done.patterns, durable=done.durable)

    return note
