"""How entries of one kind are computed and kept: of which type, for how long, and by how many callers at once."""

from __future__ import annotations

from typing import Any, Final, TypedDict

import msgspec

from pipeline.cache.grace import Grace
from pipeline.cache.seconds import Duration, seconds


class Kind(msgspec.Struct, frozen=True):
    """`type`: Any for JSON, or a frozen struct that comes back as such. `ttl`: how long a value is kept, in seconds or as a
    timedelta. `negative_ttl`: how long None is kept, which stands for "there is nothing"; 0 is not at all, None as any value.
    Without `single_flight` two callers that miss both compute: for values that cost less than to ask Redis which process does."""

    type: Any = Any
    ttl: Duration = 300
    negative_ttl: Duration | None = None
    single_flight: bool = True

    def lifetimes_s(self, max_ttl_s: float, grace: Grace | None = None) -> tuple[float, float | None, float]:
        """The time to live, that of None, and the grace, in seconds. Raises ValueError naming the field, for one that is no time
        or is beyond `max_ttl_s`, and for a grace that is so together with the time to live."""
        ttl = self.ttl
        if (type(ttl) is not int and type(ttl) is not float) or not 0 < ttl <= max_ttl_s:  # written out: a hit pays for it
            ttl = checked_ttl_s(ttl, "ttl", max_ttl_s)
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
    ttl: Duration
    negative_ttl: Duration | None
    single_flight: bool


PLAIN: Final = Kind()


def checked_ttl_s(ttl: Duration, field: str, max_ttl_s: float) -> float:
    """A time to live in seconds; 0 is allowed for `negative_ttl` alone. Raises ValueError naming the field."""
    ttl_s = ttl if type(ttl) is float or type(ttl) is int else seconds(ttl, field)
    if not 0 < ttl_s <= max_ttl_s and not (ttl_s == 0 and field == "negative_ttl"):
        shown_s = seconds(ttl_s, field)  # refuses NaN, and what has no end, in its own words
        raise ValueError(f"{field}: {shown_s:g}; expected seconds above 0 and up to {max_ttl_s:g} (max_ttl_s)")
    return ttl_s
