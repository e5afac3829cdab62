"""L1: the entries of one process, in memory."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import msgspec

from pipeline.cache.codec import ANY, Codec, codec_for
from pipeline.cache.entry import AsOf
from pipeline.cache.keys import check_key
from pipeline.cache.miss import MISS
from pipeline.cache.patterns import parse
from pipeline.cache.stats import percent

COPY: Final = object()


class Slot:
    """One entry as a process keeps it. Only `generation` changes: the last at which it was found valid.

    `shared` is the value when it is immutable to its leaves: it is handed out as it is, to whoever asks for its `type`. Any
    other value is decoded anew for each caller, so that nothing a caller does to it reaches the next one (a third of the cost
    of copy.deepcopy); `shared` is then `COPY`.
    """

    __slots__ = ("_payload", "as_of", "deps", "expires_at", "generation", "shared", "type")

    def __init__(
        self, codec: Codec[Any], payload: bytes, value: object, expires_at: float, as_of: AsOf, deps: tuple[str, ...]
    ) -> None:
        shareable = codec.shareable(value)
        self.type = codec.type
        self.shared = value if shareable else COPY
        self._payload = None if shareable else payload
        self.expires_at = expires_at
        self.as_of = as_of
        self.generation = as_of.generation
        self.deps = deps

    def value(self, type: Any) -> Any:
        """The value in that type, the caller's own. Raises msgspec.DecodeError when the type does not fit."""
        if type is self.type and self.shared is not COPY:
            return self.shared
        payload = msgspec.json.encode(self.shared) if self._payload is None else self._payload
        return codec_for(type).decode(payload)


class LocalCache:
    """A bounded LRU cache with a time to live for each entry. Thread-safe; local to this process, and not shared by a fork.

    A value is what JSON carried: see `pipeline.cache.codec`. What a caller does to a returned value changes nothing here.
    An expired entry is never returned; its memory is freed when it is asked for or pushed out.
    """

    def __init__(self, max_size: int = 1000, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`max_size` entries at most; `clock` in seconds. Raises ValueError when `max_size` is below 1."""
        if max_size < 1:
            raise ValueError(f"max_size: {max_size}; expected 1 or more")
        self.max_size = max_size
        self._clock = clock
        self._lock = threading.Lock()
        self._slots: OrderedDict[str, Slot] = OrderedDict()
        self._hits = 0
        self._misses = 0

    # -- as a cache of its own

    def get(self, key: str, default: Any = MISS) -> Any:
        """The value, or `default`."""
        slot = self.hit(key, self._clock(), 0)
        if slot is None:
            self.count(hit=False)
            return default
        return slot.shared if slot.shared is not COPY else slot.value(Any)

    def set(self, key: str, value: object, ttl: float = 300) -> None:
        """Keep `value` for `ttl` seconds.

        Raises UncacheableValueError, InvalidPatternError (the key) or ValueError (ttl).
        """
        check_key(key)
        if not ttl > 0:
            raise ValueError(f"ttl: {ttl}; expected seconds above 0")
        payload, carried = ANY.encode(value)
        self.put(key, Slot(ANY, payload, carried, self._clock() + ttl, AsOf("", 0), ()))

    def delete(self, key: str) -> bool:
        """Remove the entry; whether there was one."""
        with self._lock:
            slot = self._slots.pop(key, None)
        return slot is not None and slot.expires_at > self._clock()

    def delete_pattern(self, pattern: str) -> int:
        """Remove every entry whose key matches; how many. Raises InvalidPatternError."""
        matches = parse(pattern).matcher()
        return len(self.drop(lambda key, _: matches(key)))

    def clear(self) -> int:
        """Remove everything; how many entries. Counters stay."""
        with self._lock:
            size = len(self._slots)
            self._slots.clear()
        return size

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, key: str) -> bool:
        slot = self._slots.get(key)
        return slot is not None and slot.expires_at > self._clock()

    def get_stats(self) -> dict[str, Any]:
        """Counts since the start. `size` may include entries that have expired or were invalidated and not yet touched."""
        with self._lock:
            hits, misses, size = self._hits, self._misses, len(self._slots)
        return {
            "cache_type": "L1 Local",
            "size": size,
            "max_size": self.max_size,
            "hits": hits,
            "misses": misses,
            "hit_rate": percent(hits, hits + misses),
        }

    # -- as a tier

    def hit(self, key: str, now_s: float, generation: int) -> Slot | None:
        """The slot that was found valid at `generation`, counted as a hit; else None, not counted."""
        with self._lock:
            slot = self._slots.get(key)
            if slot is None or slot.generation != generation:
                return None
            if slot.expires_at <= now_s:
                del self._slots[key]
                return None
            self._slots.move_to_end(key)
            self._hits += 1
            return slot

    def peek(self, key: str, now_s: float) -> Slot | None:
        """The slot, if it has not expired, whatever its generation. Not counted."""
        with self._lock:
            slot = self._slots.get(key)
            if slot is None:
                return None
            if slot.expires_at <= now_s:
                del self._slots[key]
                return None
            self._slots.move_to_end(key)
            return slot

    def put(self, key: str, slot: Slot) -> None:
        """Keep the slot, pushing out what was used least recently."""
        with self._lock:
            self._slots[key] = slot
            self._slots.move_to_end(key)
            if len(self._slots) > self.max_size:
                self._slots.popitem(last=False)

    def discard(self, key: str, slot: Slot) -> None:
        """Remove this very slot: one that another thread has put in its place stays."""
        with self._lock:
            if self._slots.get(key) is slot:
                del self._slots[key]

    def reject(self, key: str, slot: Slot) -> None:
        """Take back a hit whose value was kept under another type: as good as nothing."""
        self.discard(key, slot)
        with self._lock:
            self._hits -= 1

    def drop(self, doomed: Callable[[str, Slot], bool]) -> list[str]:
        """Remove every slot for which `doomed` is true; their keys. Walks the whole cache, holding the lock."""
        with self._lock:
            keys = [key for key, slot in self._slots.items() if doomed(key, slot)]
            for key in keys:
                del self._slots[key]
        return keys

    def count(self, *, hit: bool) -> None:
        with self._lock:
            if hit:
                self._hits += 1
            else:
                self._misses += 1
