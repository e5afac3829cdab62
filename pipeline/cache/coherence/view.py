"""One process's knowledge of the invalidation log, and the judgement that follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from pipeline.cache.coherence.records import Records
from pipeline.cache.coherence.tail import MAX_RECORDS, Page, Tail
from pipeline.cache.entry import AsOf
from pipeline.cache.locks import UninterruptedLock


class _Known(NamedTuple):
    """All that judges, of one moment. The records may be ahead of it: that only refuses more."""

    tail: Tail
    mark: bytes | None
    """The beginning of the log's tail while it stands there; None before the log was read."""
    records: Records
    pending: Records | None
    """The invalidations that the log lacks, by the generation since when; None if there are none."""
    generation: int
    answered_at_s: float
    """A moment after the log had given this tail's epoch: what is asked for later is of no former log."""


class InvalidationView:
    """The records that this process has seen, and when it was last sure to have seen them all.

    Reads take no lock. The state that judges is published in one step. Then comes `generation`, which changes whenever an answer
    of `valid` may have changed: an entry judged at one generation need not be judged again before the next, and a reader that
    reads the generation first and then judges has judged by at least that much. Last comes `confirmed_at_s`: a reader that reads
    it first finds all that it vouches for. A writer that is broken off in between (a time limit may raise anywhere) has confirmed
    nothing, and the next one publishes the generation for it.
    """

    def __init__(self) -> None:
        self._lock = UninterruptedLock()
        self._state = _Known(Tail("", 0, 0), None, Records(), None, 0, float("-inf"))
        self._own: dict[str, int] = {}
        self._heard: dict[str, int] = {}
        self._heard_count = 0
        self.generation = 0
        self.confirmed_at_s = float("-inf")
        """A moment, on the cache's clock: everything appended before it is known here."""
        self.malformed_count = 0

    # -- judging

    def valid(self, as_of: AsOf, key: str, deps: tuple[str, ...]) -> bool:
        """Whether no known record invalidates an entry for `key`, computed from `deps` by the knowledge of `as_of`."""
        known = self._state
        if known.pending is not None and known.pending.mean_any(key, deps, as_of.generation):
            return False
        tail = known.tail
        if as_of.seq == tail.seq and as_of.epoch == tail.epoch:
            return True  # nothing is newer: the common case
        if as_of.epoch != tail.epoch or not tail.floor <= as_of.seq <= tail.seq:
            return False
        return not known.records.mean_any(key, deps, as_of.seq)

    def as_of(self) -> AsOf:
        """The known position: to be taken before the first input of a computation is read."""
        known = self._state
        if known.generation != self.generation:
            # It is being published, or its writer was broken off. L1 does not judge by it yet: an input that it speaks against
            # could still be served, and what is computed from that would count as newer.
            if self._lock.held():
                return AsOf("", 0)  # a signal handler, in the middle of its own thread's publication: it keeps nothing
            with self._lock:
                self._finish()
                known = self._state
        return AsOf(known.tail.epoch, known.tail.seq, known.generation)

    @property
    def generation_of_reads(self) -> int:
        """The generation to judge by for reads from L2 from now on. An entry in L2 may be from before a pending invalidation,
        which cannot be told, so that every entry counts as older: by 0, as the first that may be pending is of 1. Not by less:
        `Records` has 0 for what nothing means, and would refuse every entry."""
        known = self._state
        return known.generation if known.pending is None else 0

    @property
    def known(self) -> Tail | None:
        """The position to read on from; None before the log was read."""
        known = self._state
        return known.tail if known.mark is not None else None

    @property
    def tail(self) -> Tail:
        """Everything from its floor up to its seq is known. At first it covers nothing."""
        return self._state.tail

    def covers(self, tail_bytes: bytes | None) -> bool:
        """Whether everything up to that tail is known here. True without a tail: there is nothing to know."""
        tail = Tail.parse(tail_bytes) if tail_bytes else None
        here = self._state.tail
        return tail is None or (tail.epoch == here.epoch and tail.seq <= here.seq)

    # -- learning

    def confirm(self, tail_bytes: bytes | None, asked_at_s: float) -> bool:
        """Note that the log, asked at that moment, stood at the known position. False when it stood elsewhere."""
        with self._lock:
            self._finish()
            mark = self._state.mark
            if tail_bytes is None or mark is None or not tail_bytes.startswith(mark):
                return False
            self.confirmed_at_s = max(self.confirmed_at_s, asked_at_s)
            return True

    def apply(self, page: Page, asked_at_s: float, answered_at_s: float = float("-inf")) -> bool:
        """Take in a page of the log, which was asked for at the one moment, and was there at the other. Returns whether all of it
        is known now, and no page that was asked for before can take the view to another log. Pages may arrive late, twice and
        overlapping. A view never goes back, neither in its log nor to a former one."""
        with self._lock:
            self._finish()
            tail, mark, records, _, _, known_at_s = self._state
            if page.restart:
                same_log = page.tail.epoch == tail.epoch
                if self._is_late(page.tail, asked_at_s):
                    # One of the same log confirms: else a page that was asked for before could take the view to another log yet.
                    if same_log:
                        self.confirmed_at_s = max(self.confirmed_at_s, asked_at_s)
                    return same_log
                tail, records, known_at_s = page.tail, Records(), max(asked_at_s, answered_at_s)
            elif page.tail.epoch != tail.epoch or page.after > tail.seq:
                return False  # it continues another log, or begins where this view has not come to or has left meanwhile
            else:
                tail = Tail(tail.epoch, max(tail.seq, page.tail.seq), max(tail.floor, page.tail.floor))
            self.malformed_count += sum(not records.note(text, seq) for text, seq in page.records)
            floor = max(tail.floor, records.globs.excess())
            if floor > (page.tail.floor if page.restart else self._state.tail.floor):
                # Records at or below the floor judge nothing: entries that old fail by the floor itself. A copy, because readers
                # that judge by the floor before still need them.
                tail, records = tail._replace(floor=floor), records.newer_than(floor)
            if page.restart or mark is not None:
                mark = tail.mark
            if (tail, mark) != self._state[:2]:
                self._publish(self._state._replace(tail=tail, mark=mark, records=records, answered_at_s=known_at_s))
            self.confirmed_at_s = max(self.confirmed_at_s, asked_at_s)
            return True

    def begin_at(self, tail: Tail, asked_at_s: float, answered_at_s: float) -> None:
        """Note that the log stood there between these moments, without having read it: every older entry is void until it is
        read. Later records can be applied."""
        with self._lock:
            self._finish()
            known = self._state
            if known.mark is None and not self._is_late(tail, asked_at_s):
                records, known_at_s = Records(), max(asked_at_s, answered_at_s)
                self._publish(known._replace(tail=tail._replace(floor=tail.seq), records=records, answered_at_s=known_at_s))

    def _is_late(self, theirs: Tail, asked_at_s: float) -> bool:
        """Whether the view may know more than an answer to that question. Of two logs the later one is that which was asked for
        after the other one had answered; else neither is known to be later."""
        known = self._state
        if theirs.epoch == known.tail.epoch:
            return theirs.seq < known.tail.seq
        return asked_at_s < max(known.answered_at_s, self.confirmed_at_s)

    # -- pending

    @property
    def pending(self) -> dict[str, int]:
        """The patterns that were invalidated here and could not be appended, each with the generation it began."""
        return self.pending_first(MAX_RECORDS)

    def pending_first(self, count: int) -> dict[str, int]:
        """As `pending`, the oldest `count` at most."""
        if not self._own:
            return {}
        with self._lock:
            return dict(islice(self._own.items(), count))

    def pend(self, patterns: Iterable[str]) -> None:
        """Invalidate in this process only, until `settle`: the log is out of reach, and this process is to append them."""
        self._pend(patterns, self._own)

    def hear(self, patterns: Iterable[str], count: int) -> None:
        """As `pend`, until `settle_heard`: another process is to append them. `count`: how many were heard with these so far."""
        with self._lock:
            # First: broken off after it, the patterns may be forgotten later than they could be, never sooner.
            self._heard_count = max(self._heard_count, count)
        self._pend(patterns, self._heard)

    def settle(self, appended: dict[str, int]) -> None:
        """Forget pending patterns that have been appended, unless they were invalidated once more since."""
        with self._lock:
            self._finish()
            for text in tuple(text for text, at in appended.items() if self._own.get(text) == at):
                del self._own[text]
            self._settle()

    def settle_heard(self, count: int) -> None:
        """Forget the heard patterns if no more than so many were heard: the log has these, and they are known from there. Another
        thread may have heard of more since the caller looked."""
        with self._lock:
            self._finish()
            if count >= self._heard_count:
                self._heard.clear()
                self._settle()

    def _pend(self, patterns: Iterable[str], table: dict[str, int]) -> None:
        with self._lock:
            self._finish()
            known = self._state
            generation = known.generation + 1
            records = Records() if known.pending is None else known.pending
            for text in patterns:
                table[text] = generation
                records.note(text, generation)
            if len(table) > MAX_RECORDS or records.globs.excess():
                table.clear()
                table["*"] = generation
                records.note("*", generation)
            self._publish(known._replace(pending=records))

    def _settle(self) -> None:
        if not self._own and not self._heard:  # until then the records refuse more than they must
            self._state = self._state._replace(pending=None)

    # -- publishing; under the lock

    def _publish(self, known: _Known) -> None:
        self._state = known._replace(generation=self._state.generation + 1)
        self.generation = self._state.generation

    def _finish(self) -> None:
        """Complete what a writer that was broken off has left undone."""
        self.generation = self._state.generation
