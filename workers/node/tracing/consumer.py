"""Messages that are refused, as spans: the end of a trace whose task never began."""

from __future__ import annotations

import time
from typing import Any

from pipeline.tracing import tracer_of
from pipeline.tracing.context import TRACEPARENT, place_in
from pipeline.tracing.spans import Span
from workers.node.consumer import GuardedConsumer


class TracedConsumer(GuardedConsumer):
    """That consumer, told of. A message that names no trace is told of in the log alone, as ever."""

    def _refuse(self, message: Any, why: str, error: Exception | None = None, *, read: bool = True) -> None:
        tracer = tracer_of(self.app.settings)
        place = place_in(message.headers.get(TRACEPARENT)) if isinstance(message.headers, dict) else None
        if tracer is not None and place is not None and place.sampled:
            span = Span("message refused", place.span_id, "consumer")
            span.end_ns = time.time_ns()
            span.error = type(error).__name__ if error is not None else "InvalidMessage"
            tracer.send(place.trace_id, [span])
        super()._refuse(message, why, error, read=read)
