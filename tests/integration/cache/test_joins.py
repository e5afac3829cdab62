"""Which computations a caller may join: judged by the log as it stood when the caller asked, not by what its process happened to
know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from faults import Clock
from polling import until
from servers import ValkeyServer
from slow import BOUND_S, Slow

from pipeline.cache import Found, LocalCache, RedisCache, TwoTierCache

MakeCache = Callable[..., TwoTierCache]

WITHOUT_A_LOOK = {
    "a value that L2 may serve for too short a time": {"least_s": 5.0},
    "a value of L1 that will not do": {"accept": lambda value: value != "of another release"},
}
"""Ways to ask without having read the log."""


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(10) as pool:
        yield pool


def waits(cache: TwoTierCache) -> int:
    """How many lookups have missed so far: a caller that has missed is about to wait."""
    return int(cache.get_stats()["l1"]["misses"])


def with_a_lease(cache: TwoTierCache) -> TwoTierCache:
    """It holds something for the key, and asked the log this very moment: for a second L1 need not ask."""
    cache.set("k", "of another release", ttl=4)
    assert cache.refresh()
    return cache


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("pattern", ["k", "dep", "*"])
@pytest.mark.parametrize("options", WITHOUT_A_LOOK.values(), ids=WITHOUT_A_LOOK)
def test_nobody_joins_a_thread_that_began_before_an_invalidation(
    make: MakeCache, pool: ThreadPoolExecutor, there: TwoTierCache, options: dict[str, Any], pattern: str, strict: bool
) -> None:
    """Whether or not this process has heard of it: its return was before the asking."""
    here = with_a_lease(make(strict=strict))
    old, new = Slow("old"), Slow("new")
    first = pool.submit(here.fetch, "k", old, deps=("dep",), **options)
    assert old.begun.wait(BOUND_S)
    assert there.invalidate(pattern).durable
    second = pool.submit(here.fetch, "k", new, deps=("dep",), **options)
    assert new.begun.wait(BOUND_S), "it waits for the old one"
    third = pool.submit(here.fetch, "k", lambda: pytest.fail("a third computation"), deps=("dep",), **options)
    old.go_on.set()
    assert first.result(BOUND_S).value == "old"  # this caller asked before
    new.go_on.set()
    assert [each.result(BOUND_S).value for each in (second, third)] == ["new", "new"]


@pytest.mark.parametrize("options", WITHOUT_A_LOOK.values(), ids=WITHOUT_A_LOOK)
def test_an_invalidation_of_something_else_forbids_no_join(
    make: MakeCache, pool: ThreadPoolExecutor, there: TwoTierCache, options: dict[str, Any]
) -> None:
    """The log is asked and has nothing against it: one computation, as ever."""
    here = with_a_lease(make())
    slow = Slow("computed")
    asked = [pool.submit(here.fetch, "k", slow, deps=("dep",), **options)]
    assert slow.begun.wait(BOUND_S)
    there.invalidate("other:*")
    asked += [pool.submit(here.fetch, "k", slow, deps=("dep",), **options) for _ in range(3)]
    until(lambda: len(here._flight._flights["k"]._bells) == 3)
    slow.go_on.set()
    assert sorted(each.result(BOUND_S).source for each in asked) == ["joined"] * 3 + ["no"]
    assert slow.calls == 1


def test_a_join_is_judged_by_what_either_side_depends_on(
    make: MakeCache, pool: ThreadPoolExecutor, there: TwoTierCache, clock: Clock
) -> None:
    """A caller may not know from which keys the other one's value is computed: it may wait for it, and is not given it."""
    here = make()
    assert here.refresh()
    old = Slow("from the old dep")
    first = pool.submit(here.fetch, "k", old, deps=("dep",))
    assert old.begun.wait(BOUND_S)
    there.invalidate("dep")
    clock.tick(2.0)
    second = pool.submit(here.fetch, "k", lambda: "from the new one")
    until(lambda: waits(here) == 2)
    old.go_on.set()
    assert second.result(BOUND_S).value == "from the new one"
    assert first.result(BOUND_S).value == "from the old dep"


def test_nobody_joins_a_thread_that_waits_for_what_was_invalidated_elsewhere(
    make: MakeCache, pool: ThreadPoolExecutor, there: TwoTierCache
) -> None:
    """It began to wait for another process before that; a caller that asks after it waits for neither."""
    here, third = with_a_lease(make()), make()
    old, new = Slow("old"), Slow("new")
    theirs = pool.submit(third.fetch, "k", old, least_s=5.0)
    assert old.begun.wait(BOUND_S)
    mine = pool.submit(here.fetch, "k", new, least_s=5.0)
    until(lambda: "k" in here._flight._flights)
    there.invalidate("k")
    again = pool.submit(here.fetch, "k", new, least_s=5.0)
    assert new.begun.wait(BOUND_S), "both wait for the old one"
    new.go_on.set()
    assert again.result(BOUND_S).value == "new"
    assert mine.result(BOUND_S).value == "new"
    old.go_on.set()
    assert theirs.result(BOUND_S).value == "old"


@pytest.mark.parametrize("strict", [False, True])
def test_with_the_log_out_of_reach_a_strict_cache_joins_no_computation(pool: ThreadPoolExecutor, strict: bool) -> None:
    """No process can know of invalidations meanwhile. The others join by what their process knows, as L1 serves by it."""
    with ValkeyServer() as server:
        clock = Clock()
        l2 = RedisCache(url=server.url, namespace="away")
        here = with_a_lease(TwoTierCache(LocalCache(clock=clock), l2, strict=strict, clock=clock))
        slow = Slow("theirs")
        first = pool.submit(here.fetch, "k", slow, least_s=5.0)
        assert slow.begun.wait(BOUND_S)
        server.stop()
        second = pool.submit(here.fetch, "k", lambda: "mine", least_s=5.0)
        if not strict:
            until(lambda: len(here._flight._flights["k"]._bells) == 1)
            slow.go_on.set()
        expected = Found("mine", "no", True) if strict else Found("theirs", "joined", True)
        assert second.result(BOUND_S) == expected
        slow.go_on.set()
        assert first.result(BOUND_S).value == "theirs"
        here.close()


@pytest.mark.parametrize("pattern", ["k", "dep", "*"])
def test_nobody_joins_a_task_that_was_entered_before_an_invalidation(make: MakeCache, there: TwoTierCache, pattern: str) -> None:
    """Whether or not the producer has heard of it. The next caller takes the task's place, and the others join that one."""
    here = with_a_lease(make())
    assert here.in_flight is not None
    assert here.in_flight.enter("k", ("dep",), "old") is None
    assert there.invalidate(pattern).durable
    assert here.in_flight.enter("k", ("dep",), "new") is None
    assert here.in_flight.enter("k", ("dep",), "late") == "new"
    assert there.in_flight is not None
    assert there.in_flight.enter("k", ("dep",), "later") == "new"
    there.invalidate("other")
    assert here.in_flight.enter("k", ("dep",), "last") == "new"


def test_a_task_is_not_joined_by_a_caller_that_cannot_read_the_log() -> None:
    """The claim may still be read, by a caller that finds the server again in the next moment: invalidations in between are not
    known."""
    with ValkeyServer() as server:
        clock = Clock()
        cache = with_a_lease(TwoTierCache(LocalCache(clock=clock), RedisCache(url=server.url, namespace="away"), clock=clock))
        assert cache.in_flight is not None
        assert cache.in_flight.enter("k", (), "first") is None
        assert cache.in_flight.enter("k", (), "second") == "first"
        server.stop()
        assert cache.in_flight.enter("k", (), "third") is None
        cache.close()
