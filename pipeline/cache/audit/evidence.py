"""The auditor's own record of the log: which pattern was appended when, as far as Redis's clock and this process's tell."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final, NamedTuple

from pipeline.cache.audit.sampler import Sample
from pipeline.cache.errors import InvalidPatternError
from pipeline.cache.keys import KeySpace
from pipeline.cache.patterns.pattern import parse
from pipeline.cache.server.commands import Word, integer, scored, several, text
from pipeline.cache.server.connection import RedisConnection
from pipeline.cache.server.scripts import Script

RECORDS_A_LOOK: Final = 2_000
MOST_PATTERNS: Final = 20_000
MOST_GLOBS: Final = 200
"""Of more the oldest are forgotten: entries that are older than them cannot be judged any more."""
REMEMBERED: Final = 8
"""So many appends of one pattern."""
LOOKS: Final = 64
EPOCHS: Final = 64
STEADY_S: Final = 60.0
"""Two looks that are further apart say nothing of the clocks between them."""
DRIFT: Final = 0.001
"""By how much two clocks may go apart, in seconds a second: ten times what a clock may that is steered by NTP."""

_SPAN: Final = re.compile(rb"([^:]+):(\d{1,15}):(\d{1,15})")
_TAIL: Final = re.compile(rb"([^:]+):(\d+):\d+")


class Look(NamedTuple):
    """One look at the log: sent and answered by this process's clock, and when it was by the server's. `ahead_s`: the server's
    clock less this process's, the least and the most that it can be. `run`: looks of one run were at one server, whose clock went
    evenly with this process's. `epoch` is empty where no log stood."""

    sent_s: float
    seen_s: float
    server_s: float
    ahead_s: tuple[float, float]
    run: int
    epoch: str
    seq: int


class Appended(NamedTuple):
    """An append, or the end of an epoch: between `since_s` and `by_s` of the server's clock, if `run` is that of a read; and in
    any case after `after_s` and before `seen_s` of this process's."""

    seq: int
    since_s: float
    by_s: float
    after_s: float
    seen_s: float
    run: int


class _Answer(NamedTuple):
    server_s: float
    epoch: str
    seq: int
    whole: int
    records: list[tuple[str, int]]
    moments: list[tuple[int, int, float]]


