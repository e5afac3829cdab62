"""What the traces of all processes together tell of the log: which pattern has which number of which epoch, when appends had
returned, which epoch was alive when; what the buses held at each version; and what was written to L2.

An append whose answer was lost is in here only if a reader has found it in the log, or a listener has heard of it: what no
process knows is held against none.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Final, NamedTuple

from pipeline.cache.coherence.tail import Tail
from pipeline.cache.errors import InvalidPatternError
from pipeline.cache.patterns.pattern import parse
from traces.events import Appended, BusWritten, Call, Claimed, LogRead, Page, Return, TailRead, Wrote
from traces.recording.recorder import Trace

EVERYTHING: Final = "*"
_WILD: Final = frozenset("*?[\\")


class Seen(NamedTuple):
    """The log was seen in this epoch, at some moment of the step."""

    epoch: str
    trace: Trace
    place: int


class Epoch:
    """One history of the log."""

    def __init__(self) -> None:
        self.patterns: dict[int, str] = {}
        self.numbers: defaultdict[str, list[int]] = defaultdict(list)
        """By pattern; made by `order`."""
        self.names: dict[str, list[int]] = {}
        self.ends: list[int] = []
        self.highest: list[int] = []
        self.wild: list[str] = []
        self.first_end, self.last_begin = 1 << 62, -1

    def order(self, appends: list[tuple[int, int]]) -> None:
        newest = 0
        for ended, seq in sorted(appends):
            newest = max(newest, seq)
            self.ends.append(ended)
            self.highest.append(newest)
        self.numbers.clear()
        for seq, pattern in sorted(self.patterns.items()):
            self.numbers[pattern].append(seq)
        self.wild = [pattern for pattern in self.numbers if not _WILD.isdisjoint(pattern)]


class Truth:
    """Made of all traces of a run. `conflicts`: the places of steps that cannot all have been steps of one log, with a reason."""

    def __init__(self, traces: Iterable[Trace]) -> None:
        self.epochs: defaultdict[str, Epoch] = defaultdict(Epoch)
        self.buses: defaultdict[str, dict[int, BusWritten]] = defaultdict(dict)
        self.volatile: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
        self.appended: defaultdict[str, list[tuple[int, str, int]]] = defaultdict(list)
        self.written: set[tuple[str, str, int, tuple[str, ...]]] = set()
        self.claims: defaultdict[str, list[tuple[Claimed, Trace, int]]] = defaultdict(list)
        self.conflicts: list[tuple[Trace, int, str, str]] = []
        self._appends: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        self._seen: list[Seen] = []
        for trace in traces:
            self._take(trace)
        for name, epoch in self.epochs.items():
            epoch.order(self._appends[name])
        self._find_returns()
        self._find_late_appends()

    # -- asking

    def newest(self, epoch: str, name: str, upto: int) -> int:
        """The number of the newest record, up to that one, which means `name`; 0 for none."""
        history = self.epochs.get(epoch)
        if history is None:
            return 0
        numbers = history.names.get(name)
        if numbers is None:
            found = [seq for pattern in history.wild if means(pattern, name) for seq in history.numbers[pattern]]
            numbers = history.names[name] = sorted(found + history.numbers.get(name, []))
        place = bisect_right(numbers, upto)
        return numbers[place - 1] if place else 0

    def returned(self, epoch: str, before: float) -> int:
        """The highest number whose append had returned by that moment."""
        history = self.epochs.get(epoch)
        if history is None:
            return 0
        place = bisect_left(history.ends, before)
        return history.highest[place - 1] if place else 0

    def missing(self, page: Page) -> str:
        """What the page ought to have and has not; nothing if it is whole. Records up to its floor may be gone."""
        history = self.epochs.get(page.epoch)
        if history is None:
            return ""
        held = {seq for _, seq in page.records}
        for seq in range(max(page.after, page.floor) + 1, page.seq + 1):
            pattern = history.patterns.get(seq)
            if pattern is not None and seq not in held:
                numbers = history.numbers[pattern]
                if numbers[bisect_right(numbers, page.seq) - 1] == seq:
                    return f"record {seq} of epoch {page.epoch}, {pattern!r}"
        return ""

    def foreign(self, page: Page) -> str:
        """A record of the page that the log had otherwise."""
        history = self.epochs.get(page.epoch)
        if history is not None:
            for pattern, seq in page.records:
                known = history.patterns.get(seq)
                if known is not None and known != pattern:
                    return f"record {seq} is {known!r} in the log, and {pattern!r} here"
        return ""

    def in_log_since(self, pattern: str, moment: int, epoch: str, seq: int) -> bool:
        """Whether the pattern was appended after that moment, or one that means everything in the place of too many; and whoever
        stands there knows it, or is of another history."""
        return any(
            ended >= moment and (of != epoch or number <= seq)
            for appended in (pattern, EVERYTHING)
            for ended, of, number in reversed(self.appended.get(appended, ()))
        )

    def follows(self, epoch: str, other: str) -> bool:
        """Whether the log surely was at that epoch later than at the other: a step that saw the other had ended before."""
        if epoch == other or epoch not in self.epochs or other not in self.epochs:
            return False
        return self.epochs[other].first_end < self.epochs[epoch].last_begin

    def bus_since(self, bus: str, since: int, until: int) -> Iterator[BusWritten]:
        """What the bus was at the one moment, and since then until the other, the newest first."""
        for state in reversed(self.buses[bus].values()):
            if state.began <= until:
                yield state
                if state.began <= since:
                    return

    # -- taking in

    def _take(self, trace: Trace) -> None:  # noqa: PLR0912 - a case an event
        pages: dict[int, Page] = {}
        tails: dict[int, tuple[TailRead, int]] = {}
        confirming: dict[int, Call] = {}
        for place, event in enumerate(trace.events):
            match event:
                case Appended():
                    self._append(trace, place, event)
                case Page():
                    pages[event.number] = event
                    if event.origin in ("log", "heard"):
                        for pattern, seq in event.records:
                            self._enter(trace, place, event.epoch, seq, pattern)
                case LogRead() if not event.failed:
                    self._seen.append(Seen(pages[event.page].epoch, trace, place))
                case TailRead():
                    tails[event.thread] = event, place
                    if event.by == "beat" and event.tail:
                        self._seen.append(Seen(event.tail.partition(":")[0], trace, place))
                case Call(what="confirm"):
                    confirming[event.thread] = event
                case Call(what="publish_volatile"):
                    self.volatile[event.bus] += [(pattern, event.began) for pattern in event.patterns]
                case Return(what="confirm", outcome=True):
                    tail, at = tails.get(event.thread, (None, 0))
                    asked = confirming.get(event.thread)
                    if tail is not None and asked is not None and tail.tail == asked.tail:
                        self._seen.append(Seen(tail.tail.partition(":")[0], trace, at))
                case BusWritten():
                    self.buses[event.bus][event.version] = event
                case Wrote():
                    self.written.add((event.key, event.epoch, event.seq, event.deps))
                case Claimed():
                    self.claims[event.name].append((event, trace, place))

    def _append(self, trace: Trace, place: int, event: Appended) -> None:
        if not event.epoch:
            return
        for seq, pattern in enumerate(event.patterns, start=event.seq - len(event.patterns) + 1):
            self._enter(trace, place, event.epoch, seq, pattern)
            self.appended[pattern].append((event.ended, event.epoch, seq))
        self._appends[event.epoch].append((event.ended, event.seq))
        self._seen.append(Seen(event.epoch, trace, place))

    def _enter(self, trace: Trace, place: int, epoch: str, seq: int, pattern: str) -> None:
        known = self.epochs[epoch].patterns.setdefault(seq, pattern)
        if known != pattern:
            told = f"number {seq} of epoch {epoch} was given out twice: to {known!r} and to {pattern!r}"
            self.conflicts.append((trace, place, "numbered", told))

    def _find_returns(self) -> None:
        """An epoch that was left does not come back: each lasts at least from the first end of a step that saw it to the last
        begin of one, and no other is seen in between."""
        for epoch, trace, place in self._seen:
            event, history = trace.events[place], self.epochs[epoch]
            history.first_end = min(history.first_end, event.ended)
            history.last_begin = max(history.last_begin, event.began)
        lasting = sorted((e.first_end, e.last_begin, name) for name, e in self.epochs.items() if e.first_end < e.last_begin)
        starts = [start for start, _, _ in lasting]
        for epoch, trace, place in self._seen:
            event = trace.events[place]
            for start, end, other in lasting[max(0, bisect_left(starts, event.began) - 3) : bisect_left(starts, event.began)]:
                if other != epoch and start < event.began and event.ended < end:
                    older = self.epochs[epoch].first_end < start
                    again = (epoch, other, epoch) if older else (other, epoch, other)
                    told = f"the log was at epoch {again[0]}, then at {again[1]}, and at {again[2]} again; here at {epoch}"
                    self.conflicts.append((trace, place, "one history", told))

    def _find_late_appends(self) -> None:
        for epoch, trace, place in self._seen:
            event = trace.events[place]
            if isinstance(event, Appended) and event.seq - len(event.patterns) < self.returned(epoch, event.began):
                told = (
                    f"it got {event.seq} of epoch {epoch}, though {self.returned(epoch, event.began)} had been given out before"
                )
                self.conflicts.append((trace, place, "numbered", told))


@cache
def _matcher(pattern: str) -> Any:
    try:
        return parse(pattern).matcher()
    except InvalidPatternError:
        return lambda _: True  # a malformed record means everything


def means(pattern: str, name: str) -> bool:
    return bool(_matcher(pattern)(name))


def tail_of(text: str) -> Tail | None:
    return Tail.parse(text.encode()) if text else None
