"""What many callers of one key cost that was invalidated: one round trip each to see who computes it, and one to be told what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from polling import until
from servers import calls
from slow import BOUND_S, Slow

from pipeline.cache import Found, Kind, TwoTierCache
from pipeline.cache.flight import seeking
from pipeline.cache.keys import KeySpace

MakeCache = Callable[..., TwoTierCache]
QUICK = {"listens": False}  # what a listener does is not counted here


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(10) as pool:
        yield pool


@pytest.fixture
def long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """No caller looks again while a test runs: what it gets, it was told."""
    monkeypatch.setattr(seeking, "LONGEST_PAUSE_S", BOUND_S)


def waits(client: redis.Redis, count: int) -> None:
    """Until so many callers wait at the server."""
    until(lambda: int(client.info("clients")["blocked_clients"]) == count)


def warm(cache: TwoTierCache, *, value: object = "old") -> None:
    """Give this process's L1 an entry that it then knows to be invalid."""
    assert cache.get_or_compute("k", lambda: value) == value


@pytest.mark.usefixtures("long_waits")
def test_those_that_wait_are_told_the_value(make: MakeCache, pool: ThreadPoolExecutor, client: redis.Redis) -> None:
    """Each asks the server twice, however long the computation takes."""
    first, others = make(**QUICK), [make(**QUICK) for _ in range(4)]
    for cache in (first, *others):
        warm(cache)
    first.invalidate("k")
    for cache in others:
        cache.refresh()  # what a listener would have told it
    slow, before = Slow("new"), calls(client)
    computing = pool.submit(first.fetch, "k", slow)
    assert slow.begun.wait(BOUND_S)
    waiting = [pool.submit(cache.fetch, "k", lambda: pytest.fail("a second computation")) for cache in others]
    waits(client, len(others))
    slow.go_on.set()
    assert computing.result(BOUND_S) == Found("new", "no")
    assert {(each.result(BOUND_S).value, each.result(BOUND_S).source) for each in waiting} == {("new", "joined")}
    ran = calls(client) - before
    assert ran["xread"] == len(others)
    assert ran["getex"] == 1 + len(others)  # one look each, and none of it by itself
    assert [cache.peek("k").source for cache in others] == ["l1"] * len(others)  # type: ignore[union-attr]


@pytest.mark.usefixtures("long_waits")
def test_a_large_value_is_looked_for_once_it_is_said_to_be_there(
    make: MakeCache, pool: ThreadPoolExecutor, client: redis.Redis
) -> None:
    first, other = make(**QUICK), make(**QUICK)
    slow = Slow("x" * 100_000)
    computing = pool.submit(first.fetch, "k", slow)
    assert slow.begun.wait(BOUND_S)
    waiting = pool.submit(other.fetch, "k", lambda: pytest.fail("a second computation"))
    waits(client, 1)
    slow.go_on.set()
    assert computing.result(BOUND_S).value == waiting.result(BOUND_S).value == slow.value


@pytest.mark.usefixtures("long_waits")
def test_a_value_of_before_an_invalidation_is_told_to_nobody(
    make: MakeCache, pool: ThreadPoolExecutor, client: redis.Redis
) -> None:
    """It is in L2, and its owner did not know; the log's tail comes with it, and says that there is more to know."""
    first, other, elsewhere = make(**QUICK), make(**QUICK), make(**QUICK)
    slow = Slow("old")
    computing = pool.submit(first.fetch, "k", slow)
    assert slow.begun.wait(BOUND_S)
    waiting = pool.submit(other.fetch, "k", lambda: "new")
    waits(client, 1)
    elsewhere.invalidate("k")
    slow.go_on.set()
    assert computing.result(BOUND_S).value == "old"
    assert waiting.result(BOUND_S).value == "new"


def test_an_outdated_entry_is_not_looked_for_before_the_lease(make: MakeCache, client: redis.Redis) -> None:
    """The lease's round trip reads the entry as well. Another that comes later finds it there, takes no lease, and has none to
    give back."""
    first, other = make(**QUICK), make(**QUICK)
    warm(first)
    assert other.get("k") == "old"
    first.invalidate("k")
    other.refresh()
    before = calls(client)
    assert first.fetch("k", lambda: "new") == Found("new", "no")
    assert (calls(client) - before)["getex"] == 1
    before = calls(client)
    assert other.fetch("k", lambda: pytest.fail("it is there")).source == "l2"
    ran = calls(client) - before
    assert ran["getex"] == 1
    assert ran["del"] == 0
    assert other.get_stats()["l2"]["hits"] == 2


@pytest.mark.parametrize("refused", ["by its caller", "for its type"])
def test_an_entry_that_is_there_and_will_not_do_is_computed(
    make: MakeCache, client: redis.Redis, namespace: str, refused: str
) -> None:
    """The lease was refused for the entry's sake; the second look takes it all the same."""
    first, other = make(**QUICK), make(**QUICK)
    warm(first)
    assert other.get("k") == "old"
    first.invalidate("k")
    other.refresh()
    first.fetch("k", lambda: "new")
    if refused == "by its caller":
        assert other.fetch("k", lambda: "newer", accept=lambda value: value == "newer").source == "no"
    else:
        assert other.fetch("k", lambda: 7, Kind(int)) == Found(7, "no")
    assert client.get(KeySpace(namespace).lease("k")) is None


def test_a_server_that_refuses_the_wait_is_looked_at_again_and_again(
    make: MakeCache, pool: ThreadPoolExecutor, client: redis.Redis, redis_url: str, namespace: str
) -> None:
    """As one whose users were given their rights before there was such a wait."""
    first, other = make(**QUICK), make(**QUICK)
    leases = other._flight.leases
    assert leases is not None
    client.execute_command("ACL", "SETUSER", "default", "-xread")
    try:
        slow = Slow("new")
        computing = pool.submit(first.fetch, "k", slow)
        assert slow.begun.wait(BOUND_S)
        waiting = pool.submit(other.fetch, "k", lambda: pytest.fail("a second computation"))
        until(lambda: not leases.hears_ends)
        slow.go_on.set()
        assert computing.result(BOUND_S).value == waiting.result(BOUND_S).value == "new"
        assert not other.degraded
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+xread")


def test_a_few_connections_are_not_waited_on(redis_url: str, namespace: str) -> None:
    """Other threads of the process need them."""
    from pipeline.cache import LocalCache, RedisCache

    cache = TwoTierCache(LocalCache(10), RedisCache(url=f"{redis_url}?max_connections=2", namespace=namespace))
    assert cache._flight.leases is not None
    assert not cache._flight.leases.hears_ends
    cache.close()
