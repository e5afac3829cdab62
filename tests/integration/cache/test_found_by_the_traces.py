"""What `python -m traces` has found, on the real code: each was red before its mend."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.cache import MISS, LocalCache, RedisCache, TwoTierCache
from pipeline.cache.coherence.bus import NodeBus
from pipeline.cache.coherence.log import RedisInvalidationLog
from pipeline.cache.coherence.node import NodeFollower
from pipeline.cache.coherence.registry import NodeRegistry
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.connection import RedisConnection


@pytest.fixture
def child(redis_url: str, namespace: str) -> Iterator[TwoTierCache]:
    """A pool child that has heard of an invalidation of `x` which is in no log yet."""
    bus = NodeBus()
    connection, keys = RedisConnection(redis_url, retry_pause_s=0.0), KeySpace(namespace)
    log = RedisInvalidationLog(connection, keys, retention_s=3600.0)
    follower = NodeFollower("node", bus, log, NodeRegistry(connection, keys))
    follower.beat()
    cache = TwoTierCache(LocalCache(), RedisCache(url=redis_url, namespace=namespace), bus=bus, max_ttl_s=3600.0)
    for key in ("k", "x"):
        assert cache.get_or_compute(key, lambda: "a value") == "a value"
    follower.receive("", 0, ["x"])
    assert cache.get("x") is MISS
    cache.l1.clear()
    yield cache
    cache.close()
    connection.close()


def test_an_entry_that_a_pending_invalidation_does_not_mean_is_served_from_l2(child: TwoTierCache) -> None:
    """The process missed every entry of L2 for as long as anything was pending."""
    found = child.lookup("k")
    assert found is not MISS
    assert found.source == "l2"
    assert child.lookup("x") is MISS


def test_a_sweep_keeps_what_a_pending_invalidation_does_not_mean(child: TwoTierCache) -> None:
    """It removed every entry of L2 that it came by."""
    swept = child.sweep()
    assert swept is not None
    assert (swept.looked_at, swept.removed) == (2, 1)
    assert child.lookup("k") is not MISS
