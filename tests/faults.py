"""Time that passes when told, and a shared tier whose steps can be held, failed or followed by something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import redis

from pipeline.cache import MISS, RedisCache, TwoTierCache
from pipeline.cache.coherence.log import InvalidationLog
from pipeline.cache.coherence.tail import Page, Tail
from pipeline.cache.entry import Entry
from pipeline.cache.errors import SharedTierUnavailableError


def nothing() -> None:
    """The default between two steps, unless a test says otherwise."""


def lost() -> None:
    """The server has done it, and its answer did not arrive."""
    raise SharedTierUnavailableError("a test lost the answer")


def once(step: Callable[[], None]) -> Callable[[], None]:
    """`step` at the first call, nothing at any later one, also at those that `step` itself causes."""
    steps = [step]

    def run() -> None:
        if steps:
            steps.pop()()

    return run


class Clock:
    """Seconds that pass when told."""

    def __init__(self, now_s: float = 1_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def tick(self, seconds: float) -> None:
        self.now_s += seconds


class SteppedRedisCache(RedisCache):
    """The real tier with a place to step in after each read, before what was read is judged, and around each write. The calls
    themselves are real."""

    def __init__(
        self, url: str, namespace: str, *, timeout_s: float = 5.0, wall_clock: Callable[[], float] | None = None
    ) -> None:
        if wall_clock is None:
            super().__init__(url=url, namespace=namespace, timeout_s=timeout_s)
        else:
            super().__init__(url=url, namespace=namespace, timeout_s=timeout_s, wall_clock=wall_clock)
        self.after_read: Callable[[], None] = nothing
        self.before_decode: Callable[[], None] = nothing
        self.before_write: Callable[[], None] = nothing
        self.after_write: Callable[[], None] = nothing
        self._raw: redis.Redis | None = None
        self.reads = 0
        self.writes = 0

    def read(self, key: str) -> tuple[bytes | None, bytes | None]:
        self.reads += 1
        answer = super().read(key)
        self.after_read()
        return answer

    def decode(self, key: str, raw: bytes | None) -> Entry | None:
        self.before_decode()
        return super().decode(key, raw)

    def write(self, key: str, entry: Entry, told_by: list[bytes] | None = None) -> None:
        self.writes += 1
        self.before_write()
        super().write(key, entry, told_by)
        self.after_write()

    def raw(self) -> redis.Redis:
        """A client of its own, for a test that looks at or spoils what the server holds."""
        if self._raw is None:
            self._raw = redis.Redis.from_url(self.url)
        return self._raw

    def close(self) -> None:
        super().close()
        if self._raw is not None:
            self._raw.close()


class SteppedLog:
    """A real log with a place to step in around each append and each reading."""

    def __init__(self, log: InvalidationLog) -> None:
        self._log = log
        self.before_read: Callable[[], None] = nothing
        self.before_append: Callable[[], None] = nothing
        self.after_append: Callable[[], None] = nothing
        self.after_read: Callable[[], None] = nothing

    @property
    def contacts(self) -> int:
        return self._log.contacts

    def append(self, patterns: Sequence[str]) -> Tail:
        self.before_append()
        tail = self._log.append(patterns)
        self.after_append()
        return tail

    def read_since(self, known: Tail | None) -> Page:
        self.before_read()
        page = self._log.read_since(known)
        self.after_read()
        return page


def step_into_log(cache: TwoTierCache) -> SteppedLog:
    """Put a stepped log around the cache's own."""
    stepped = SteppedLog(cache._coherence.log)
    cache._coherence.log = stepped
    return stepped


def age(client: redis.Redis, namespace: str, seconds: float) -> None:
    """Let time pass for a namespace's entries in Redis: each has that much less of its TTL left, or is gone."""
    for name in list(client.scan_iter(match=f"{namespace}:*")):
        left_ms: Any = client.pttl(name)
        if left_ms >= 0:
            client.pexpire(name, max(0, left_ms - int(seconds * 1000)))


def shared(cache: TwoTierCache) -> SteppedRedisCache:
    """The cache's second tier, which the test has stepped."""
    assert isinstance(cache.l2, SteppedRedisCache)
    return cache.l2


def source(cache: TwoTierCache, key: str) -> str:
    """Where a value comes from; `miss` when from nowhere."""
    found = cache.lookup(key)
    return "miss" if found is MISS else found.source


def fill(cache: TwoTierCache, key: str, value: object = "value", **options: Any) -> Any:
    """Compute and keep a value, or get the one that is kept."""
    return cache.get_or_compute(key, lambda: value, **options)
