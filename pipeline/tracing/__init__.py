"""Spans of what this process does for a request, as OpenTelemetry has them; nothing of it is loaded unless PERSONA_TRACES is on.

Holds no text that a user wrote, no key of an entry and no secret. Never makes a caller wait for a collector.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pipeline.settings import Settings

if TYPE_CHECKING:
    from pipeline.tracing.spans import Tracer

__all__ = ["send_the_rest", "tracer_of"]


def tracer_of(settings: Settings) -> Tracer | None:
    """The tracer of this process and of those forked from it; None where PERSONA_TRACES is off, or OpenTelemetry is.

    Raises MissingExtraError, or ConfigurationError naming the variable of OpenTelemetry.
    """
    if not settings.traces:
        return None
    from pipeline.tracing.process import tracer_here

    return tracer_here()


def send_the_rest() -> None:
    """Send the spans that wait in a process which ends without exit handlers. Waits a few seconds at most; without traces, not at
    all."""
    process = sys.modules.get(f"{__name__}.process")
    if process is not None:
        process.close()
