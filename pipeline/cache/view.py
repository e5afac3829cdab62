"""What one process knows of the invalidation log, and the judgement that follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pipeline.cache.entry import AsOf
from pipeline.cache.errors import InvalidPatternError
from pipeline.cache.locks import UninterruptedLock
from pipeline.cache.patterns import glob_expression, parse
from pipeline.cache.tail import Page, Tail

_NO_TAIL: Final = Tail("", 0, 0)


class _Records:
    """The newest seq of each pattern, arranged to ask "which is the newest that means this key?". Only ever grows."""

    __slots__ = ("exact", "globs", "prefixes")

    def __init__(self) -> None:
        self.exact: dict[str, int] = {}
        self.prefixes: dict[str, int] = {}
        self.globs: dict[str, int] = {}

    def note(self, text: str, seq: int) -> bool:
        """Take in a record; whether it was a well-formed one."""
        well_formed = True
        try:
            pattern = parse(text)
        except InvalidPatternError:
            # Nothing of ours writes such a record. Taken for "everything": a miss too many is the safe mistake.
            well_formed = False
            pattern = parse("*")
        place = {"exact": self.exact, "prefix": self.prefixes, "glob": self.globs}[pattern.kind]
        place[pattern.subject] = max(seq, place.get(pattern.subject, 0))
        return well_formed

    def newer_than(self, floor: int) -> _Records:
        kept = _Records()
        kept.exact = {key: seq for key, seq in self.exact.items() if seq > floor}
        kept.prefixes = {key: seq for key, seq in self.prefixes.items() if seq > floor}
        kept.globs = {key: seq for key, seq in self.globs.items() if seq > floor}
        return kept

    def newest(self, key: str) -> int:
        """The seq of the newest record that means `key`; 0 for none."""
        newest = self.exact.get(key, 0)
        if self.prefixes:
            newest = max(newest, self.prefixes.get("", 0))
            at = key.find(":")
            while at >= 0:
                newest = max(newest, self.prefixes.get(key[: at + 1], 0))
                at = key.find(":", at + 1)
        if self.globs:
            # A copy: another thread may add to it while this one walks.
            for text, seq in tuple(self.globs.items()):
                if seq > newest and glob_expression(text).match(key):
                    newest = seq
        return newest


class InvalidationView:
    """The records that this process has seen, and when it was last sure to have seen them all.

    Reads take no lock. `generation` changes whenever an answer of `valid` may have changed: what was judged at one
    generation need not be judged again before the next. It changes *after* the records it stands for are in place, so
    that whoever reads the generation first and judges then has judged by at least that much.
    """

    def __init__(self) -> None:
        self._lock = UninterruptedLock()
        # Swapped as one: judging a new tail by old records, or the reverse, would pass what was invalidated.
        self._state: tuple[Tail, _Records] = (_NO_TAIL, _Records())
        self._seen: bytes | None = None
        self._pending: dict[str, int] = {}
        self.generation = 0
        self.confirmed_at_s = float("-inf")
        """A moment, on the cache's clock, before which nothing was appended that is not known here."""
        self.malformed_count = 0

    @property
    def known(self) -> Tail | None:
        """Where to read on from; None before the first page."""
        return self._state[0] if self._seen is not None else None

    @property
    def pending(self) -> dict[str, int]:
        """The patterns that were invalidated here and could not be appended, each with the generation it began."""
        return self._pending

    def pend(self, patterns: Iterable[str]) -> None:
        """Invalidate in this process only, until `settle`: the log is out of reach."""
        with self._lock:
            generation = self.generation + 1
            self._pending = self._pending | dict.fromkeys(patterns, generation)
            self.generation = generation

    def settle(self, appended: dict[str, int]) -> None:
        """Forget what was pending and has been appended, unless it was invalidated once more since."""
        with self._lock:
            self._pending = {text: at for text, at in self._pending.items() if appended.get(text) != at}

    def as_of(self) -> AsOf:
        """What is known now: to be taken before the first input of a computation is read."""
        generation = self.generation  # first: an older generation with a newer tail only costs a second judgement
        tail = self._state[0]
        return AsOf(tail.epoch, tail.seq, generation)

    def confirm(self, tail_bytes: bytes | None, asked_at_s: float) -> bool:
        """Note that the log, asked at that moment, stood where it is known to stand. False when it stood elsewhere."""
        with self._lock:
            if tail_bytes is None or tail_bytes != self._seen:
                return False
            self.confirmed_at_s = max(self.confirmed_at_s, asked_at_s)
            return True

    def covers(self, tail_bytes: bytes | None) -> bool:
        """Whether all that a log at that tail says is known here. True of no tail: there is nothing to know."""
        tail = Tail.parse(tail_bytes) if tail_bytes else None
        here = self._state[0]
        return tail is None or (tail.epoch == here.epoch and tail.seq <= here.seq)

    def apply(self, page: Page, asked_at_s: float) -> None:
        """Take in what the log said when it was asked at that moment. Pages may arrive late, twice and overlapping."""
        with self._lock:
            tail, records = self._state
            if page.restart:
                late = page.tail.seq < tail.seq if page.tail.epoch == tail.epoch else asked_at_s < self.confirmed_at_s
                if late and self._seen is not None:
                    return  # an older answer than what is known already; of two epochs nobody can tell, see `covers`
                tail, records = page.tail, _Records()
                self.confirmed_at_s = asked_at_s  # not the later of the two: what was known before is void
            elif page.tail.epoch != tail.epoch or page.after > tail.seq:
                return  # it continues a log, or from a place, that this view has not come to or has left meanwhile
            else:
                if page.tail.floor > tail.floor:
                    # Records at or below the floor judge nothing: entries that old fail by the floor itself.
                    records = records.newer_than(page.tail.floor)
                tail = Tail(tail.epoch, max(tail.seq, page.tail.seq), max(tail.floor, page.tail.floor))
                self.confirmed_at_s = max(self.confirmed_at_s, asked_at_s)
            for text, seq in page.records:
                if not records.note(text, seq):
                    self.malformed_count += 1
            if page.restart or page.tail.seq >= tail.seq:
                self._seen = page.seen
            if tail != self._state[0]:
                self._state = (tail, records)
                self.generation += 1

    def valid(self, as_of: AsOf, key: str, deps: tuple[str, ...]) -> bool:
        """Whether nothing that is known invalidates an entry for `key`, computed from `deps` by what `as_of` knew."""
        tail, records = self._state
        if self._pending and self._is_pending(as_of.generation, key, deps):
            return False
        if as_of.seq == tail.seq and as_of.epoch == tail.epoch:
            return True  # nothing is newer: the common case
        if as_of.epoch != tail.epoch or not tail.floor <= as_of.seq <= tail.seq:
            return False
        return records.newest(key) <= as_of.seq and all(records.newest(dep) <= as_of.seq for dep in deps)

    def _is_pending(self, generation: int, key: str, deps: tuple[str, ...]) -> bool:
        return any(since > generation and any(map(parse(text).matcher(), (key, *deps))) for text, since in self._pending.items())
