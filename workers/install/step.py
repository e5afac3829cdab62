"""The node, for any Celery app: the worker's main process follows the invalidation log for all its pool children.

The broadcast is consumed here, on a channel of its own. On the tasks' channel it would share their prefetch credit and not even
be read while all slots are busy, and in the pool one child of many would get it. Beside it the main process hears what the
cache's server publishes of each append: that reaches it also from programs that know no broker.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from celery import bootsteps
from kombu import Consumer
from kombu.exceptions import KombuError
from kombu.message import Message

from pipeline.cache.coherence.bus import NodeBus
from pipeline.cache.coherence.listener import Listener
from pipeline.cache.coherence.log import RedisInvalidationLog
from pipeline.cache.coherence.node import NodeFollower, Notice
from pipeline.cache.coherence.published import page_in
from pipeline.cache.coherence.registry import NodeRegistry, beat_every_s
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.connection import RedisConnection
from pipeline.cache.server.subscription import Subscription
from pipeline.settings import Settings
from workers.install import standing as _standing  # noqa: F401 - its command is registered by that
from workers.install.node import node_of
from workers.queue.broadcast import TASK, exchange_of, leave_no_binding, queue_of_node, supports_fanout

logger: Final = logging.getLogger(__name__)

SUBSCRIBE_AGAIN_S: Final = 5.0
"""How soon the main process tries to subscribe once more after it could not: meanwhile it stands still, for a time-out of the
cache at most. A subscription that was lost is made anew at the next beat."""


def follower_and_log(
    node: str, bus: NodeBus, settings: Settings, *, registered: bool = True
) -> tuple[NodeFollower, RedisInvalidationLog | None]:
    """The bus's writer, and the log that it follows. `registered`: callers that wait for the nodes wait for this one, too."""
    if not settings.cache_url:
        return NodeFollower(node, bus, None, None), None
    connection = RedisConnection(settings.cache_url, timeout_s=settings.cache_timeout_s)
    keys = KeySpace(settings.cache_namespace)
    log = RedisInvalidationLog(connection, keys, retention_s=settings.max_ttl_s)
    return NodeFollower(node, bus, log, NodeRegistry(connection, keys) if registered else None), log


class FollowStep(bootsteps.ConsumerStep):
    """Consumes the broadcast, hears the cache's server, and beats, twice a staleness bound while a process of the node reads.
    Starts anew with each connection to the broker. Does nothing for an app without a node."""

    requires = ("celery.worker.consumer:Connection", "celery.worker.consumer.events:Events")

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timer_entries: list[Any] = []
        self._node = node_of(consumer.app)
        self._follower: NodeFollower | None = None
        self._ear: _Ear | None = None

    def start(self, c: Any) -> None:
        if self._node is None:
            return
        settings = self._node.settings
        if self._follower is None:
            self._follower, log = follower_and_log(self._node.begin(c.hostname), self._node.bus, settings)
            if log is not None and settings.listen:
                self._ear = _Ear(log, self._follower)
        if supports_fanout(c.connection):
            super().start(c)
            for consumer in self.consumers:
                leave_no_binding(consumer.channel, exchange_of(settings.cache_namespace))
        if self._ear is not None:
            self._ear.open(_hub_of(c))
        self._follower.catch_up()  # after the subscription: no notice falls between the two
        self._follower.beat()
        every_s = beat_every_s(settings.staleness_bound_s)
        self._timer_entries = [c.timer.call_repeatedly(every_s, self._beat, (every_s,))]

    def stop(self, c: Any) -> None:
        self._end_turn()
        super().stop(c)

    def shutdown(self, c: Any) -> None:
        self._end_turn()
        super().shutdown(c)
        if self._follower is not None and self._node is not None:
            self._follower.leave(self._node.settings.staleness_bound_s)

    def get_consumers(self, channel: Any) -> list[Consumer]:
        assert self._node is not None  # noqa: S101 - `start` has looked
        return [
            Consumer(
                channel,
                queues=[queue_of_node(self._node.settings.cache_namespace)],
                on_message=self.on_message,
                no_ack=True,
                accept=["json"],
                tag_prefix="invalidation",
            )
        ]

    def on_message(self, message: Message) -> None:
        """Apply one notice. A malformed or foreign message is counted and dropped: no message may end the main process."""
        follower = self._follower
        if follower is None:
            return
        began_s = time.monotonic()
        published_at, *fields = _fields(message)
        notice = follower.receive(*fields)
        if notice is None:
            logger.warning("cache.notice_dropped: a malformed or foreign message")
            return
        self.applied(message, notice, published_at, time.monotonic() - began_s)

    def applied(self, message: Message, notice: Notice, published_at: Any, took_s: float) -> None:
        """For an app that tells of it."""

    def _beat(self, every_s: float) -> None:
        if self._follower is not None:
            self._follower.beat_if_due(every_s)
        if self._ear is not None:
            self._ear.open_if_lost()

    def _end_turn(self) -> None:
        for entry in self._timer_entries:
            entry.cancel()
        self._timer_entries.clear()
        if self._ear is not None:
            self._ear.close()


def _hub_of(c: Any) -> Any | None:
    """The main loop, if it is to do the hearing: where it forks children, and had better have no threads. Where tasks run in this
    very process, a thread hears also while a task holds the loop up (solo)."""
    return c.hub if c.hub is not None and type(c.pool).__module__ == "celery.concurrency.prefork" else None


class _Ear:
    """Hears what is appended, by the main loop or by a thread."""

    def __init__(self, log: RedisInvalidationLog, follower: NodeFollower) -> None:
        self._log, self._follower = log, follower
        self._listener = Listener(log.subscribe, follower)
        self._hub: Any = None
        self._subscription: Subscription | None = None
        self._refused_at_s = float("-inf")

    def open(self, hub: Any | None) -> None:
        self._hub = hub
        if hub is None:
            self._listener.begin()
        else:
            self._subscribe()

    def open_if_lost(self) -> None:
        if self._hub is not None and self._subscription is None and time.monotonic() - self._refused_at_s >= SUBSCRIBE_AGAIN_S:
            self._subscribe()
            self._follower.catch_up()

    def close(self) -> None:
        self._listener.close()
        hub, self._hub = self._hub, None
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            hub.remove_reader(subscription.fileno())
            subscription.hang_up()  # children have a copy
            subscription.close()

    def _subscribe(self) -> None:
        try:
            self._subscription = self._log.subscribe()
        except SharedTierUnavailableError as error:
            self._refused_at_s = time.monotonic()
            logger.warning("cache.not_listening: %s; the broadcast and the beats remain", error)
            return
        self._hub.add_reader(self._subscription.fileno(), self._readable)

    def _readable(self) -> None:
        subscription = self._subscription
        try:
            while subscription is not None and (message := subscription.receive(0)) is not None:
                self._follower.hear(page_in(message))
        except SharedTierUnavailableError:
            hub = self._hub
            self.close()
            self._hub = hub  # `open_if_lost` tries again


def _fields(message: Message) -> tuple[Any, Any, Any, Any, Any]:
    """The time of publishing, epoch, seq, patterns and id of a message, unchecked; None for each if it is not a notice."""
    try:
        args, kwargs, _ = message.decode()
        epoch, seq, patterns = args
        if message.headers["task"] == TASK:
            return kwargs.get("published_at"), epoch, seq, patterns, kwargs.get("invalidation_id")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, KombuError):
        pass  # the caller counts and logs it, like a well-formed message of another program
    return None, None, None, None, None
