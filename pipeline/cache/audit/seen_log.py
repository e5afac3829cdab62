"""One epoch's log as the auditor has seen it: which pattern was appended when."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from pipeline.cache.audit.sampler import Sample
from pipeline.cache.errors import InvalidPatternError
from pipeline.cache.patterns.pattern import parse

MOST_PATTERNS: Final = 20_000
MOST_GLOBS: Final = 200
"""Of more the oldest are forgotten: entries that are older than them cannot be judged any more."""
REMEMBERED: Final = 8
"""So many appends of one pattern."""

Moment = tuple[float, float, int]
"""When something was by the server's clock, at the earliest and at the latest, and the run of looks by which that is known."""


class Appended(NamedTuple):
    """An append, or the end of an epoch: between `since_s` and `by_s` of the server's clock, if `run` is that of a read; and in
    any case after `after_s` and before `seen_s` of this process's."""

    seq: int
    since_s: float
    by_s: float
    after_s: float
    seen_s: float
    run: int

    def is_after(self, at_s: float, at_server: Moment | None) -> bool:
        """Whether it was certainly appended after that moment, by this process's clock or by the server's."""
        return self.after_s > at_s or (at_server is not None and at_server[2] == self.run and self.since_s > at_server[1])


class SeenLog:
    """For one thread at a time."""

    def __init__(self, epoch: str, whole: int) -> None:
        self.epoch = epoch
        """Empty where no log stood."""
        self.seq = whole
        """Up to which all records are known."""
        self.whole_from = whole
        """All records after this seq are known, up to `seq`. Older ones may be."""
        self._exact: dict[str, list[Appended]] = {}
        self._prefixes: dict[str, list[Appended]] = {}
        self._globs: dict[str, tuple[Callable[[str], bool], list[Appended]]] = {}

    def first_after(self, sample: Sample, made: Moment | None) -> Iterator[Appended]:
        """The appends that mean the sample's key or a dep, and came after its `as_of`, or certainly after its computation began,
        which was at `made`, if that is known: of each pattern the first known."""
        for key in (sample.key, *sample.deps):
            for appends in self._meaning(key):
                at = bisect_left(appends, (sample.seq + 1,))
                while at and appends[at - 1].is_after(sample.made_s, made):
                    at -= 1
                if at < len(appends):
                    yield appends[at]

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

    def note(self, pattern: str, appended: Appended) -> None:
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

    def forget_oldest(self) -> None:
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


def _appends(kept: list[Appended] | tuple[Callable[[str], bool], list[Appended]]) -> list[Appended]:
    return kept[1] if isinstance(kept, tuple) else kept
