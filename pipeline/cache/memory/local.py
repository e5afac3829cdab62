"""L1: the entries of one process, in memory."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from pipeline.cache.encoding.codec import ANY, Codec, codec_for
from pipeline.cache.entry import MISS, AsOf
from pipeline.cache.keys import check_key, check_text
from pipeline.cache.locks import Lock
from pipeline.cache.memory.eviction import Eviction, Resident
from pipeline.cache.patterns.pattern import parse
from pipeline.cache.seconds import Duration, positive_seconds
from pipeline.cache.stats import Count, percent

COPY: Final = object()
SLOT_BYTES: Final = 700
"""What a slot takes beside its value: itself, its key and its place among the others."""
DEP_BYTES: Final = 60
OBJECT_TO_JSON: Final = 8
"""So many bytes an object may take for each of its JSON's: a list of small numbers does. Texts are measured."""
LARGEST_SHARE: Final = 1 / 8
"""A slot that would take a larger share of the room in bytes is not kept: it would push out what many callers ask for."""
_UNJUDGED: Final = AsOf("", 0)
"""For entries kept here without a log."""


class Slot(Resident):
    """One entry as a process keeps it. Only `generation` changes: the last at which it was found valid.

    `shared` is the value if it is immutable to its leaves: the same object goes to every caller that asks for its `type`. Any
    other value is decoded anew for each caller, so that no change a caller makes reaches the next one (at a third of the cost of
    copy.deepcopy); `shared` is then `COPY`. `payload` is kept for that, and for callers that ask for another type where the value
    does not say all that the payload does; else it is empty: see `Codec.beside`.
    """

    __slots__ = ("_codec", "_json_bytes", "_payload", "as_of", "deps", "generation", "made_s", "shared", "size_bytes", "type")

    def __init__(
        self,
        codec: Codec[Any],
        payload: bytes,
        value: object,
        expires_at: float,
        as_of: AsOf,
        deps: tuple[str, ...],
        json_bytes: int = 0,
        made_s: float = math.inf,
    ) -> None:
        """`json_bytes`: the size of the value's JSON, also where no payload is kept. `made_s`: when its computation began, by the
        cache's clock, if it was here; for the auditor."""
        super().__init__(expires_at)
        self.type = codec.type
        self.shared = value if codec.shareable(value) else COPY
        self._codec = codec
        self._payload = payload
        self.as_of = as_of
        self.generation = as_of.generation
        self.deps = deps
        self.made_s = made_s
        self.size_bytes = 0
        self._json_bytes = json_bytes

    def measured_bytes(self) -> int:
        """About how much memory the slot takes: what is kept of its value, its key and deps, and what every slot takes."""
        value, held = self.shared, len(self._payload)
        if type(value) in (str, bytes):
            held += sys.getsizeof(value)
        elif value is not COPY:
            texts = [each for each in map(value.__getattribute__, getattr(value, "__struct_fields__", ())) if type(each) is str]
            held += sum(map(sys.getsizeof, texts)) + OBJECT_TO_JSON * max(0, self._json_bytes - sum(map(len, texts)))
        return SLOT_BYTES + held + len(self.key) + sum(DEP_BYTES + len(dep) for dep in self.deps)

    def value(self, type: Any) -> Any:
        """The value as that type, for this caller alone. Raises msgspec.DecodeError when the type does not fit."""
        if type is self.type:
            return self.shared if self.shared is not COPY else self._codec.decode(self._payload)
        return codec_for(type).decode(self._payload or msgspec.json.encode(self.shared))