class Evidence:
    """What one process has seen of the log, look by look. For one thread at a time."""

    def __init__(self, keys: KeySpace, clock: Callable[[], float]) -> None:
        self._keys = [keys.tail, keys.records, keys.moments]
        self._clock = clock
        self._looks: deque[Look] = deque(maxlen=LOOKS)
        self._run = 0
        self._run_began_s = 0.0
        self._ended: dict[str, Appended] = {}
        self.epoch = ""
        """The log's, at the last look; empty where none stood."""
        self._begin("", 0)

    def _begin(self, epoch: str, whole: int) -> None:
        self.epoch = epoch
        self.seq = whole
        """Up to which all records are known."""
        self.whole_from = whole
        """All records after this seq are known, up to `seq`. Older ones may be."""
        self._exact: dict[str, list[Appended]] = {}
        self._prefixes: dict[str, list[Appended]] = {}
        self._globs: dict[str, tuple[Callable[[str], bool], list[Appended]]] = {}

    # -- what it says

    def ended(self, epoch: str) -> Appended | None:
        """The end of an epoch that was the log's once, seen from here."""
        return self._ended.get(epoch)

    def first_after(self, sample: Sample) -> Iterator[Appended]:
        """The appends that mean the sample's key or a dep, and came after its `as_of`, or certainly after its computation began:
        of each pattern the first known."""
        made = self.server_s(sample.made_s) if math.isfinite(sample.made_s) else None
        for key in (sample.key, *sample.deps):
            for appends in self._meaning(key):
                at = bisect_left(appends, (sample.seq + 1,))
                while at and _is_after(appends[at - 1], sample.made_s, made):
                    at -= 1
                if at < len(appends):
                    yield appends[at]

    def server_s(self, at_s: float) -> tuple[float, float, int] | None:
        """When it was by the server's clock, at the earliest and the latest, and the run; None if no two looks of one run are
        around that moment."""
        after = None
        for look in reversed(self._looks):
            if look.sent_s >= at_s:
                after = look
            elif after is None or after.run != look.run:
                return None
            else:
                return (
                    at_s + min(look.ahead_s[0], after.ahead_s[0]),
                    at_s + max(look.ahead_s[1], after.ahead_s[1]),
                    look.run,
                )
        return None

    def _meaning(self, key: str) -> Iterator[list[Appended]]:
        if (appends := self._exact.get(key)) is not None:
            yield appends
        if (appends := self._prefixes.get("")) is not None:
            yield appends
        at = key.find(":")
        while at >= 0:
            if (appends := self._prefixes.get(key[: at + 1])) is not None:
                yield appends
            at = key.find(":", at + 1)
        for matches, appends in self._globs.values():
            if matches(key):
                yield appends

    # -- looking

    def look(self, connection: RedisConnection) -> None:
        """Read the log from where this evidence ends. Raises SharedTierUnavailableError."""
        while True:
            sent_s = self._clock()
            answer = self._ask(connection)
            self._take_in(answer, sent_s, self._clock())
            if len(answer.records) < RECORDS_A_LOOK:
                return

    def _ask(self, connection: RedisConnection) -> _Answer:
        from_us = int((self._looks[-1].server_s - 1) * 1e6) if self._looks else 0
        arguments: list[Word] = [self.epoch, self.seq, RECORDS_A_LOOK, from_us]
        return connection.call(lambda client: script().run(client, self._keys, arguments, _answered))

    def _take_in(self, answer: _Answer, sent_s: float, seen_s: float) -> None:
        before = self._looks[-1] if self._looks else None
        ahead_s = (answer.server_s - seen_s, answer.server_s - sent_s)
        if before is None or answer.epoch != before.epoch or not _is_steady(before, ahead_s, seen_s):
            self._run += 1
            self._run_began_s = answer.server_s
        look = Look(sent_s, seen_s, answer.server_s, ahead_s, self._run, answer.epoch, answer.seq)
        self._looks.append(look)
        if answer.epoch != self.epoch:
            self._change_epoch(before, look, answer)
        if not answer.epoch:
            return
        if answer.whole > self.seq:
            self.whole_from = answer.whole  # what was between is gone, or was given up, and may have been missed
        for pattern, seq in answer.records:
            self._note(pattern, self._appended(seq, answer.moments, look))
        # A portion that is not the last ends before the tail.
        self.seq = answer.records[-1][1] if len(answer.records) >= RECORDS_A_LOOK else max(answer.seq, self.seq)
        self._forget_oldest()

    def _change_epoch(self, before: Look | None, look: Look, answer: _Answer) -> None:
        if self.epoch and before is not None:
            self._ended[self.epoch] = Appended(0, before.server_s, look.server_s, before.sent_s, look.seen_s, -1)
        if look.epoch in self._ended:
            self._ended.clear()  # one that was over is there again: two servers take turns at this address, and none is the later
        while len(self._ended) > EPOCHS:
            del self._ended[next(iter(self._ended))]
        first = answer.records[0][1] - 1 if len(answer.records) >= RECORDS_A_LOOK else 0
        self._begin(look.epoch, max(answer.whole, first))

    def _appended(self, seq: int, moments: list[tuple[int, int, float]], look: Look) -> Appended:
        since_s, after_s = float("-inf"), float("-inf")
        by_s, seen_s = look.server_s, look.seen_s
        for earlier in reversed(self._looks):
            if earlier.epoch != look.epoch:
                break
            if earlier.seq < seq:
                since_s, after_s = earlier.server_s, earlier.sent_s
                break
            by_s, seen_s = earlier.server_s, earlier.seen_s
        # The first moment at which the log stood there or beyond; exact, if it was that append that brought it there.
        at = bisect_left(moments, seq, key=lambda moment: moment[1])
        if at < len(moments):
            least, _, moment_s = moments[at]
            by_s = min(by_s, moment_s)
            if least < seq:
                since_s = max(since_s, moment_s)
        return Appended(seq, min(since_s, by_s), by_s, after_s, seen_s, look.run if since_s >= self._run_began_s else -1)

    def _note(self, pattern: str, appended: Appended) -> None:
        try:
            parsed = parse(pattern)
        except InvalidPatternError:
            return  # a foreign program's; what a cache makes of it is its own affair
        if parsed.kind == "glob":
            appends = self._globs.setdefault(pattern, (parsed.matcher(), []))[1]
        else:
            appends = (self._exact if parsed.kind == "exact" else self._prefixes).setdefault(parsed.subject, [])
        if not appends or appends[-1].seq < appended.seq:
            appends.append(appended)
            del appends[:-REMEMBERED]

    def _forget_oldest(self) -> None:
        tables: list[tuple[dict[str, Any], int]] = [
            (self._exact, MOST_PATTERNS),
            (self._prefixes, MOST_PATTERNS),
            (self._globs, MOST_GLOBS),
        ]
        for table, most in tables:
            if len(table) > most:
                newest = {pattern: _appends(kept)[-1].seq for pattern, kept in table.items()}
                oldest = sorted(newest, key=newest.__getitem__)[: len(table) - most * 9 // 10]
                self.whole_from = max(self.whole_from, newest[oldest[-1]])
                for pattern in oldest:
                    del table[pattern]


def _is_after(appended: Appended, made_s: float, made: tuple[float, float, int] | None) -> bool:
    """Whether it was certainly appended after that moment, by this process's clock or by the server's."""
    return appended.after_s > made_s or (made is not None and made[2] == appended.run and appended.since_s > made[1])


def _appends(kept: list[Appended] | tuple[Callable[[str], bool], list[Appended]]) -> list[Appended]:
    return kept[1] if isinstance(kept, tuple) else kept


def _is_steady(before: Look, ahead_s: tuple[float, float], seen_s: float) -> bool:
    """Whether the two clocks have gone evenly since that look, as far as can be told."""
    elapsed_s = seen_s - before.sent_s
    apart_s = max(ahead_s[0] - before.ahead_s[1], before.ahead_s[0] - ahead_s[1])
    return elapsed_s <= STEADY_S and apart_s <= 0.001 + DRIFT * elapsed_s


@cache
def script() -> Script:
    """Read from its file at the first call: not first in a thread."""
    return Script.read(__file__, "audit")


def _answered(reply: Any) -> _Answer:
    """The reply of audit.lua, checked."""
    seconds, microseconds, tail, history, whole, records, moments = several(7)(reply)
    server_s = _number(seconds) + _number(microseconds) / 1e6
    match = _TAIL.fullmatch(text(tail) or b"")
    name = text(history) or b""
    epoch, seq = "", 0
    if match and match[1].startswith(name):  # else a log of another history, which is over
        epoch, seq = match[1].decode(errors="replace"), int(match[2])
    pairs = [(pattern.decode(errors="replace"), int(at)) for pattern, at in scored(records) if pattern and math.isfinite(at)]
    pairs.sort(key=lambda pair: pair[1])
    told = [(int(span[2]), int(span[3]), at / 1e6) for span, at in _spans(moments) if span[1].decode(errors="replace") == epoch]
    told.sort(key=lambda moment: moment[1])
    return _Answer(server_s, epoch, seq, integer(whole), pairs if epoch else [], told)


def _spans(moments: Any) -> Iterator[tuple[re.Match[bytes], float]]:
    """Which log an append took from where to where, and when; what a foreign program has written there is none."""
    for member, at in scored(moments):
        span = _SPAN.fullmatch(member)
        if span and math.isfinite(at):
            yield span, at


def _number(raw: Any) -> int:
    return int(text(raw) or b"")
