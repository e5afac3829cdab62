"""`invalidate(..., wait_s=...)`: which nodes it waits for, and what it says of those that did not answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import redis
from faults import Clock

from pipeline.cache import LocalCache, RedisCache, TwoTierCache
from pipeline.cache.coherence.registry import NodeRegistry
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.connection import RedisConnection

SETTLE_S = 0.5


@pytest.fixture
def connection(redis_url: str) -> Iterator[RedisConnection]:
    connection = RedisConnection(redis_url, timeout_s=5.0)
    yield connection
    connection.close()


class Waited:
    """A registry whose time passes only while it waits, and what happens meanwhile."""

    def __init__(self, connection: RedisConnection, namespace: str) -> None:
        self.clock = Clock()
        self.slept_s = 0.0
        self.happens: dict[float, Callable[[], object]] = {}
        self.registry = NodeRegistry(connection, KeySpace(namespace), clock=self.clock, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.clock.tick(seconds)
        self.slept_s += seconds
        for at_s in [at_s for at_s in self.happens if at_s <= self.slept_s]:
            self.happens.pop(at_s)()

    def wait(self, wait_s: float = 3.0) -> tuple[list[str], list[str]]:
        return self.registry.wait("id", wait_s, settle_s=SETTLE_S)


def older(client: redis.Redis, keys: KeySpace) -> None:
    """The list of nodes has been there for long."""
    client.zrem(keys.nodes, "")


def test_it_returns_when_all_living_nodes_have_applied_it(
    connection: RedisConnection, client: redis.Redis, namespace: str
) -> None:
    """As soon as that; and names both those that have and those that have not."""
    waited = Waited(connection, namespace)
    for node in ("a", "b"):
        waited.registry.beat(node)
    older(client, KeySpace(namespace))
    waited.happens = {0.1: lambda: waited.registry.acknowledge("id", "b"), 0.2: lambda: waited.registry.acknowledge("id", "a")}
    assert waited.wait() == (["a", "b"], [])
    assert waited.slept_s < 0.3
    waited.registry.acknowledge("id2", "a")
    assert waited.registry.wait("id2", 0.4, settle_s=SETTLE_S) == (["a"], ["b"])


def test_a_list_of_nodes_that_was_lost_is_not_taken_for_nobody(
    connection: RedisConnection, client: redis.Redis, namespace: str
) -> None:
    """Every node that is alive writes its name anew at its next beat: also one that comes after the first has acknowledged."""
    waited = Waited(connection, namespace)
    beats = NodeRegistry(connection, KeySpace(namespace))
    waited.happens = {
        0.05: lambda: (beats.beat("a"), beats.acknowledge("id", "a")),
        0.3: lambda: beats.beat("b"),
    }
    applied, silent = waited.wait(0.45)
    assert (applied, silent) == (["a"], ["b"])


def test_who_was_alive_a_moment_ago_is_waited_for_though_the_server_forgot_it(
    connection: RedisConnection, client: redis.Redis, namespace: str
) -> None:
    """This process has seen it itself."""
    waited = Waited(connection, namespace)
    waited.registry.beat("a")
    assert waited.registry.alive() == ["a"]
    client.delete(KeySpace(namespace).nodes)
    assert waited.wait(1.0) == ([], ["a"])
    waited.clock.tick(11.0)
    assert waited.wait(1.0) == ([], [])


@pytest.mark.parametrize(("bound_s", "silent"), [(0.0, []), (60.0, ["a"])])
def test_a_node_that_has_left_is_waited_for_no_longer_than_its_children_may_serve(
    bound_s: float, silent: list[str], connection: RedisConnection, client: redis.Redis, namespace: str
) -> None:
    """That is a staleness bound; and not because this process has seen it a moment ago."""
    waited = Waited(connection, namespace)
    waited.registry.beat("a")
    waited.registry.beat("b")
    older(client, KeySpace(namespace))
    assert waited.registry.alive() == ["a", "b"]
    waited.registry.leave("a", bound_s)
    waited.clock.tick(5.0)
    waited.registry.acknowledge("id", "b")
    assert waited.wait(1.0) == (["b"], silent)


def test_a_node_that_leaves_a_list_younger_than_that_is_all_that_leaves_it(connection: RedisConnection, namespace: str) -> None:
    """What says when the list began is no node, wherever it stands."""
    registry = NodeRegistry(connection, KeySpace(namespace))
    registry.beat("a")
    registry.beat("b")
    registry.leave("a", 5.0)
    assert registry.alive() == ["a", "b"]


def test_where_there_are_no_nodes_nobody_waits_for_longer_than_a_node_would_take_to_show(
    connection: RedisConnection, namespace: str
) -> None:
    """Not for the whole time that was given."""
    waited = Waited(connection, namespace)
    assert waited.wait(30.0) == ([], [])
    assert waited.slept_s < 2 * SETTLE_S


def test_a_time_out_shorter_than_any_pause_is_no_outage(redis_url: str, namespace: str) -> None:
    """Waiting blocks no connection: a slow node opens no breaker, and everything else is read on."""
    cache = TwoTierCache(
        LocalCache(),
        RedisCache(url=redis_url, namespace=namespace, timeout_s=0.05),
        announce=lambda *_: True,
        staleness_bound_s=0.2,
    )
    assert cache.l2 is not None
    NodeRegistry(cache.l2.connection, cache.l2.keys).beat("slow")
    cache.get_or_compute("other", lambda: 1)
    done = cache.invalidate("k", wait_s=0.5)
    assert (done.applied, done.silent, done.announced) == ((), ("slow",), True)
    assert not cache.degraded
    assert cache.l2.connection.breaker.opened_count == 0
    cache.close()


def test_nobody_is_waited_for_where_nobody_is_told(redis_url: str, namespace: str) -> None:
    """A cache without a way to the nodes says at once that none was told."""
    cache = TwoTierCache(LocalCache(), RedisCache(url=redis_url, namespace=namespace, timeout_s=5.0))
    assert cache.l2 is not None
    NodeRegistry(cache.l2.connection, cache.l2.keys).beat("a")
    began_s = time.monotonic()
    done = cache.invalidate("k", wait_s=60.0)
    assert time.monotonic() - began_s < 30
    assert (done.durable, done.announced, done.applied) == (True, False, ())
    cache.close()
