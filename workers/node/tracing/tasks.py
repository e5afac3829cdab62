"""The spans of tasks. A task's own ends, and is handed on, before its outcome is stored: an answer that its caller has is told
of, whatever befalls the process in the next moment."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, Final

from celery import Task
from celery.exceptions import Ignore, Reject, Retry

from pipeline.tracing import tracer_of
from pipeline.tracing.context import TRACE_LINK, TRACEPARENT, Place, derived, place_in
from pipeline.tracing.spans import Span, Step, Tracer
from workers.node.failures.keeping import KeepingRequest, KeepingTask
from workers.queue.names import DELIVERIES_HEADER, PROCESS_TASK, PUBLISHED_HEADER, RENEWAL_HEADER

_OUR_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_NO_ERRORS: Final = (Retry, Ignore, Reject)


def trace_tasks(tracer: Tracer, tasks: Iterable[Task]) -> None:
    """Have each of these tasks told of, in this process and in those forked from it."""
    for task in tasks:
        if not getattr(task.run, "is_traced", False):
            task.run = _traced(tracer, task, task.run)


def _traced(tracer: Tracer, task: Task, run: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(run)
    def traced(*args: Any, **kwargs: Any) -> Any:
        request = task.request
        if request.called_directly or request.id is None:
            return run(*args, **kwargs)
        headers = vars(request)
        place = parent_of(tracer, headers, request.id)
        with tracer.unit(task.name, place, "consumer") as step:
            if request.retries == 0 and place_in(headers.get(TRACEPARENT)) is None:
                step.unit.spans.append(root_span(place, headers, task.name))
            describe(step.span, request.id, headers, retries=request.retries)
            step.link(place_in(headers.get(TRACE_LINK)))
            if request.retries == 0:
                note_wait(step, headers.get(PUBLISHED_HEADER))
            try:
                came = run(*args, **kwargs)
            except _NO_ERRORS as ended:
                step.note("persona.outcome", type(ended).__name__.lower())
                step.well = True
                raise
            if task.name == PROCESS_TASK and isinstance(came, dict):
                note_answer(step, came.get("cached"), came.get("persona"), came.get("degraded"))
            return came

    traced.is_traced = True  # type: ignore[attr-defined]
    return traced


def parent_of(tracer: Tracer, headers: Any, task_id: str) -> Place:
    """Where a task's spans hang: its sender's place, or a root that follows from its id."""
    place = place_in(headers.get(TRACEPARENT))
    if place is not None:
        return place
    root = derived(task_id)
    return root._replace(sampled=tracer.samples(root.trace_id))


def root_span(place: Place, headers: Any, name: str) -> Span:
    """The root of a task whose sender has begun no trace. The first try has it in its unit; if its process dies, main process and
    next delivery have it, too. Sent twice, it is the same span."""
    now_ns = time.time_ns()
    published_s = headers.get(PUBLISHED_HEADER)
    span = Span(f"{name} sent", 0, "producer", ns_of(published_s) or now_ns)
    span.span_id, span.end_ns = place.span_id, max(span.start_ns, now_ns)
    if (link := place_in(headers.get(TRACE_LINK))) is not None:
        span.links.append(link)
    return span


def describe(span: Span, task_id: str, headers: Any, *, retries: int) -> None:
    attributes = span.attributes
    attributes["messaging.system"] = "celery"
    if _OUR_ID.fullmatch(task_id):  # another one is its sender's own text
        span.message_id = task_id
    attributes["persona.attempt"] = retries + 1
    deliveries = headers.get(DELIVERIES_HEADER)
    if isinstance(deliveries, int) and not isinstance(deliveries, bool):
        attributes["persona.nodes_that_died"] = deliveries
    if headers.get(RENEWAL_HEADER) is True:
        attributes["persona.refresh"] = True


def note_answer(step: Step, source: Any, persona: Any, degraded: Any) -> None:
    step.note("persona.source", source)
    step.note("persona.name", persona)
    if degraded:
        step.note("persona.degraded", True)


def note_wait(step: Step, published_s: Any) -> None:
    """The time in the queue, if the sender has said when it was queued, by its clock."""
    start_ns = ns_of(published_s)
    if start_ns and step.unit.open:
        step.beside("queue", start_ns, step.span.start_ns, "consumer")


def ns_of(seconds: Any) -> int:
    """Nanoseconds since 1970; 0 for what is no time of this decade or the next."""
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 1.7e9 < seconds < 2.5e9:
        return int(seconds * 1e9)
    return 0


class TracedRequest(KeepingRequest):
    """A request whose main process tells of what its child can no longer tell: that it died, or was ended."""

    def on_failure(self, exc_info: Any, *args: Any, **options: Any) -> None:
        error = exc_info.exception
        name = type(getattr(error, "exc", None) or error).__name__
        if name in ("WorkerLostError", "Terminated", "SystemExit", "KeyboardInterrupt"):
            self._tell(name)
        super().on_failure(exc_info, *args, **options)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        if not soft:
            self._tell("TimeLimitExceeded")
        super().on_timeout(soft, timeout)

    def _tell(self, error: str) -> None:
        tracer = tracer_of(self.app.settings)
        if tracer is None:
            return
        headers = self._request_dict
        place = parent_of(tracer, headers, self.id)
        if not place.sampled:
            return
        spans = []
        if place_in(headers.get(TRACEPARENT)) is None:
            spans.append(root_span(place, headers, self.name))  # the child may have died before it sent it
        began_s = self.time_start or time.monotonic()
        now_ns = time.time_ns()
        span = Span(f"{self.name} lost", place.span_id, "consumer", now_ns - int(max(0.0, time.monotonic() - began_s) * 1e9))
        span.end_ns, span.error = now_ns, error
        describe(span, self.id, headers, retries=headers.get("retries") or 0)
        tracer.send(place.trace_id, [*spans, span])


class TracedTask(KeepingTask):
    """The base of a worker's tasks that are told of."""

    abstract = True
    Request = f"{__name__}:TracedRequest"
