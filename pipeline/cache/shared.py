"""L2: the entries that all processes share, in Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec
import redis

from pipeline.cache.codec import ANY
from pipeline.cache.connection import RedisConnection
from pipeline.cache.entry import Entry, decode_entry, encode_entry
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.keys import KeySpace, check_key, check_text
from pipeline.cache.miss import MISS
from pipeline.cache.patterns import parse
from pipeline.cache.seconds import Duration, positive_seconds
from pipeline.cache.stats import megabytes
from pipeline.cache.wire import encode

NO_SERVER: Final = {"cache_type": "none", "available": False, "memory_used": "0.0 MB", "connected_clients": 0}
"""What there is to say of an L2 that is not."""
_SCAN_COUNT: Final = 1000
_MAX_TTL_S: Final = 366 * 86_400
_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class RedisCache:
    """JSON entries with a time to live under one namespace of a Redis (or Valkey) server.

    Never raises because the server is away: reads miss, writes return False, `available` says so, and it heals by itself.
    It moves bytes and does not judge them: what was invalidated but not yet swept is still here. `TwoTierCache` judges.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 6379,
        *,
        url: str | None = None,
        namespace: str = "persona",
        timeout_s: float = 0.25,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`url` wins over `host` and `port`. Connects on first use."""
        self.connection = RedisConnection(url or f"redis://{host}:{port}/0", timeout_s=timeout_s)
        self.keys = KeySpace(namespace)
        self._wall_clock = wall_clock
        self.undecodable_count = 0

    # -- as a cache of its own

    def get(self, key: str, default: Any = MISS) -> Any:
        """The value, or `default` when there is none or the server is away. Raises InvalidPatternError for a key that is no
        text."""
        check_text(key)
        try:
            raw = _bytes(self.connection.call(lambda client: client.get(self.keys.entry(key))))
        except SharedTierUnavailableError:
            return default
        entry = self.decode(raw)
        if entry is None:
            return default
        try:
            return ANY.decode(entry.value)
        except _UNDECODABLE:
            self.undecodable_count += 1
            return default

    def set(self, key: str, value: object, ttl: Duration = 300) -> bool:
        """Keep `value` for `ttl` (seconds, or a timedelta); whether the server has it.

        Raises UncacheableValueError, InvalidPatternError (the key) or ValueError (ttl).
        """
        check_key(key)
        ttl_s = positive_seconds(ttl, "ttl")
        if ttl_s > _MAX_TTL_S:
            raise ValueError(f"ttl: {ttl_s:g}; expected seconds above 0 and up to {_MAX_TTL_S}")
        payload, _ = ANY.encode(value)
        entry = Entry("", 0, (), int(self._wall_clock() * 1000), int(ttl_s * 1000), msgspec.Raw(payload))
        try:
            self.write(key, entry)
        except SharedTierUnavailableError:
            return False
        return True

    def delete(self, key: str) -> bool:
        """Remove the entry; whether there was one and the server could be asked."""
        check_text(key)
        try:
            return self.unlink([self.keys.entry(key)]) == 1
        except SharedTierUnavailableError:
            return False

    def delete_pattern(self, pattern: str) -> int:
        """Remove every entry whose key matches; how many went. 0 when the server is away. Raises InvalidPatternError."""
        try:
            return self.sweep(parse(pattern).text)
        except SharedTierUnavailableError:
            return 0

    def clear(self) -> int:
        """Remove this namespace's entries and nothing else of the database; how many."""
        return self.delete_pattern("*")

    @property
    def available(self) -> bool:
        """Whether the server answers now. Asks it, unless a failure less than a second ago has answered already."""
        try:
            return bool(self.connection.call(lambda client: client.ping()))
        except SharedTierUnavailableError:
            return False

    def get_stats(self) -> dict[str, Any]:
        """What the server says of itself. `memory_used` and `connected_clients` are the whole server's."""
        stats: dict[str, Any] = NO_SERVER | {"cache_type": "L2 Redis"}
        try:
            info: dict[str, Any] = self.connection.call(_server_info)
        except SharedTierUnavailableError:
            return stats
        return stats | {
            "available": True,
            "memory_used": megabytes(int(info.get("used_memory", 0))),
            "connected_clients": int(info.get("connected_clients", 0)),
        }

    def close(self) -> None:
        self.connection.close()

    # -- as a tier: these raise SharedTierUnavailableError

    def read(self, key: str) -> tuple[bytes | None, bytes | None]:
        """The entry's bytes and the log's tail, of one moment: one round trip."""
        entry, tail = self.connection.ask(encode(b"MGET", self.keys.entry(key), self.keys.tail))
        return entry, tail

    def read_many(self, keys: Sequence[str]) -> tuple[list[bytes | None], bytes | None]:
        """As `read`, of several: also one round trip, and of one moment."""
        names = [*map(self.keys.entry, keys), self.keys.tail]
        *entries, tail = self.connection.call(lambda client: client.mget(names))
        return [_bytes(entry) for entry in entries], _bytes(tail)

    def write(self, key: str, entry: Entry) -> None:
        """Store the entry for its own TTL and grace."""
        name, payload = self.keys.entry(key), encode_entry(entry)
        self.connection.call(lambda client: client.set(name, payload, px=max(1, entry.ttl_ms + entry.grace_ms)))

    def sweep(self, pattern: str) -> int:
        """Remove the bytes of the entries that match, in batches; how many went. Asks for every key of the database once."""
        match = self.keys.entries_matching(pattern)
        return sum(self.unlink(batch) for batch in self._scan(match))

    def count_present(self, keys: list[str]) -> int:
        """How many of these keys have bytes here; 0 when the server is away."""
        if not keys:
            return 0
        names = [self.keys.entry(key) for key in keys]
        try:
            return int(self.connection.call(lambda client: client.exists(*names)))
        except SharedTierUnavailableError:
            return 0

    def unlink(self, names: list[bytes]) -> int:
        return int(self.connection.call(lambda client: client.unlink(*names))) if names else 0

    def decode(self, raw: bytes | None) -> Entry | None:
        """The entry, or None: also for bytes that are none, which are counted."""
        if raw is None:
            return None
        try:
            return decode_entry(raw)
        except _UNDECODABLE:
            self.undecodable_count += 1
            return None

    def _scan(self, match: bytes) -> Iterator[list[bytes]]:
        cursor = 0
        while True:
            at = cursor
            cursor, names = self.connection.call(lambda client: client.scan(at, match=match, count=_SCAN_COUNT))  # noqa: B023 - called before `at` changes
            if names:
                yield [name for name in names if isinstance(name, bytes)]
            if cursor == 0:
                return


def _bytes(answer: bytes | str | None) -> bytes | None:
    """What the client's types allow to be text, and without `decode_responses` never is."""
    return answer.encode() if isinstance(answer, str) else answer


def _server_info(client: redis.Redis) -> dict[str, Any]:
    info: dict[str, Any] = client.info("memory")
    info.update(client.info("clients"))
    return info
