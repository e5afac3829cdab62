"""The node: a worker's main process, which follows the invalidation log for all its pool children.

The broadcast is consumed here, on a channel of its own. On the tasks' channel it would share their prefetch credit and not even
be read while all slots are busy, and in the pool one child of many would get it.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Any, Final
from uuid import NAMESPACE_OID, uuid5

from celery import bootsteps
from celery.signals import worker_init, worker_process_shutdown
from kombu import Consumer
from kombu.exceptions import KombuError
from kombu.message import Message

from pipeline.assembly import Equipment, equip, get_optimized_pipeline
from pipeline.cache.coherence.bus import NodeBus
from pipeline.cache.coherence.identity import node_id
from pipeline.cache.coherence.log import RedisInvalidationLog
from pipeline.cache.coherence.node import NodeFollower
from pipeline.cache.coherence.registry import NodeRegistry, beat_every_s
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.connection import RedisConnection
from pipeline.courier import EVERY_S, build_courier
from pipeline.errors import ConfigurationError
from pipeline.figures import Reporter, build_reporter
from pipeline.persona_pipeline import get_pipeline
from pipeline.responders.connection import load_client
from pipeline.settings import Settings, get_settings
from workers.queue.broadcast import TASK, Announcer, note_in, queue_of_node
from workers.queue.dispatch import refresher
from workers.queue.outbox import Outbox

logger: Final = logging.getLogger(__name__)

_bus: NodeBus | None = None
_node = ""
_outbox: Outbox | None = None


@worker_init.connect(weak=False)
def equip_processes(sender: Any = None, **_: Any) -> None:
    """Before the pool forks: make the bus that the children will share."""
    global _bus, _node, _outbox  # noqa: PLW0603 - one a worker, made here
    _bus = NodeBus()
    _node = node_id(sender.hostname, os.getpid())  # workers of one host have one name, unless they are given others
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # at INFO it writes a line for each call of the model
    _check(get_settings())
    _outbox = Outbox(sender.app)
    announcer = Announcer(sender.app, get_settings(), _outbox, note_in(lambda: get_optimized_pipeline().reporter))
    equip(Equipment(bus=_bus, announce=announcer, refresh=refresher(sender.app, _outbox), node=_node))


def _check(settings: Settings) -> None:
    """End the worker with one sentence if its pipeline cannot be made: each child would find out by itself, and be replaced."""
    try:
        get_pipeline()
        if settings.llm_url and not settings.responder:
            load_client()  # half a second, once for all children instead of once in each one's first answer
    except ConfigurationError as error:
        sys.exit("".join(f"error: {line}\n" for line in str(error).splitlines()).rstrip())


@worker_process_shutdown.connect(weak=False)
def empty_outbox(**_: Any) -> None:
    """A pool child ends without running exit handlers."""
    if _outbox is not None:
        _outbox.close()


def build_follower(node: str, bus: NodeBus, settings: Settings) -> NodeFollower:
    if not settings.cache_url:
        return NodeFollower(node, bus, None, None)
    connection = RedisConnection(settings.cache_url, timeout_s=settings.cache_timeout_s)
    keys = KeySpace(settings.cache_namespace)
    log = RedisInvalidationLog(connection, keys, retention_s=settings.max_ttl_s)
    return NodeFollower(node, bus, log, NodeRegistry(connection, keys))


class InvalidationStep(bootsteps.ConsumerStep):
    """Consumes the broadcast and beats, twice a staleness bound while a process of the node reads. Starts anew with each
    connection to the broker."""

    requires = ("celery.worker.consumer:Connection", "celery.worker.consumer.events:Events")

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timer_entries: list[Any] = []
        self._follower: NodeFollower | None = None
        self._reporter: Reporter | None = None

    def start(self, c: Any) -> None:
        settings = get_settings()
        if self._follower is None and _bus is not None:
            self._follower = build_follower(_node, _bus, settings)
            courier = build_courier(settings, threaded=False)
            self._reporter = build_reporter(settings, courier, node=_node, role="main", pool=lambda: _pids(c.pool))
        if self._follower is None or self._reporter is None:
            return
        self._reporter.courier.start()
        c.figures = self._reporter  # for the steps that follow
        self._parent = c
        super().start(c)
        self._follower.catch_up()  # after the subscription: no notice falls between the two
        self._follower.beat()
        every_s = beat_every_s(settings.staleness_bound_s)
        self._timer_entries = [
            c.timer.call_repeatedly(every_s, self._beat, (every_s,)),
            c.timer.call_repeatedly(EVERY_S, self._report),
        ]

    def stop(self, c: Any) -> None:
        self._cancel_timer()
        super().stop(c)

    def shutdown(self, c: Any) -> None:
        self._cancel_timer()
        super().shutdown(c)
        if self._reporter is not None:
            self._reporter.courier.close()
        if self._follower is not None:
            self._follower.leave(get_settings().staleness_bound_s)

    def get_consumers(self, channel: Any) -> list[Consumer]:
        return [
            Consumer(
                channel,
                queues=[queue_of_node(get_settings().cache_namespace)],
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
        if self._reporter is not None:
            self._reporter.applied(str(message.headers.get("id"))[:64], published_at)
        self._tell_flower(message, notice.patterns, time.monotonic() - began_s)

    def _tell_flower(self, message: Message, patterns: tuple[str, ...], runtime_s: float) -> None:
        """Send the events of a task that ran here, so that Flower shows the invalidation on each worker."""
        dispatcher = self._parent.event_dispatcher
        if dispatcher is None or not dispatcher.enabled:
            return
        # The nodes share the message's id; Flower shows a task once. An id of this node's own keeps them apart.
        uuid = str(uuid5(NAMESPACE_OID, f"{message.headers.get('id')}:{_node}"))
        shown = repr(list(patterns))[:200]
        try:
            dispatcher.send("task-received", uuid=uuid, name=TASK, args=shown, kwargs="{}", retries=0, eta=None, expires=None)
            dispatcher.send("task-started", uuid=uuid)
            dispatcher.send("task-succeeded", uuid=uuid, result="applied", runtime=runtime_s)
        except Exception:  # observers must not break the work, whatever a broken connection raises
            logger.warning("cache.event_lost", exc_info=True)

    def _beat(self, every_s: float) -> None:
        if self._follower is not None:
            self._follower.beat_if_due(every_s)

    def _report(self) -> None:
        if self._reporter is not None:
            self._reporter.courier.deliver("due")

    def _cancel_timer(self) -> None:
        for entry in self._timer_entries:
            entry.cancel()
        self._timer_entries.clear()


def _pids(pool: Any) -> tuple[int, ...] | None:
    """A pool's own processes, of which only prefork has any; None while it ends, or begins."""
    try:
        return tuple(pool.info.get("processes", ()))
    except AttributeError:
        return None


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
