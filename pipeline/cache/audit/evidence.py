"""The auditor's looks at the log, and what they tell of Redis's clock and this process's."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final, NamedTuple

from pipeline.cache.audit.seen_log import Appended, Moment, SeenLog
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.commands import Word, integer, scored, several, text
from pipeline.cache.server.connection import RedisConnection
from pipeline.cache.server.scripts import Script

RECORDS_A_LOOK: Final = 2_000
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
    clock less this process's, the least and the most that it can be. `run`: between the looks of one run the server's clock, or
    its successor's, went evenly with this process's. `epoch` is empty where no log stood."""

    sent_s: float
    seen_s: float
    server_s: float
    ahead_s: tuple[float, float]
    run: int
    epoch: str
    seq: int


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
        self.log = SeenLog("", 0)
        """The log as of the last look."""
        self.former = self.log
        """The one before it."""

    # -- what it says

    def ended(self, epoch: str) -> Appended | None:
        """The end of an epoch that was the log's once, seen from here."""
        return self._ended.get(epoch)

    def server_s(self, at_s: float) -> Moment | None:
        """None if no two looks of one run are around that moment."""
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
        arguments: list[Word] = [self.log.epoch, self.log.seq, RECORDS_A_LOOK, from_us]
        return connection.call(lambda client: script().run(client, self._keys, arguments, _answered))

    def _take_in(self, answer: _Answer, sent_s: float, seen_s: float) -> None:
        before = self._looks[-1] if self._looks else None
        ahead_s = (answer.server_s - seen_s, answer.server_s - sent_s)
        if before is None or not _is_steady(before, ahead_s, seen_s):
            self._run += 1
            self._run_began_s = answer.server_s
        look = Look(sent_s, seen_s, answer.server_s, ahead_s, self._run, answer.epoch, answer.seq)
        self._looks.append(look)
        if answer.epoch != self.log.epoch:
            self._change_epoch(before, look, answer)
        if not answer.epoch:
            return
        log = self.log
        if answer.whole > log.seq:
            log.whole_from = answer.whole  # what was between is gone, or was given up, and may have been missed
        for pattern, seq in answer.records:
            log.note(pattern, self._appended(seq, answer.moments, look))
        # A portion that is not the last ends before the tail.
        log.seq = answer.records[-1][1] if len(answer.records) >= RECORDS_A_LOOK else max(answer.seq, log.seq)
        log.forget_oldest()

    def _change_epoch(self, before: Look | None, look: Look, answer: _Answer) -> None:
        if self.log.epoch and before is not None:
            self._ended[self.log.epoch] = Appended(0, before.server_s, look.server_s, before.sent_s, look.seen_s, -1)
            self.former = self.log
        if look.epoch in self._ended:
            self._ended.clear()  # one that was over is there again: two servers take turns at this address, and none is the later
        while len(self._ended) > EPOCHS:
            del self._ended[next(iter(self._ended))]
        first = answer.records[0][1] - 1 if len(answer.records) >= RECORDS_A_LOOK else 0
        self.log = SeenLog(look.epoch, max(answer.whole, first))

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
