"""A place in a trace, as W3C's `traceparent` names it: https://www.w3.org/TR/trace-context/."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final, NamedTuple

TRACEPARENT: Final = "traceparent"
"""The header of a message by which its trace goes on."""
TRACE_LINK: Final = "persona_trace_link"
"""The header that names the place of whatever asked for a task that is a trace of its own."""
_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)
_OWNER: Final = re.compile(r"([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{8}", re.ASCII)
LONGEST: Final = 55
"""Of the header, in characters; also the shortest."""


class Place(NamedTuple):
    """A span's place. Both numbers are above 0; `sampled`: whether the trace is recorded."""

    trace_id: int
    span_id: int
    sampled: bool = True

    def __str__(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.sampled:02x}"


def place_in(header: Any) -> Place | None:
    """The place that a header names. None for anything malformed: whatever a sender wrote, it costs no more than this look."""
    if not isinstance(header, str) or len(header) != LONGEST:
        return None
    found = _FORM.fullmatch(header)
    if found is None or found[1] == "ff":
        return None
    place = Place(int(found[2], 16), int(found[3], 16), bool(int(found[4], 16) & 1))
    return place if place.trace_id and place.span_id else None


def derived(task_id: str) -> Place:
    """The root of a task whose sender has begun no trace: the same in each process that meets the task, and at each try."""
    digest = hashlib.blake2b(task_id.encode(errors="replace"), digest_size=24, person=b"persona.trace").digest()
    return Place(int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:]) or 1)


def place_of_owner(owner: str) -> Place | None:
    """Where the owner of a lease computes, if it has said so: see `Tracer.owner`."""
    found = _OWNER.fullmatch(owner)
    return Place(int(found[1], 16), int(found[2], 16)) if found else None
