"""Hits that a node's main process answers, as spans: one each, within the caller's trace."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.optimized import OptimizedPipeline
from pipeline.tracing.context import derived, place_in
from pipeline.tracing.spans import Span, Tracer, Unit, unit_of
from workers.node.door import Allowance, Answer, Door, Store
from workers.node.tracing.tasks import describe, ns_of
from workers.queue.names import PROCESS_TASK


class TracedDoor(Door):
    """Told of are all hits whose callers are traced; of the others as many a second as monitors are told of."""

    def __init__(
        self,
        pipeline: OptimizedPipeline,
        store: Store,
        dispatcher: Callable[[], Any],
        events_per_s: float,
        *,
        tracer: Tracer,
    ) -> None:
        super().__init__(pipeline, store, dispatcher, events_per_s)
        self._tracer = tracer
        self._untraced = Allowance(events_per_s)

    def tell(self, answers: Sequence[Answer]) -> bool:
        began_ns = time.time_ns()
        if not super().tell(answers):
            return False
        ended_ns = time.time_ns()
        units = [self._unit(answer, began_ns, ended_ns) for answer in answers]
        self._tracer.sink_all([unit for unit in units if unit is not None])
        return True

    def _unit(self, answer: Answer, began_ns: int, ended_ns: int) -> Unit | None:
        parent = None if answer.traceparent is None else place_in(answer.traceparent)
        if parent is None:
            if not self._untraced.take(1):
                return None
            root = derived(answer.task_id)
            parent = root._replace(span_id=0, sampled=self._tracer.samples(root.trace_id))
        if not parent.sampled:
            return None
        span = Span(f"{PROCESS_TASK} at the door", parent.span_id, "consumer", began_ns)
        span.end_ns = ended_ns
        describe(span.attributes, answer.task_id, {}, retries=0)
        span.attributes["persona.source"] = answer.hit.found.source
        spans = [span]
        if start_ns := ns_of(answer.published_at):
            waited = Span("queue", span.span_id if not parent.span_id else parent.span_id, "consumer", min(start_ns, began_ns))
            waited.end_ns = began_ns
            spans.append(waited)
        return unit_of(parent.trace_id, spans)
