"""Hits that a node's main process answers, as spans: one each, within the caller's trace.

The main process answers a hit in as long as a few spans take. So it only notes what came of each, and the process that sends
spans makes them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from pipeline.optimized import OptimizedPipeline
from pipeline.tracing.context import LONGEST, Place, derived, place_in
from pipeline.tracing.sending import sampler_of
from pipeline.tracing.spans import Span, Unit
from pipeline.tracing.stencil import written
from workers.node.door import Allowance, Answer, Door, Store
from workers.node.tracing.tasks import describe, ns_of
from workers.queue.names import PROCESS_TASK

PORTION: Final = 500
"""So many hits are handed on at once: 100 KB at most."""

_Noted = tuple[str, str, str, float]
"""A hit: its task's id, its header or "", its source, when it was queued."""
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[int, int, list[_Noted]]).decode


class TracedDoor(Door):
    """Told of are all hits whose callers are traced; of the others as many a second as monitors are told of."""

    def __init__(
        self,
        pipeline: OptimizedPipeline,
        store: Store,
        dispatcher: Callable[[], Any],
        events_per_s: float,
        *,
        hand_on: Callable[[bytes], None],
    ) -> None:
        super().__init__(pipeline, store, dispatcher, events_per_s)
        self._hand_on = hand_on
        self._untraced = Allowance(events_per_s)

    def tell(self, answers: Sequence[Answer]) -> bool:
        began_ns = time.time_ns()
        if not super().tell(answers):
            return False
        ended_ns = time.time_ns()
        noted: list[_Noted] = []
        allowed: int | None = None
        for task_id, published_at, hit, header in answers:
            if type(header) is not str or len(header) != LONGEST:
                if allowed is None:
                    allowed = self._untraced.take(len(answers))
                if not allowed:
                    continue
                allowed -= 1
                header = ""  # noqa: PLW2901 - none that names a place
            noted.append((task_id, header, hit.found.source, published_at if type(published_at) is float else 0.0))
        for first in range(0, len(noted), PORTION):
            self._hand_on(_encode((began_ns, ended_ns, noted[first : first + PORTION])))
        return True


def spans_of_hits(noted: bytes) -> bytes:
    """What `TracedDoor` has handed on, as the collector is to have it."""
    began_ns, ended_ns, hits = _decode(noted)
    samples = sampler_of(os.environ)
    return b"".join([_spans(*hit, began_ns, ended_ns, samples) for hit in hits])


def _spans(
    task_id: str, header: str, source: str, published_s: float, began_ns: int, ended_ns: int, samples: Callable[[int], bool]
) -> bytes:
    parent = place_in(header)
    if parent is None:
        root = derived(task_id)
        parent = root._replace(span_id=0, sampled=samples(root.trace_id))
    if not parent.sampled:
        return b""
    return written(_unit(task_id, parent, source, began_ns, ended_ns, min(ns_of(published_s), began_ns)))


def _unit(task_id: str, parent: Place, source: str, began_ns: int, ended_ns: int, queued_ns: int) -> Unit:
    """`queued_ns`: 0 if its sender has not said when."""
    unit = Unit(parent.trace_id)
    span = Span(f"{PROCESS_TASK} at the door", parent.span_id, "consumer", began_ns)
    span.end_ns = ended_ns
    describe(span, task_id, {}, retries=0)
    span.attributes["persona.source"] = source
    unit.spans.append(span)
    if queued_ns:
        waited = Span("queue", parent.span_id or span.span_id, "consumer", queued_ns)
        waited.end_ns = began_ns
        unit.spans.append(waited)
    return unit
