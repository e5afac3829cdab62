"""The cache over a real server, ahead of time: entries fetched before they are asked for, computed before they end, and swept."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from faults import Clock, SteppedRedisCache, fill, once, shared, source

from pipeline.cache import MISS, Grace, Kind, LocalCache, RedisCache, TwoTierCache
from pipeline.cache.sweeper import BATCH, Sweeper

MakeCache = Callable[..., TwoTierCache]
KEYS = [f"k:{number}" for number in range(20)]


class ModelFailedError(Exception):
    """A computation's own."""


def calls_of(client: redis.Redis, command: str) -> int:
    stats: dict[str, Any] = client.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


# -- warm


def test_entries_come_in_one_round_trip_and_are_hits_after_it(here: TwoTierCache, there: TwoTierCache) -> None:
    """A new process has the fleet's entries; a key without one stays a miss."""
    for key in KEYS:
        fill(there, key, key)
    client = shared(here).raw()
    here.refresh()
    before = calls_of(client, "mget")
    assert here.warm(dict.fromkeys([*KEYS, "k:none"], Any)) == len(KEYS)
    assert calls_of(client, "mget") == before + 1
    assert [source(here, key) for key in KEYS] == ["l1"] * len(KEYS)
    assert here.get("k:7") == "k:7"
    assert calls_of(client, "mget") == before + 1
    assert here.lookup("k:none") is MISS


def test_what_was_invalidated_does_not_come(here: TwoTierCache, there: TwoTierCache) -> None:
    """Judged as at any read, by the tail that came with it: of another process's invalidation nothing was known here."""
    fill(there, "a")
    fill(there, "b", deps=("dep",))
    fill(there, "c")
    here.refresh()
    there.invalidate("a", "dep")
    assert here.warm({"a": Any, "b": Any, "c": Any}) == 1
    assert [source(here, key) for key in "abc"] == ["miss", "miss", "l1"]


def test_what_is_there_already_is_not_asked_for(here: TwoTierCache) -> None:
    """A newer value of this process's own is not written over."""
    fill(here, "a")
    assert here.warm({"a": Any}) == 0
    assert source(here, "a") == "l1"


def test_a_warm_entry_lives_no_longer_than_it_does_in_redis(
    here: TwoTierCache, there: TwoTierCache, wall: Clock, clock: Clock
) -> None:
    """Neither in L1 beyond its end, nor at all past it."""
    fill(there, "a", ttl=20, grace=Grace(100))
    fill(there, "b", ttl=5, grace=Grace(100))
    wall.tick(15)
    assert here.warm({"a": Any, "b": Any}) == 1
    clock.tick(6)
    assert "a" not in here.l1


def test_without_redis_nothing_comes_and_nothing_raises(unreachable: TwoTierCache) -> None:
    """Nor without a shared tier."""
    assert unreachable.warm({"a": Any}) == 0
    assert unreachable.left_s(["a"]) is None
    assert unreachable.sweep() is None
    alone = TwoTierCache(LocalCache(10))
    assert (alone.warm({"a": Any}), alone.left_s(["a"]), alone.sweep()) == (0, None, None)


@pytest.fixture
def unreachable() -> TwoTierCache:
    return TwoTierCache(LocalCache(10), RedisCache(url="redis://127.0.0.1:1/0", timeout_s=0.2))


# -- how long is left


def test_what_is_left_is_told_of_what_is_valid(here: TwoTierCache, there: TwoTierCache, wall: Clock) -> None:
    """0 of what would be a miss: it is missing, was invalidated, or has only its grace left."""
    fill(there, "a", ttl=100)
    fill(there, "b", ttl=100, deps=("dep",))
    fill(there, "c", ttl=10, grace=Grace(100))
    wall.tick(40)
    there.invalidate("dep")
    assert here.left_s(["a", "b", "c", "none"]) == {"a": pytest.approx(60), "b": 0, "c": 0, "none": 0}
    assert here.left_s([]) == {}


# -- ahead of the end


def test_an_entry_near_its_end_is_computed_anew_and_the_others_served_meanwhile(
    here: TwoTierCache, there: TwoTierCache, wall: Clock
) -> None:
    """The old value holds until the new one is there; then that one has its whole time."""
    fill(there, "a", "old", ttl=100)
    wall.tick(70)

    def compute() -> str:
        assert there.get("a") == "old"
        return "new"

    found = here.fetch("a", compute, Kind(ttl=100), least_s=50)
    assert (found.value, found.source) == ("new", "no")
    assert here.left_s(["a"]) == {"a": pytest.approx(100)}


def test_an_entry_with_enough_left_is_not_computed(here: TwoTierCache, there: TwoTierCache, wall: Clock) -> None:
    """The first process has renewed it for all."""
    fill(there, "a", "old", ttl=100)
    wall.tick(40)
    found = here.fetch("a", lambda: pytest.fail("it is computed"), Kind(ttl=100), least_s=50)
    assert (found.value, found.source) == ("old", "l2")


def test_two_that_renew_at_once_compute_once(here: TwoTierCache, there: TwoTierCache, wall: Clock) -> None:
    """One in the fleet, and the second gets the first one's value."""
    fill(there, "a", "old", ttl=100)
    wall.tick(90)
    computed, go_on, started = [], threading.Event(), threading.Event()

    def compute() -> str:
        computed.append(1)
        started.set()
        assert go_on.wait(20)
        return "new"

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(here.fetch, "a", compute, Kind(ttl=100), least_s=50)
        assert started.wait(20)
        second = pool.submit(there.fetch, "a", compute, Kind(ttl=100), least_s=50)
        go_on.set()
        assert {first.result(20).source, second.result(20).source} <= {"no", "joined", "l2"}
        assert first.result().value == second.result().value == "new"
    assert len(computed) == 1


