"""A rejected step in words, with what its process did before and after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from traces import events
from traces.replay import Rejected
from traces.table import ROWS

AROUND: Final = 20
AFTER: Final = 4
_LONGEST: Final = 6
"""So many patterns are told, and the rest counted."""


def story(rejected: Rejected) -> Iterator[str]:
    """The lines: the process, the step, the rule that forbids it, and the 20 events around it."""
    trace, place, row, why = rejected
    step = trace.events[place]
    rules = ", ".join(ROWS[row].rules)
    yield f"{trace.name} (process {trace.pid}, thread {step.thread}), step {place}: {told(step)}"
    yield f"  forbidden by row {row!r} (the model's {rules}): {why}"
    yield f"  the row: {ROWS[row].about}"
    threads: dict[int, int] = {}
    first = max(0, min(place + AFTER + 1, len(trace.events)) - AROUND)
    for number in range(first, min(first + AROUND, len(trace.events))):
        event = trace.events[number]
        thread = threads.setdefault(event.thread, len(threads) + 1)
        ago_ms = (event.ended - step.ended) / 1e6
        yield f"  {'>' if number == place else ' '} {number:6} {ago_ms:+9.3f} ms  thread {thread}: {told(event)}"


def told(event: Any) -> str:
    """One event in words."""
    return str(_WORDS[type(event)](event))


def _patterns(patterns: list[str]) -> str:
    more = f" and {len(patterns) - _LONGEST} more" if len(patterns) > _LONGEST else ""
    return ", ".join(map(repr, patterns[:_LONGEST])) + more


def _entry(event: Any) -> str:
    deps = f" (deps {', '.join(event.deps)})" if event.deps else ""
    return f"{event.key!r}{deps} as of {event.epoch}:{event.seq}, generation {event.generation}"


def _appended(event: events.Appended) -> str:
    tail = f"the tail is {event.epoch}:{event.seq}:{event.floor}" if event.epoch else "no answer came"
    return f"appended {_patterns(event.patterns)}: {tail}"


def _log_read(event: events.LogRead) -> str:
    stood = f"{event.known_epoch}:{event.known_seq}" if event.known_epoch else "nowhere"
    return f"read the log, standing {stood}: {'no answer came' if event.failed else f'page {event.page}'}"


def _page(event: events.Page) -> str:
    how = "begins anew" if event.restart else f"goes on from {event.after}"
    return f"page {event.number} ({event.origin}) {how}, {len(event.records)} records, to {event.epoch}:{event.seq}:{event.floor}"


def _call(event: events.Call) -> str:
    parts = [f"page {event.page}"] * bool(event.page) + [event.tail] * bool(event.tail)
    counted = "connections" if event.what == "confirm" else "volatile"
    parts += [_patterns(event.patterns)] * bool(event.patterns) + [f"{event.count} {counted}"] * bool(event.count)
    asked = f", asked at {event.asked:.6f} s" if event.asked != float("-inf") else ""
    return f"{event.what} begins: {', '.join(parts)}{asked}"


def _published(event: events.Published) -> str:
    known = ("" if event.known else ", the log not read") + (", something pending" if event.pending else "")
    return f"published state {event.generation}: {event.epoch}:{event.seq}:{event.floor}{known}"


def _bus_written(event: events.BusWritten) -> str:
    volatile = f", {event.settled} of {event.volatile} volatile settled" + ", broken off" * event.broken_off
    return f"bus version {event.version}: {event.epoch}:{event.seq}:{event.floor}{volatile}, confirmed {event.confirmed:.6f} s"


def _bus_read(event: events.BusRead) -> str:
    if event.version < 0:
        return "read the bus: its writer was at work"
    what = f"page {event.page}" if event.page else "empty" if event.empty else "cannot tell what is new"
    volatile = f", volatile {_patterns(event.volatile)}" if event.volatile else ""
    return f"read the bus at version {event.version}: {what}{volatile}"


def _served(event: events.Served) -> str:
    degraded = ", unconfirmed" if event.degraded else ""
    return f"served by {event.by} from {event.source}{degraded}: {_entry(event)}; states {event.since} to {event.until}"


def _claimed(event: events.Claimed) -> str:
    return f"{event.what} of {event.name} by {event.owner or 'nobody'}, held by {event.held or 'nobody'}: {event.done}"


_WORDS: Final[dict[type, Any]] = {
    events.Appended: _appended,
    events.LogRead: _log_read,
    events.Page: _page,
    events.TailRead: lambda e: f"read the tail with {e.by} {e.key!r}: {'no answer came' if e.failed else e.tail or 'none'}",
    events.ViewMade: lambda e: f"made view {e.view}, bus {e.bus or 'none'}, bound {e.bound / 1e9:g} s, strict: {e.strict}",
    events.Call: _call,
    events.Return: lambda e: f"{e.what} {'was broken off' if e.outcome is None else f'returned {e.outcome}'}",
    events.Published: _published,
    events.Generation: lambda e: f"published generation {e.generation}",
    events.Confirmed: lambda e: f"published the moment of confirmation, {e.moment:.6f} s",
    events.Judged: lambda e: f"judged {_entry(e)}, by states {e.since} to {e.until}: {'valid' if e.valid else 'invalid'}",
    events.AsOfTaken: lambda e: f"took as_of {e.epoch}:{e.seq}, generation {e.generation}",
    events.BusWritten: _bus_written,
    events.BusRead: _bus_read,
    events.Followed: lambda e: f"followed the bus to version {e.version}",
    events.Received: lambda e: f"took in the notice {e.epoch or 'of no log'}:{e.seq} of {_patterns(e.patterns)}",
    events.Heard: lambda e: f"heard {f'page {e.page}' if e.page else 'that something was appended'}, {e.bus or f'view {e.view}'}",
    events.Met: lambda e: f"the log counts as asked on connection {e.contacts}",
    events.Served: _served,
    events.Computing: lambda e: f"begins to compute {e.key!r}, the newest state is {e.until}",
    events.Filled: lambda e: f"keeps, by {e.by}, {_entry(e)}",
    events.Wrote: lambda e: f"writes {e.key!r} to L2, as of {e.epoch}:{e.seq}",
    events.Invalidated: lambda e: f"invalidated {_patterns(e.patterns)}: {e.epoch}:{e.seq}, durable: {e.durable}",
    events.Branched: lambda e: f"begins as a task, coming from {e.parent}",
    events.Brought: lambda e: f"has {e.key!r} from task {e.by}",
    events.Claimed: _claimed,
}
