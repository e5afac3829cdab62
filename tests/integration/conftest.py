"""Caches as two processes of one machine would have them: one server and namespace, one clock that is told the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from faults import Clock, SteppedRedisCache
from servers import ValkeyServer

from pipeline.cache import LocalCache, TwoTierCache

BOUND_S = 1.0
MakeCache = Callable[..., TwoTierCache]


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    """A client of the tests' own."""
    with valkey.client() as client:
        yield client


@pytest.fixture
def clock() -> Clock:
    """The monotonic clock of all caches of a test."""
    return Clock()


@pytest.fixture
def wall() -> Clock:
    """Their wall clock."""
    return Clock(1_700_000_000.0)


@pytest.fixture
def make(redis_url: str, namespace: str, clock: Clock, wall: Clock) -> Iterator[MakeCache]:
    """Makes a cache as another process would have it, with a bound of 1 s and no jitter unless the test says otherwise."""
    made: list[TwoTierCache] = []

    def make_cache(**options: Any) -> TwoTierCache:
        l2 = SteppedRedisCache(redis_url, namespace, wall_clock=wall)
        options = {"ttl_jitter": 0.0, "staleness_bound_s": BOUND_S, **options}
        made.append(TwoTierCache(LocalCache(100, clock=clock), l2, clock=clock, wall_clock=wall, **options))
        return made[-1]

    yield make_cache
    for cache in made:
        cache.close()


@pytest.fixture
def here(make: MakeCache) -> TwoTierCache:
    """One process's cache."""
    return make()


@pytest.fixture
def there(make: MakeCache) -> TwoTierCache:
    """Another process's."""
    return make()