def test_who_misses_meanwhile_joins_the_renewal(here: TwoTierCache, there: TwoTierCache, wall: Clock) -> None:
    """An entry that ends while it is renewed is not computed a second time."""
    fill(there, "a", "old", ttl=100)
    wall.tick(90)

    asked: list[Any] = []
    pool = ThreadPoolExecutor(1)

    def computing() -> str:
        assert there.l2 is not None
        there.l2.delete("a")
        here.l1.clear()
        asked.append(pool.submit(here.fetch, "a", lambda: pytest.fail("it is computed twice"), Kind(ttl=100)))
        return "new"

    assert here.fetch("a", computing, Kind(ttl=100), least_s=50).value == "new"
    assert asked[0].result(20).value == "new"
    pool.shutdown()


def test_a_renewal_that_fails_leaves_the_old_value_and_raises(here: TwoTierCache, there: TwoTierCache, wall: Clock) -> None:
    """The caller that renews must know of it, and one that only reads need not."""
    fill(there, "a", "old", ttl=100)
    wall.tick(90)

    def compute() -> str:
        raise ModelFailedError

    with pytest.raises(ModelFailedError):
        here.fetch("a", compute, Kind(ttl=100), least_s=50, grace=Grace(100))
    assert here.get("a") == there.get("a") == "old"


def test_a_renewal_that_an_invalidation_overtakes_is_not_served(here: TwoTierCache, there: TwoTierCache, wall: Clock) -> None:
    """As any computation: from old inputs, it is not for a caller that asks later."""
    fill(there, "a", "old", ttl=100)
    wall.tick(90)

    def compute() -> str:
        there.invalidate("a")
        return "from old inputs"

    here.fetch("a", compute, Kind(ttl=100), least_s=50)
    assert there.lookup("a") is MISS


# -- sweeping


def present(cache: TwoTierCache) -> int:
    l2 = shared(cache)
    return l2.count_present([*KEYS, "a", "b"])


def test_the_bytes_of_what_was_invalidated_go_and_no_others(here: TwoTierCache, there: TwoTierCache) -> None:
    """By key and by dependency; whatever pattern it was."""
    for number, key in enumerate(KEYS):
        fill(there, key, deps=("dep",) if number % 2 else ())
    fill(there, "b")
    there.invalidate("dep", "k:0")
    swept = here.sweep()
    assert swept is not None
    assert (swept.removed, swept.done) == (11, True)
    assert present(here) == 10
    assert [source(here, key) for key in ("k:1", "k:0", "k:2", "b")] == ["miss", "miss", "l2", "l2"]


def test_nothing_is_looked_at_while_nothing_was_invalidated(here: TwoTierCache, there: TwoTierCache) -> None:
    """A fleet at rest costs one command a run."""
    fill(there, "a")
    there.invalidate("b")
    assert (there.sweep() or pytest.fail("Redis is away")).looked_at == 1
    client = shared(here).raw()
    before = calls_of(client, "scan")
    swept = here.sweep()
    assert swept is not None
    assert (swept.looked_at, swept.done) == (0, True)
    assert calls_of(client, "scan") == before
    there.invalidate("a")
    assert (here.sweep() or pytest.fail("Redis is away")).removed == 1


def test_a_pass_goes_on_where_the_last_run_ended_in_any_process(here: TwoTierCache, there: TwoTierCache) -> None:
    """Each run is short; together they have seen everything."""
    names = [f"many:{number}" for number in range(5 * BATCH)]
    for name in names:
        fill(there, name)
    there.invalidate("many:*")
    runs = removed = 0
    while True:
        swept = (here, there)[runs % 2].sweep(0.0)
        assert swept is not None
        runs += 1
        removed += swept.removed
        if swept.done:
            break
        assert runs < 10_000
    assert runs > 1
    assert removed == len(names)


def test_what_was_written_after_it_was_judged_stays(here: TwoTierCache, there: TwoTierCache) -> None:
    """Else a sweep would cost a caller the answer that it had just computed."""
    fill(there, "a", "old")
    there.invalidate("a")
    stepped = AfterReadingMany(shared(here), once(lambda: fill(there, "a", "new")))
    swept = Sweeper(stepped, here._coherence, clock=here._clock).sweep(1.0)  # type: ignore[arg-type]  # the tier, with a step in it
    assert swept.removed == 0
    assert there.l2 is not None
    assert there.l2.get("a") == "new"


class AfterReadingMany:
    """The tier, and what happens right after it has read several."""

    def __init__(self, l2: SteppedRedisCache, step: Callable[[], Any]) -> None:
        self._l2, self._step = l2, step

    def read_many(self, keys: list[str]) -> Any:
        answer = self._l2.read_many(keys)
        self._step()
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._l2, name)


def test_entries_of_a_log_that_is_gone_go_and_those_of_none_stay(here: TwoTierCache, there: TwoTierCache) -> None:
    """A Redis that lost its log has voided them all. No log can judge entries that a RedisCache by itself has written."""
    fill(there, "a")
    shared(there).set("b", "by itself")
    client = shared(here).raw()
    client.delete(shared(here).keys.tail, shared(here).keys.records)
    here.refresh()
    swept = here.sweep()
    assert swept is not None
    assert (swept.removed, present(here)) == (1, 1)
    assert shared(here).get("b") == "by itself"


def test_bytes_that_are_no_entry_and_another_namespace_stay(here: TwoTierCache, make: MakeCache) -> None:
    """It removes the entries that it can judge."""
    client = shared(here).raw()
    name = shared(here).keys.entry("a")
    client.set(name, b"garbage", ex=60)
    fill(here, "b")
    here.invalidate("*")
    swept = here.sweep()
    assert swept is not None
    assert swept.removed == 1
    assert client.get(name) == b"garbage"
