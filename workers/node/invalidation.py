"""What this product's node does beyond following the log: equips the personas' pipeline, tells figures, shows Flower."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final
from uuid import NAMESPACE_OID, uuid5

from celery.signals import worker_init, worker_process_shutdown
from kombu.message import Message

from pipeline.assembly import Equipment, equip, get_optimized_pipeline
from pipeline.cache.coherence.node import Notice
from pipeline.courier import EVERY_S, build_courier
from pipeline.errors import ConfigurationError
from pipeline.figures import FigureKeys, LifeSign, Reporter, build_reporter
from pipeline.figures.records import shown_patterns
from pipeline.persona_pipeline import get_pipeline
from pipeline.responders.connection import load_client
from pipeline.settings import Settings
from workers.install.node import node_of
from workers.install.standing import version_here
from workers.install.step import FollowStep
from workers.queue.broadcast import TASK, Announcer, note_in
from workers.queue.dispatch import refresher
from workers.queue.outbox import Outbox

logger: Final = logging.getLogger(__name__)

_outbox: Outbox | None = None


@worker_init.connect(weak=False)
def equip_processes(sender: Any = None, **_: Any) -> None:
    """Before the pool forks: lend the children the node's bus, and the ways to the broker."""
    global _outbox  # noqa: PLW0603 - one a worker, made here
    node = node_of(sender.app)
    if node is None:
        return  # the worker of another app, which has imported this
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # at INFO it writes a line for each call of the model
    _check(node.settings)
    _outbox = Outbox(sender.app)
    announcer = Announcer(sender.app, node.settings, _outbox, note_in(lambda: get_optimized_pipeline().reporter))
    equip(Equipment(bus=node.bus, announce=announcer, refresh=refresher(sender.app, _outbox), node=node.begin(sender.hostname)))


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


class InvalidationStep(FollowStep):
    """Follows the log, and tells of it."""

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._reporter: Reporter | None = None

    def start(self, c: Any) -> None:
        if self._node is None:
            return
        if self._reporter is None:
            settings, node = self._node.settings, self._node.begin(c.hostname)
            courier = build_courier(settings, threaded=False)
            self._reporter = build_reporter(settings, courier, node=node, role="main", pool=lambda: _pids(c.pool))
            if settings.figures:
                LifeSign(courier, FigureKeys(settings.cache_namespace), node=node, version=version_here() or "unknown")
        self._reporter.courier.start()
        c.figures = self._reporter  # for the steps that follow
        self._parent = c
        super().start(c)
        self._timer_entries.append(c.timer.call_repeatedly(EVERY_S, self._report))

    def shutdown(self, c: Any) -> None:
        if self._reporter is not None:
            self._reporter.courier.close()
        super().shutdown(c)

    def applied(self, message: Message, notice: Notice, published_at: Any, took_s: float) -> None:
        if self._reporter is not None:
            self._reporter.applied(str(message.headers.get("id"))[:64], published_at)
        self._tell_flower(message, notice.patterns, took_s)

    def _tell_flower(self, message: Message, patterns: tuple[str, ...], runtime_s: float) -> None:
        """Send the events of a task that ran here, so that Flower shows the invalidation on each worker."""
        dispatcher = self._parent.event_dispatcher
        if self._node is None or dispatcher is None or not dispatcher.enabled:
            return
        # The nodes share the message's id; Flower shows a task once. An id of this node's own keeps them apart.
        uuid = str(uuid5(NAMESPACE_OID, f"{message.headers.get('id')}:{self._node.id}"))
        shown = repr(list(shown_patterns(patterns)))[:200]
        try:
            dispatcher.send("task-received", uuid=uuid, name=TASK, args=shown, kwargs="{}", retries=0, eta=None, expires=None)
            dispatcher.send("task-started", uuid=uuid)
            dispatcher.send("task-succeeded", uuid=uuid, result="applied", runtime=runtime_s)
        except Exception:  # observers must not break the work, whatever a broken connection raises
            logger.warning("cache.event_lost", exc_info=True)

    def _report(self) -> None:
        if self._reporter is not None:
            self._reporter.courier.deliver("due")


def _pids(pool: Any) -> tuple[int, ...] | None:
    """A pool's own processes, of which only prefork has any; None while it ends, or begins."""
    try:
        return tuple(pool.info.get("processes", ()))
    except AttributeError:
        return None
