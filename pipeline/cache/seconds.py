"""Durations as callers write them."""

from __future__ import annotations

import math
from datetime import timedelta

Duration = float | timedelta
"""Seconds, or a timedelta."""


def seconds(value: object, field: str) -> float:
    """The duration in seconds. Raises ValueError, naming the field, for anything else: a bool, a text, None, NaN, infinity."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{field}: expected seconds or a timedelta, got {_shown(value)}")  # noqa: TRY004 - as for any other ttl
    try:
        duration_s = float(value)
    except OverflowError:
        raise ValueError(f"{field}: expected seconds, got a number beyond the range of floats") from None
    if not math.isfinite(duration_s):
        raise ValueError(f"{field}: {duration_s}; expected a finite number of seconds")
    return duration_s


def positive_seconds(value: object, field: str) -> float:
    """As `seconds`, above 0."""
    duration_s = seconds(value, field)
    if duration_s <= 0:
        raise ValueError(f"{field}: {duration_s:g}; expected seconds above 0")
    return duration_s


def _shown(value: object) -> str:
    return "None" if value is None else type(value).__name__
