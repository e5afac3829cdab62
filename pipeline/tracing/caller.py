"""The program's own span, if it traces itself: what is done here for it goes on in its trace."""

from __future__ import annotations

from opentelemetry.trace import get_current_span

from pipeline.tracing.context import Place


def place_of_caller() -> Place | None:
    """The place of the span that is current in this thread or asyncio task."""
    context = get_current_span().get_span_context()
    return Place(context.trace_id, context.span_id, bool(context.trace_flags.sampled)) if context.is_valid else None
