"""L2: the entries that all processes share, in Redis."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from pipeline.cache.encoding.codec import ANY, Codec
from pipeline.cache.entry import MISS, Entry, decode_entry, encode_entry
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.keys import KeySpace, check_key, check_text
from pipeline.cache.patterns.pattern import parse
from pipeline.cache.seconds import Duration, positive_seconds
from pipeline.cache.server.commands import Commands, integer
from pipeline.cache.server.connection import RedisConnection
from pipeline.cache.server.link import ReplyError, encode
from pipeline.cache.server.probe import probe
from pipeline.cache.server.scripts import add_known_script, run_script
from pipeline.cache.stats import megabytes

logger: Final = logging.getLogger(__name__)

NO_SERVER: Final = {
    "cache_type": "none",
    "available": False,
    "refused": "",
    "memory_used": "0.0 MB",
    "connected_clients": 0,
    "foreign": 0,
}
"""Stats reported when no L2 is configured."""
_SCAN_COUNT: Final = 1000
_MAX_TTL_S: Final = 366 * 86_400
_READ: Final = ("GET", "GETEX")
_MOST_TOLD_BYTES: Final = 16_384
"""Of a larger entry those that wait are told that it is there: to have it copied for each, twice over, would cost more."""
_TOLD_MS: Final = 2_000
_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class RedisCache:
    """JSON entries with a time to live under one namespace of a Redis (or Valkey) server.

    Never raises because the server is away: reads miss, writes return False, `available` says so, and it heals by itself.
    Needs Redis 6.2 or later (GETEX), or any Valkey. An entry that names another key than the one it was read under is a miss.
    This tier moves bytes and does not judge them: an invalidated entry stays until it is swept. `TwoTierCache` judges.
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
        """`url` wins over `host` and `port`; see `check_redis_url` for its forms. Connects on first use.

        Raises ValueError for an invalid URL.
        """
        server = f"[{host}]" if ":" in host else host
        self.url = url or f"redis://{server}:{port}/0"
        self.connection = RedisConnection(self.url, timeout_s=timeout_s)
        self.keys = KeySpace(namespace)
        self._get_tail = encode(b"GETEX", self.keys.tail)
        self._wall_clock = wall_clock
        self.undecodable_count = 0
        """How many entries this release could not read."""
        self.foreign_count = 0
        """How many entries named another key than the one asked for: misses."""

    # -- as a cache of its own

    def get(self, key: str, default: Any = MISS) -> Any:
        """The value, or `default` when there is none or the server is away. Raises InvalidPatternError for a key that is not
        text."""
        check_text(key)
        try:
            raw, _ = self.read(key)
        except SharedTierUnavailableError:
            return default
        entry = self.decode(key, raw)
        if entry is None:
            return default
        try:
            return ANY.decode(entry.value)
        except _UNDECODABLE:
            self.undecodable_count += 1
            return default

    def set(self, key: str, value: object, ttl: Duration = 300) -> bool:
        """Keep `value` for `ttl` (seconds, or a timedelta). Returns whether the server has it.

        Raises UncacheableValueError, InvalidPatternError (the key) or ValueError (ttl).
        """
        check_key(key)
        ttl_s = positive_seconds(ttl, "ttl")
        if ttl_s > _MAX_TTL_S:
            raise ValueError(f"ttl: {ttl_s:g}; expected seconds above 0 and up to {_MAX_TTL_S}")
        payload, _ = ANY.encode(value)
        entry = Entry(key, "", 0, (), int(self._wall_clock() * 1000), int(ttl_s * 1000), msgspec.Raw(payload))
        try:
            self.write(key, entry)
        except SharedTierUnavailableError:
            return False
        return True

    def delete(self, key: str) -> bool:
        """Remove the entry. Returns whether there was one and the server could be asked."""
        check_text(key)
        try:
            return self.unlink([self.keys.entry(key)]) == 1
        except SharedTierUnavailableError:
            return False

    def delete_pattern(self, pattern: str) -> int:
        """Remove every entry whose key matches. Returns how many; 0 when the server is away. Raises InvalidPatternError."""
        try:
            return self.sweep(parse(pattern).text)
        except SharedTierUnavailableError:
            return 0

    def clear(self) -> int:
        """Remove this namespace's entries and nothing else in the database. Returns how many."""
        return self.delete_pattern("*")

    @property
    def available(self) -> bool:
        """Whether entries can be written and read, and no recent need was refused. Tries it, unless a failure less than a second
        ago has answered already."""
        try:
            self.connection.call(lambda client: probe(client, self.keys))
        except SharedTierUnavailableError:
            return False
        return self.connection.refused is None

    def get_stats(self) -> dict[str, Any]:
        """The server's own figures, and the code by which it refuses a command that is needed, if it does. `memory_used` and
        `connected_clients` count the whole server, and are 0 where it does not tell."""
        stats: dict[str, Any] = NO_SERVER | {"cache_type": "L2 Redis", "available": self.available}
        try:
            info: dict[str, str] = self.connection.call(_server_info)
        except SharedTierUnavailableError:
            info = {}
        return stats | {
            "refused": self.connection.refused or "",
            "memory_used": megabytes(_number(info, "used_memory")),
            "connected_clients": _number(info, "connected_clients"),
            "foreign": self.foreign_count,
        }

    def close(self) -> None:
        self.connection.close()

    # -- as a tier: these raise SharedTierUnavailableError

    def read(self, key: str) -> tuple[bytes | None, bytes | None]:
        """The entry's bytes and then the log's tail, in one round trip: the tail covers every invalidation from before the entry
        was read. Only from a server that takes writes: a demoted master must not confirm anything."""
        name = self.keys.entry(key)
        entry, tail = self.connection.ask(b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n%b" % (len(name), name, self._get_tail), _READ)
        if (entry is None or type(entry) is bytes) and (tail is None or type(tail) is bytes):
            return entry, tail
        self.connection.renounce()
        raise SharedTierUnavailableError("Redis did not answer: the reply is not an entry")

    def read_many(self, keys: Sequence[str]) -> tuple[list[bytes | None], bytes | None]:
        """As `read`, for several keys: also one round trip."""
        names = [self.keys.entry(key) for key in keys]

        def command(client: Commands) -> list[Any]:
            with client.pipeline() as pipe:
                if names:
                    pipe.mget(names)
                pipe.getex(self.keys.tail)
                return pipe.execute()

        *entries, tail = self.connection.call(command)
        return (entries[0] if names else []), tail

    def write(self, key: str, entry: Entry, told_by: list[bytes] | None = None) -> None:
        """Store the entry for its own TTL and grace. `told_by`: those that wait for the owner of the key's lease are told in the
        same round trip; see Leases.told_by."""
        name, payload = self.keys.entry(key), encode_entry(entry)
        lifetime_ms = max(1, entry.ttl_ms + entry.grace_ms)

        def command(client: Commands) -> None:
            if told_by is None:
                client.set(name, payload, px=lifetime_ms)
                return
            with client.pipeline() as pipe:
                pipe.set(name, payload, px=lifetime_ms)
                add_known_script(pipe, "tell", told_by, [_MOST_TOLD_BYTES, _TOLD_MS], integer)
                try:
                    pipe.execute()
                except ReplyError as error:
                    if error.code != "NOSCRIPT":
                        raise
                    run_script(client, "tell", told_by, [_MOST_TOLD_BYTES, _TOLD_MS], integer)

        self.connection.call(command)

    def write_many(self, entries: Sequence[Entry]) -> None:
        """As `write`, of several, in one round trip."""
        sent = [(self.keys.entry(entry.key), encode_entry(entry), max(1, entry.ttl_ms + entry.grace_ms)) for entry in entries]

        def command(client: Commands) -> None:
            with client.pipeline() as pipe:
                for name, payload, px in sent:
                    pipe.set(name, payload, px=px)
                pipe.execute()

        self.connection.call(command)

    def sweep(self, pattern: str) -> int:
        """Remove the bytes of the entries that match, in batches. Returns how many. Scans the whole database once."""
        match = self.keys.entries_matching(pattern)
        return sum(self.unlink(batch) for batch in self._scan(match))

    def entries(self) -> Iterator[Entry]:
        """Every entry that can be read, one after another, some perhaps twice. Scans the whole database once. Raises
        SharedTierUnavailableError."""
        for names in self._scan(self.keys.entries_matching("*")):
            raws = self.connection.call(lambda client, names=names: client.mget(names))  # type: ignore[misc]
            for name, raw in zip(names, raws, strict=True):
                entry = self.decode(self.keys.key_of(name), raw)
                if entry is not None:
                    yield entry

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

    def decode(self, key: str, raw: bytes | None) -> Entry | None:
        """The entry of that key, or None; malformed bytes and another key's entry, too, are None, and counted."""
        if raw is None:
            return None
        try:
            entry = decode_entry(raw)
        except _UNDECODABLE:
            self.undecodable_count += 1
            return None
        return entry if self._is_of(key, entry) else None

    def open(self, key: str, raw: bytes, codec: Codec[Any]) -> tuple[Entry, Any] | None:
        """As `decode`, with the value, which costs a large entry one pass and not two. None also for a value that is not of the
        codec's type."""
        try:
            opened = codec.open(raw)
        except _UNDECODABLE:
            self.decode(key, raw)  # counts what is no entry at all
            return None
        return opened if self._is_of(key, opened[0]) else None

    def _is_of(self, key: str, entry: Entry) -> bool:
        if entry.key == key:
            return True
        self._reject_foreign()
        return False

    def _reject_foreign(self) -> None:
        """The entry is another key's: another program renamed it, or something between here and the server mixes replies up."""
        self.connection.renounce()
        if not self.foreign_count:
            logger.warning("cache.foreign_entry: an entry names another key than it was read under; more are only counted")
        self.foreign_count += 1

    def _scan(self, match: bytes) -> Iterator[list[bytes]]:
        cursor = 0
        while True:
            at = cursor
            cursor, names = self.connection.call(lambda client: client.scan(at, match=match, count=_SCAN_COUNT))  # noqa: B023 - called before `at` changes
            if names:
                yield names
            if cursor == 0:
                return


def _server_info(client: Commands) -> dict[str, str]:
    return client.info("memory") | client.info("clients")


def _number(info: dict[str, str], name: str) -> int:
    text = info.get(name, "")
    return int(text) if text.isdigit() else 0
