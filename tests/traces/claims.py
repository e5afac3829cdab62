"""One owner a key at a time, seen from all processes: what is known of a claim's life, held against what each process got."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from traces.events import Claimed
from traces.recording.recorder import Trace

LATE_NS: Final = 1_000_000_000
"""By how much a server that takes over may lag."""

Told = tuple[Claimed, Trace, int]


class _Life(NamedTuple):
    """A claim was surely held by its owner from `since` until `until`, if nothing has ended it before."""

    owner: str
    since: int
    until: float


def broken(told: Iterable[Told], faults: Iterable[int]) -> Iterator[tuple[Trace, int, str]]:
    """The steps of one name that cannot all have happened. `faults`: moments at which the server may have lost its claims."""
    steps = sorted(told, key=lambda one: one[0].began)
    lost = sorted(faults)
    ended: dict[str, int] = {}
    """By owner: when its claim had ended, at the latest."""
    ending: dict[str, int] = {}
    """By owner: from when on its claim may have ended."""
    lives: list[_Life] = []
    for event, _, _ in steps:
        if event.done and event.what == "replace" and event.held != "-":
            ended[event.held] = min(event.ended, ended.get(event.held, event.ended))
        if event.what in ("release?", "give back?", "replace?") and event.held != "-":
            ending[event.held] = min(event.began, ending.get(event.held, event.began))
        if event.done and event.what in ("take", "replace"):
            lives.append(_Life(event.owner, event.ended, event.began + event.ttl))
    for event, trace, place in steps:
        if not event.done:
            continue
        over = ended.get(event.held, event.began)
        if event.what != "take" and event.held != "-" and over < event.began and not _lost(lost, over - LATE_NS, event.ended):
            yield trace, place, f"the claim of {event.held} was taken over before"
        if event.what != "take":
            continue
        for life in lives:
            held = life.owner != event.owner and life.since < event.began and event.ended < life.until
            held = held and event.ended < ending.get(life.owner, event.ended + 1)
            if held and not _lost(lost, life.since - LATE_NS, event.ended):
                yield trace, place, f"{life.owner} holds the claim, and has not given it back"


def _lost(faults: list[int], since: int, until: int) -> bool:
    return any(since <= at <= until for at in faults)