class LocalCache:
    """A bounded cache with a time to live for each entry. Thread-safe; local to this process, and not shared by a fork.

    A value is what JSON carries: see `pipeline.cache.encoding.codec`. A caller's changes to a returned value change nothing here.
    An expired entry is never returned; its memory is freed when it is asked for or evicted. `Eviction` chooses which entry goes:
    one that is used again stays longer than one that is not.

    A hit takes no lock: it looks into a dict, where a slot is whole or absent, sets a mark and counts. Every change to the set of
    slots takes the lock. A signal handler or finalizer may make one in the middle of its own thread's change: it then changes the
    dict only, a step at a time, and the next change brings the queues of eviction into line.
    """

    def __init__(
        self, max_size: int = 1000, *, max_bytes: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`max_size` entries at most, and of `max_bytes` of memory, if that is given: by an estimate that is right to about a
        third. An entry that would take more than an eighth of that is not kept here. `clock` in seconds. Raises ValueError when
        either is below 1."""
        if max_size < 1:
            raise ValueError(f"max_size: {max_size}; expected 1 or more")
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes: {max_bytes}; expected 1 or more, or None for no bound")
        self.max_size = max_size
        self.max_bytes = max_bytes
        self._largest_bytes = math.inf if max_bytes is None else max_bytes * LARGEST_SHARE
        self._room_bytes = math.inf if max_bytes is None else max_bytes
        self._bytes = 0  # as the slots say; written under the lock, and counted anew where a change was broken off
        self.slots: dict[str, Slot] = {}
        """To be read only, by any thread; a reader that serves a slot records that by `used` and `hits.add`."""
        self.hits = Count()
        self._misses = Count()
        self._clock = clock
        self._lock = Lock()
        self._eviction = Eviction(max_size)
        self._changing = False
        self._out_of_line = False

    # -- as a cache of its own

    def get(self, key: str, default: Any = MISS) -> Any:
        """The value, or `default`. Raises InvalidPatternError for a key that is no text."""
        now_s = self._clock()
        try:
            slot = self.hit(key, now_s, 0)
        except TypeError:  # not hashable
            slot = None
        if slot is None:
            check_text(key)
            self.peek(key, now_s)  # removes the slot if it has expired
            self._misses.add()
            return default
        return slot.shared if slot.shared is not COPY else slot.value(Any)

    def set(self, key: str, value: object, ttl: Duration = 300) -> None:
        """Keep `value` for `ttl` (seconds, or a timedelta).

        Raises UncacheableValueError, InvalidPatternError (the key) or ValueError (ttl).
        """
        check_key(key)
        ttl_s = positive_seconds(ttl, "ttl")
        payload, carried = ANY.encode(value)
        beside = b"" if ANY.shareable(carried) else payload
        self.put(key, Slot(ANY, beside, carried, self._clock() + ttl_s, _UNJUDGED, ()))

    def delete(self, key: str) -> bool:
        """Remove the entry. Returns whether there was one."""
        check_text(key)
        if self._lock.held():
            slot = self._remove_aside(key)
        else:
            with self._lock:
                self._begin()
                slot = self.slots.pop(key, None)
                if slot is not None:
                    self._eviction.remove(slot)
                    self._bytes -= slot.size_bytes
                self._changing = False
        return slot is not None and slot.expires_at > self._clock()

    def delete_pattern(self, pattern: str) -> int:
        """Remove every entry whose key matches. Returns how many. Raises InvalidPatternError."""
        matches = parse(pattern).matcher()
        return len(self.drop(lambda key, _: matches(key)))

    def clear(self) -> int:
        """Remove every entry. Returns how many. Counters stay."""
        if self._lock.held():
            return len(self._drop_aside(_any))
        with self._lock:
            size = len(self.slots)
            self._changing = True
            self.slots.clear()
            self._eviction.restart()
            self._bytes = 0
            self._changing = False
        return size

    def __len__(self) -> int:
        return len(self.slots)

    def __contains__(self, key: str) -> bool:
        slot = self.slots.get(key)
        return slot is not None and slot.expires_at > self._clock()

    def get_stats(self) -> dict[str, Any]:
        """Counts since the start; `size_bytes` and `max_bytes` where there is a bound in bytes. `size` may include entries that
        have expired or were invalidated and not yet touched."""
        hits, misses = self.hits.read(), self._misses.read()
        return {
            "cache_type": "L1 Local",
            "size": len(self.slots),
            "max_size": self.max_size,
            "hits": hits,
            "misses": misses,
            "hit_rate": percent(hits, hits + misses),
        } | ({} if self.max_bytes is None else {"size_bytes": self._bytes, "max_bytes": self.max_bytes})

    # -- as a tier

    def hit(self, key: str, now_s: float, generation: int) -> Slot | None:
        """The slot that was found valid at `generation`, counted as a hit; else None, not counted."""
        slot = self.slots.get(key)
        if slot is None or slot.generation != generation or slot.expires_at <= now_s:
            return None
        slot.used = True
        self.hits.add()
        return slot

    def peek(self, key: str, now_s: float) -> Slot | None:
        """The slot, if it has not expired, whatever its generation. Not counted."""
        slot = self.slots.get(key)
        if slot is None:
            return None
        if slot.expires_at <= now_s:
            self.discard(key, slot)
            return None
        slot.used = True
        return slot

    def put(self, key: str, slot: Slot) -> None:
        """Keep the slot, in place of any other of that key. If there is no room, other entries are evicted first. One that is too
        large is not kept, nor is its predecessor."""
        slot.key = key
        if self.max_bytes is not None:
            slot.size_bytes = slot.measured_bytes()
            if slot.size_bytes > self._largest_bytes:
                if (known := self.slots.get(key)) is not None:
                    self.discard(key, known)
                return
        if self._lock.held():
            self._put_aside(key, slot)
            return
        with self._lock:
            self._begin()
            old = self.slots.get(key)
            if old is not None:
                self._eviction.replace(old, slot)
                self._bytes += slot.size_bytes - old.size_bytes
                self.slots[key] = slot
                self._make_room(0, 0)  # it may be larger than its predecessor
            else:
                self._eviction.recall(slot)
                self._make_room(1, slot.size_bytes)
                self._eviction.admit(slot)
                self._bytes += slot.size_bytes
                self.slots[key] = slot
            self._changing = False

    def _make_room(self, entries: int, size_bytes: int) -> None:
        """Evict until so much more has room. Under the lock."""
        while self.slots and (len(self.slots) + entries > self.max_size or self._bytes + size_bytes > self._room_bytes):
            evicted = self.slots.pop(self._eviction.evict(self._clock()), None)
            if evicted is not None:
                self._bytes -= evicted.size_bytes

    def discard(self, key: str, slot: Slot) -> None:
        """Remove this very slot, which is no longer of use. A slot that another thread has put in its place stays."""
        if self._lock.held():
            if self.slots.get(key) is slot:
                self._remove_aside(key)
            return
        with self._lock:
            self._begin()  # before the look-up: a slot that an interruption removes from here on is marked as out of line
            if self.slots.get(key) is slot:
                self.slots.pop(key, None)
                self._eviction.remove_aged(slot)
                self._bytes -= slot.size_bytes
            self._changing = False

    def reject(self, key: str, slot: Slot) -> None:
        """Take back a hit whose value was kept under another type: it counts for nothing."""
        self.discard(key, slot)
        self.hits.take_back()

    def drop(self, doomed: Callable[[str, Slot], bool]) -> list[str]:
        """Remove every slot for which `doomed` is true. Returns their keys. Walks the whole cache, holding the lock."""
        if self._lock.held():
            return self._drop_aside(doomed)
        with self._lock:
            self._begin()
            gone = _those(self.slots.copy(), doomed)
            for key, slot in gone.items():
                self.slots.pop(key, None)
                self._eviction.remove(slot)
                self._bytes -= slot.size_bytes
            self._changing = False
        return list(gone)

    def count(self, *, hit: bool) -> None:
        if hit:
            self.hits.add()
        else:
            self._misses.add()

    def _begin(self) -> None:
        """Every change begins here, under the lock, and ends by `_changing = False`. One that did not end was broken off: a
        signal may raise between any two steps (a task's time limit does). Then the queues are rebuilt from the slots."""
        if self._changing or self._out_of_line:
            self._changing = True
            self._out_of_line = False  # before the slots are read: an interruption of this very step sets it again
            slots = self.slots.copy()
            self._eviction.restart(slots.values())
            self._bytes = sum(slot.size_bytes for slot in slots.values())
            self._make_room(0, 0)
        self._changing = True

    # -- inside a change of this very thread, whose queues must not be touched

    def _put_aside(self, key: str, slot: Slot) -> None:
        self._out_of_line = True
        # The interrupted change may need a place, too. In bytes there may be too many until the next change.
        if key in self.slots or len(self.slots) + 1 < self.max_size:
            self.slots[key] = slot

    def _remove_aside(self, key: str) -> Slot | None:
        self._out_of_line = True
        return self.slots.pop(key, None)

    def _drop_aside(self, doomed: Callable[[str, Slot], bool]) -> list[str]:
        gone = [key for key, slot in self.slots.copy().items() if doomed(key, slot)]
        for key in gone:
            self._remove_aside(key)
        return gone


def _those(slots: dict[str, Slot], doomed: Callable[[str, Slot], bool]) -> dict[str, Slot]:
    return {key: slot for key, slot in slots.items() if doomed(key, slot)}


def _any(_key: str, _slot: Slot) -> bool:
    return True
