"""The node's copy of the invalidation log's recent end, in memory that its main process shares with its pool children.

A broadcast reaches a node's main process only. Every child sees what that process writes here at its next read: no message, no
thread, no system call. The memory is anonymous and made before the fork; the main process is the only writer.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from pipeline.cache.coherence.tail import Page, Tail, page_of
from pipeline.cache.locks import UninterruptedLock
from pipeline.cache.patterns.pattern import MAX_PATTERN_BYTES

# Header, in words of 8 bytes. VERSION is odd while the writer is at work, and takes another value after each write: a reader that
# sees the same even number before and after has read one moment's state (a sequence lock).
VERSION, _SEQ, _FLOOR, _BASE, _RECORDS, VOLATILE, SETTLED, CONFIRMED, ASKED, _EPOCH = range(10)
_HEADER_BYTES: Final = 128  # the epoch takes two words; the rest is room
_EPOCH_BYTES: Final = 16

_RECORD: Final = struct.Struct("<qH")
_SLOT_BYTES: Final = MAX_PATTERN_BYTES + 16  # a pattern with its seq and length
_VOLATILE_SLOTS: Final = 64
_TRIES: Final = 3
_BROKEN_OFF: Final = b"?"
"""An epoch that no log has: the bus holds nothing that a reader may rely on, and had something."""


class BusState(NamedTuple):
    """The state of the bus at one moment. `page` brings a view that stood at a given tail up to the bus, or is None when the
    bus cannot: it is of another epoch, or no longer holds all that the view lacks."""

    version: int
    confirmed_at_s: float
    page: Page | None
    empty: bool
    volatile: list[str]
    volatile_count: int
    settled_count: int


class NodeBus:
    """One writer, any number of readers. Never blocks; a reader that cannot be served learns so and asks Redis instead.

    One word goes the other way: `seconds[ASKED]` is about when a reader last needed the lease, and readers write it. It decides
    how often the writer looks at the log, and nothing about what may be served; so the last one to write it wins.

    `words[VERSION]` is another number after each change: while it equals that of an earlier `read`, nothing is new.
    `seconds[CONFIRMED]` is a moment, by time.monotonic: every record that was appended to the log before it is on the bus.
    `words[VOLATILE]` counts the volatile patterns, `words[SETTLED]` those of them that are in the log, and known here from there.
    """

    def __init__(self, slots: int = 1024) -> None:
        self._slots = slots
        size = _HEADER_BYTES + (slots + _VOLATILE_SLOTS) * _SLOT_BYTES
        self._memory = mmap.mmap(-1, size)  # shared with children that are forked later
        self.words = memoryview(self._memory)[: 8 * _EPOCH].cast("q")
        self.seconds = memoryview(self._memory)[: 8 * _EPOCH].cast("d")
        self.seconds[CONFIRMED] = self.seconds[ASKED] = float("-inf")
        self._write_lock = UninterruptedLock()  # in a pool of threads the timer and the consumer are two threads

    # -- reading

    def read(self, known: Tail | None, volatile_seen: int) -> BusState | None:
        """The records that a view at `known` lacks, and the volatile patterns after the first `volatile_seen`. None while the
        writer is at work."""
        for _ in range(_TRIES):
            before = self.words[VERSION]
            if before % 2:
                continue
            state = self._read(before, known, volatile_seen)
            if self.words[VERSION] == before:
                return state
        return None

    def _read(self, version: int, known: Tail | None, volatile_seen: int) -> BusState:
        confirmed_at_s = self.seconds[CONFIRMED]
        epoch = bytes(self._memory[8 * _EPOCH : 8 * _EPOCH + _EPOCH_BYTES]).rstrip(b"\0").decode("ascii", "replace")
        tail = Tail(epoch, self.words[_SEQ], self.words[_FLOOR])
        page = None
        if epoch and known is not None and known.epoch == epoch and known.seq >= self.words[_BASE]:
            page = page_of(tail, self._records_after(known.seq), after=known.seq, restart=False)
        volatile_count = self.words[VOLATILE]
        missed = volatile_count - volatile_seen
        if missed > _VOLATILE_SLOTS:
            volatile = ["*"]
        else:
            first = self._slots
            volatile = [self._slot(first + number % _VOLATILE_SLOTS)[0] for number in range(volatile_seen, volatile_count)]
        return BusState(version, confirmed_at_s, page, not epoch, volatile, volatile_count, self.words[SETTLED])

    def _records_after(self, seq: int) -> list[tuple[str, int]]:
        """By rising seqs. The writer appends in that order, so that the walk from the end stops at the first known record."""
        found = []
        count = self.words[_RECORDS]
        for number in range(count - 1, max(-1, count - 1 - self._slots), -1):
            record = self._slot(number % self._slots)
            if record[1] <= seq:
                break
            found.append(record)
        return found[::-1]

    def _slot(self, index: int) -> tuple[str, int]:
        at = _HEADER_BYTES + index * _SLOT_BYTES
        seq, length = _RECORD.unpack_from(self._memory, at)
        at += _RECORD.size
        return bytes(self._memory[at : at + min(length, _SLOT_BYTES - _RECORD.size)]).decode("utf-8", "replace"), seq

    # -- writing: the node's main process only

    @property
    def tail(self) -> Tail | None:
        """The bus's position; None before the first page. For the writer."""
        epoch = bytes(self._memory[8 * _EPOCH : 8 * _EPOCH + _EPOCH_BYTES]).rstrip(b"\0").decode("ascii", "replace")
        return Tail(epoch, self.words[_SEQ], self.words[_FLOOR]) if epoch else None

    def publish(self, page: Page, asked_at_s: float = float("-inf")) -> None:
        """Put a page of the log on the bus. `asked_at_s`: when the log was asked for it, if it was; a page that came by
        broadcast confirms nothing. A page that continues another epoch is ignored."""
        with self._write_lock:
            tail = self.tail
            if page.restart:
                if tail is None or not self._is_late(page.tail, tail, asked_at_s):
                    with self._writing():
                        self._restart(page.tail)
                        self.seconds[CONFIRMED] = asked_at_s
                return
            if tail is None or page.tail.epoch != tail.epoch or page.after > tail.seq:
                return
            fresh = sorted((record for record in page.records if record[1] > tail.seq), key=lambda record: record[1])
            moves = page.tail.seq > tail.seq or page.tail.floor > tail.floor
            if not fresh and not moves and asked_at_s <= self.seconds[CONFIRMED]:
                return
            with self._writing():
                for text, seq in fresh:
                    self._append(text, seq)
                self.words[_SEQ] = max(tail.seq, page.tail.seq)
                self.words[_FLOOR] = max(tail.floor, page.tail.floor)
                # Last: a writer that is broken off before has vouched for nothing.
                self.seconds[CONFIRMED] = max(self.seconds[CONFIRMED], asked_at_s)

    def publish_volatile(self, patterns: Iterable[str]) -> int:
        """Add patterns that were invalidated while the log was out of reach: they have no seq. Returns their count so far."""
        with self._write_lock:
            with self._writing():
                for text in patterns:
                    count = self.words[VOLATILE]
                    self._write(self._slots + count % _VOLATILE_SLOTS, text, 0)
                    self.words[VOLATILE] = count + 1
            return self.words[VOLATILE]

    def settle_volatile(self, count: int) -> None:
        """Note that the first `count` volatile patterns were appended: a reader that begins from now on need not know them."""
        with self._write_lock, self._writing():
            self.words[SETTLED] = max(self.words[SETTLED], count)

    def _is_late(self, theirs: Tail, ours: Tail, asked_at_s: float) -> bool:
        """Whether another thread has brought the bus further than this restart would."""
        return theirs.seq < ours.seq if theirs.epoch == ours.epoch else asked_at_s < self.seconds[CONFIRMED]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Mark the state as changing. When the writer is interrupted, the version moves on all the same, and the bus is of no
        log's epoch: readers ask Redis until the next page begins it anew. One that was empty stays empty, as it had no news."""
        began, epoch = self.words[VERSION] | 1, 8 * _EPOCH
        first = _BROKEN_OFF if self._memory[epoch] else b""
        self.words[VERSION] = began
        try:
            yield
        except BaseException:
            self.seconds[CONFIRMED] = float("-inf")
            self._memory[epoch : epoch + _EPOCH_BYTES] = first.ljust(_EPOCH_BYTES, b"\0")
            raise
        finally:
            self.words[VERSION] = began + 1

    def _restart(self, tail: Tail) -> None:
        """Another epoch, or a gap: no earlier record is here."""
        self.seconds[CONFIRMED] = float("-inf")
        self._memory[8 * _EPOCH : 8 * _EPOCH + _EPOCH_BYTES] = tail.epoch.encode()[:_EPOCH_BYTES].ljust(_EPOCH_BYTES, b"\0")
        self.words[_SEQ] = self.words[_BASE] = tail.seq
        self.words[_FLOOR] = tail.floor
        self.words[_RECORDS] = 0

    def _append(self, text: str, seq: int) -> None:
        count = self.words[_RECORDS]
        index = count % self._slots
        if count >= self._slots:
            # From the overwritten record on, the bus is no longer whole.
            self.words[_BASE] = self._slot(index)[1]
        self._write(index, text, seq)
        self.words[_RECORDS] = count + 1

    def _write(self, index: int, text: str, seq: int) -> None:
        at = _HEADER_BYTES + index * _SLOT_BYTES
        payload = text.encode()
        if len(payload) > _SLOT_BYTES - _RECORD.size:
            payload = b"*"  # a pattern that was cut would mean other keys
        _RECORD.pack_into(self._memory, at, seq, len(payload))
        at += _RECORD.size
        self._memory[at : at + len(payload)] = payload
