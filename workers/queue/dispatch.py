"""Requests into the queue: one task for equal requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from celery.utils import uuid
from kombu import Producer
from redis.exceptions import ConnectionError as RedisConnectionError

from pipeline.cache import TwoTierCache
from pipeline.models import PersonaRequest
from pipeline.optimized import REFRESH_PAUSE_S, Refresh, Sought
from pipeline.tracing import tracer_of
from workers.queue.errors import QueueFullError
from workers.queue.factory import PersonaApp
from workers.queue.names import (
    IN_FLIGHT_HEADER,
    MAINTENANCE_QUEUE,
    PROCESS_TASK,
    PUBLISHED_HEADER,
    QUEUE,
    RENEWAL_HEADER,
)
from workers.queue.outbox import Outbox
from workers.queue.outcomes.room import Room
from workers.queue.redaction import REDACTED
from workers.queue.results import QuietResult


class Sent(NamedTuple):
    """A task to wait for. `joined`: it is another caller's. `key`: the name by which it is in flight, if it is."""

    result: QuietResult
    key: str
    joined: bool


class Dispatcher:
    """Queues requests for the workers. Thread-safe. Methods raise what the app's `send_task` raises, and QueueFullError before
    the broker has no room left: what remains is for the results, and for what goes back to its queue."""

    def __init__(self, app: PersonaApp, cache: TwoTierCache) -> None:
        self._app = app
        tracer = tracer_of(app.settings)
        self._trace: Callable[[], dict[str, str]] = dict if tracer is None else tracer.headers
        self._room = Room(self._broker)
        # rpc:// results reach only the sender, so tasks cannot be joined: each caller queues its own.
        replies = app.settings.result_backend_url.startswith("rpc:")
        self._in_flight = None if replies else cache.in_flight

    def send(self, request: PersonaRequest, queue: str, sought: Sought | None = None) -> Sent:
        """Queue the request, or join the task in flight for its key if `sought` tells the key."""
        task_id = uuid()
        if self._in_flight is None or sought is None or not sought.key:
            return Sent(self._queue(request, queue, task_id, {}), "", joined=False)
        # A caller that is not in a hurry may have queued it behind a thousand others: a task is joined from its own queue only.
        # Of two that run, one computes.
        name = sought.key if queue == QUEUE else f"{queue} {sought.key}"
        other_id = self._in_flight.enter(sought.key, sought.deps, task_id, entered_as=name)
        if other_id is not None:
            return Sent(QuietResult(other_id, app=self._app), name, joined=True)
        try:
            result = self._queue(request, queue, task_id, {IN_FLIGHT_HEADER: name})
        except BaseException:
            self._in_flight.leave(name, task_id)
            raise
        self._in_flight.renew(name, task_id)
        return Sent(result, name, joined=False)

    def _queue(self, request: PersonaRequest, queue: str, task_id: str, headers: dict[str, Any]) -> QuietResult:
        self._see_to_room()
        result: QuietResult = self._app.send_task(
            PROCESS_TASK,
            args=[request.to_wire()],
            task_id=task_id,
            queue=queue,
            headers={**headers, PUBLISHED_HEADER: time.time(), **self._trace()},
            argsrepr=REDACTED,
            kwargsrepr=REDACTED,
            result_cls=partial(QuietResult, app=self._app),
            add_to_parent=False,  # within a task of another app: its results may lie elsewhere
        )
        return result

    def _see_to_room(self) -> None:
        try:
            used = self._room.used()
        except RedisConnectionError:
            return  # one that lay idle, or the broker is away: to send will tell
        full_at = self._app.settings.queue_full_at
        if used >= full_at:
            raise QueueFullError(
                f"the broker is full: {used:.0%} of its memory is used, and from {full_at:.0%} on nothing more is queued "
                "(PERSONA_QUEUE_FULL_AT); ask again when workers have answered some of what waits"
            )

    @contextmanager
    def _broker(self) -> Iterator[Any]:
        with self._app.producer_or_acquire() as producer:
            connected = getattr(producer.channel, "conn_or_acquire", None)
            if connected is None:  # it is not Redis
                yield None
                return
            with connected() as client:
                yield client


def refresher(app: PersonaApp, outbox: Outbox) -> Refresh:
    """Queues requests to be answered anew, behind those that callers wait for. While the broker is away, a later try does it."""
    tracer = tracer_of(app.settings)
    link: Callable[[], dict[str, str]] = dict if tracer is None else tracer.link_headers

    def send(request: PersonaRequest, headers: dict[str, str], producer: Producer) -> None:
        app.send_task(
            PROCESS_TASK,
            args=[request.to_wire()],
            producer=producer,
            queue=MAINTENANCE_QUEUE,
            headers={RENEWAL_HEADER: True, **headers},
            argsrepr=REDACTED,
            kwargsrepr=REDACTED,
            ignore_result=True,
            retry=False,
        )

    def refresh(request: PersonaRequest) -> None:
        outbox.post(
            partial(send, request, link()), wait_s=0.0, useful_s=REFRESH_PAUSE_S
        )  # after that another refresh is asked for

    return refresh
