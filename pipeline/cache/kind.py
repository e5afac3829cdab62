"""How entries of one kind are computed and kept: of which type, for how long, and by how many callers at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, TypedDict

import msgspec

from pipeline.cache.grace import Grace
from pipeline.cache.seconds import Duration, seconds

Ttl = Duration | Callable[[Any], Duration]
"""Seconds, a timedelta, or a function that makes either of the value."""


class Kind(msgspec.Struct, frozen=True):
    """`type`: Any for JSON, or a type that msgspec writes and reads, as which the value comes back. `ttl`: how long a value is
    kept, in seconds or as a timedelta, or a function of the value that says so; 0 of that function is not at all. `negative_ttl`:
    how long None is kept, which stands for "there is nothing"; 0 is not at all, None as any value. Without `single_flight` two
    callers that miss both compute: for values that cost less than to ask Redis which process does. `unfit`: a computed value that
    cannot be kept (too large, not of the type) is handed to its caller and told once in the log, by `name`; or raises."""

    type: Any = Any
    ttl: Ttl = 300
    negative_ttl: Duration | None = None
    single_flight: bool = True
    unfit: Literal["tell", "raise"] = "tell"
    name: str = ""

    def lifetimes_s(self, max_ttl_s: float, grace: Grace | None = None) -> tuple[float, float | None, float]:
        """The time to live (0 if a function says it), that of None, and the grace, in seconds. Raises ValueError naming the
        field, for one that is no time or is beyond `max_ttl_s`, and for a grace that is so together with the time to live."""
        ttl: Any = self.ttl
        if (type(ttl) is not int and type(ttl) is not float) or not 0 < ttl <= max_ttl_s:  # written out: a hit pays for it
            ttl = 0.0 if callable(ttl) else checked_ttl_s(ttl, "ttl", max_ttl_s)
        ttl_s: float = ttl
        negative_s = None
        if self.negative_ttl is not None:
            negative_s = checked_ttl_s(self.negative_ttl, "negative_ttl", max_ttl_s)
        if grace is None:
            return ttl_s, negative_s, 0.0
        grace_s = grace.s if type(grace.s) is float else seconds(grace.s, "grace")
        if not 0 <= grace_s <= max_ttl_s - ttl_s:
            raise ValueError(f"grace: {grace_s} s; expected 0 or more, and with the ttl up to {max_ttl_s:g} s (max_ttl_s)")
        return ttl_s, negative_s, grace_s


class KindOptions(TypedDict, total=False):
    """The fields of a Kind, as keywords of a call."""

    type: Any
    ttl: Ttl
    negative_ttl: Duration | None
    single_flight: bool
    unfit: Literal["tell", "raise"]
    name: str


PLAIN: Final = Kind()


def lifetime_of(kind: Kind, value: object, negative_s: float | None, max_ttl_s: float) -> float:
    """The time to live of that value, in seconds; 0: not kept. Raises ValueError for a function that raises, or makes none."""
    if value is None and negative_s is not None:
        return negative_s
    if not callable(kind.ttl):
        return kind.ttl if type(kind.ttl) is float else checked_ttl_s(kind.ttl, "ttl", max_ttl_s)
    field = f"{kind.name}: ttl" if kind.name else "ttl"
    try:
        ttl = kind.ttl(value)
    except Exception as error:
        raise ValueError(f"{field}: its function raised {type(error).__name__}: {error}") from error
    return 0.0 if ttl == 0 and type(ttl) in (int, float) else checked_ttl_s(ttl, field, max_ttl_s)


def checked_ttl_s(ttl: Duration, field: str, max_ttl_s: float) -> float:
    """A time to live in seconds; 0 is allowed for `negative_ttl` alone. Raises ValueError naming the field."""
    ttl_s = ttl if type(ttl) is float or type(ttl) is int else seconds(ttl, field)
    if not 0 < ttl_s <= max_ttl_s and not (ttl_s == 0 and field == "negative_ttl"):
        shown_s = seconds(ttl_s, field)  # refuses NaN, and what has no end, in its own words
        raise ValueError(f"{field}: {shown_s:g}; expected seconds above 0 and up to {max_ttl_s:g} (max_ttl_s)")
    return ttl_s
