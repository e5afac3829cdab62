"""Caches as programs await them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.cache import RedisCache, TwoTierCache


@pytest.fixture(params=["both tiers", "L1 alone"])
def cache(request: pytest.FixtureRequest, redis_url: str, namespace: str) -> Iterator[TwoTierCache]:
    l2 = RedisCache(url=redis_url, namespace=namespace, timeout_s=5.0) if request.param == "both tiers" else None
    cache = TwoTierCache(None, l2, ttl_jitter=0.0)
    yield cache
    cache.clear()
    cache.close()


@pytest.fixture
def elsewhere(redis_url: str, namespace: str) -> Iterator[TwoTierCache]:
    """As another process has it."""
    cache = TwoTierCache(None, RedisCache(url=redis_url, namespace=namespace, timeout_s=5.0), ttl_jitter=0.0)
    yield cache
    cache.close()
