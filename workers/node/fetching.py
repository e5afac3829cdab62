"""What a node lends the channel that its tasks come by."""

from __future__ import annotations

import sys
import weakref
from functools import cache
from typing import Any, Final

from celery import bootsteps
from celery.signals import worker_shutting_down

from pipeline.assembly import build_beside_children, get_optimized_pipeline
from pipeline.figures import Reporter
from pipeline.optimized import OptimizedPipeline
from pipeline.settings import get_settings
from pipeline.tracing import tracer_of
from workers.node.control.haste import shorten_waits
from workers.node.door import Door
from workers.node.fetch.channel import FetchChannel
from workers.node.fetch.claims import refused_needs
from workers.node.fetch.fetch import Fetch
from workers.node.invalidation import InvalidationStep
from workers.node.outcomes import QuickOutcomes, are_quick
from workers.node.processes import has_children

LOOK_UP_S: Final = 0.1
"""For so long the main process waits for the cache's server, and then not again for a second."""
_consumers: Final[weakref.WeakSet[Any]] = weakref.WeakSet()


class FetchStep(bootsteps.StartStopStep):
    """Starts anew with each connection to the broker. Does nothing on another transport."""

    requires = ("celery.worker.consumer.tasks:Tasks", InvalidationStep)

    def start(self, c: Any) -> None:
        channel = c.task_consumer.channel
        if not isinstance(channel, FetchChannel):
            return
        _check(channel)
        hooks = channel.hooks
        hooks.door = build_door(c)
        hooks.is_ours = lambda name: name in c.app.tasks and not name.startswith("celery.")
        hooks.tasks = lambda: [name for name in c.app.tasks if not name.startswith("celery.")]
        if c.hub:
            hooks.later = c.timer.call_after
        _consumers.add(c)


def _check(channel: FetchChannel) -> None:
    """End the worker with one sentence if the broker cannot do what claims need."""
    refused = refused_needs(channel._create_client())  # noqa: SLF001 - the claims' own way
    if refused:
        told = ", ".join(f"{need} ({why})" for need, why in refused.items())
        sys.exit(
            f"error: the broker refuses {told}. Claims need Redis 6.2 or later, or any Valkey, and a user with these rights: see "
            "docs/fetch.md. Or set PERSONA_FETCH=pop: then a message that a worker has just taken is lost if it dies."
        )


def build_door(c: Any) -> Door | None:
    """None where results are not kept in Redis, or there is no shared tier whose answers the main process could serve."""
    settings = get_settings()
    if not settings.door or not settings.cache_url or not are_quick(c.app):
        return None
    pipeline = _pipeline_beside_children(c.figures) if has_children(c.pool) else get_optimized_pipeline()
    store, dispatcher = QuickOutcomes(c.app).store, lambda: c.event_dispatcher
    if (tracer := tracer_of(settings)) is not None and tracer.hand_on is not None:
        from workers.node.tracing.door import TracedDoor

        return TracedDoor(pipeline, store, dispatcher, settings.hit_events_per_s, hand_on=tracer.hand_on)
    return Door(pipeline, store, dispatcher, settings.hit_events_per_s)


@cache
def _pipeline_beside_children(reporter: Reporter) -> OptimizedPipeline:
    """Once a process: it outlives connections to the broker."""
    settings = get_settings()
    quick = settings.model_copy(update={"cache_timeout_s": min(settings.cache_timeout_s, LOOK_UP_S)})
    return build_beside_children(quick, reporter)


@worker_shutting_down.connect(weak=False)
def prepare_to_end(**_: Any) -> None:
    """The loop stands still while the last tasks end; what they hold must not be given away meanwhile. And a broker that does not
    answer must not hold up the end at each step."""
    for c in list(_consumers):
        channel = getattr(c.task_consumer, "channel", None)
        fetch: Fetch | None = getattr(channel, "fetch", None)
        if fetch is not None:
            fetch.upkeep.beat_aside()
        for connection in (c.connection, getattr(c.event_dispatcher, "connection", None)):
            shorten_waits(connection)
