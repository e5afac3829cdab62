"""Outcomes that tell which trace their task is a part of: a caller that has joined another's task links to it."""

from __future__ import annotations

from typing import Any

from pipeline.tracing.context import TRACEPARENT, place_in
from workers.queue.outcomes.store import OutcomeStore


class TracedOutcomeStore(OutcomeStore):
    """As Celery keeps outcomes, with one field more, which callers without it pass over."""

    def _get_result_meta(self, *args: Any, request: Any = None, **options: Any) -> dict[str, Any]:
        meta: dict[str, Any] = super()._get_result_meta(*args, request=request, **options)
        if request is not None and (place := place_in(getattr(request, TRACEPARENT, None))) is not None:
            meta[TRACEPARENT] = str(place)
        return meta
