"""A value computed from a match, over any number of steps, is a miss as well."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from faults import fill, shared, source
from polling import until

from pipeline.cache import MISS, TwoTierCache

MakeCache = Callable[..., TwoTierCache]
BOUND_S = 20.0


def chain(cache: TwoTierCache) -> None:
    """d from c from b from a; and z from nothing."""
    fill(cache, "z", 0)
    fill(cache, "a", 1)
    cache.get_or_compute("b", lambda: cache.get("a") + 1, deps=("a",))
    cache.get_or_compute("c", lambda: cache.get("b") + 1, deps=("b", "z"))
    cache.get_or_compute("d", lambda: cache.get("c") + 1, deps=("c",))


@pytest.mark.parametrize("at", ["here", "there", "there from L1"])
def test_an_invalidation_reaches_the_end_of_the_chain(make: MakeCache, at: str) -> None:
    """In the process that computed, in another that has read it from L2, and in one that has it in L1."""
    here, there = make(), make()
    chain(here)
    if at == "there from L1":
        assert [there.get(key) for key in "abcd"] == [1, 2, 3, 4]
    elif at == "there":
        assert there.get("z") == 0
    here.invalidate("a")
    cache = here if at == "here" else there
    cache.refresh()
    assert source(cache, "z") in ("l1", "l2")
    assert [source(cache, key) for key in "abcd"] == ["miss"] * 4


def test_it_reaches_it_where_the_middle_is_in_l2_alone(make: MakeCache) -> None:
    """Another process has computed b, and L1 has no room for it: b's own deps stand in its entry."""
    here, there = make(), make()
    fill(here, "a", 1)
    fill(here, "b", 2, deps=("a",))
    fill(there, "c", 3, deps=("b",))
    assert "b" not in there.l1
    here.invalidate("a")
    there.l1.clear()
    assert there.get("c") is MISS


def test_it_reaches_it_without_a_server() -> None:
    """The rules of a process by itself are the same."""
    cache = TwoTierCache()
    chain(cache)
    cache.invalidate("a")
    assert [cache.get(key) for key in "zabcd"] == [0, MISS, MISS, MISS, MISS]


def test_what_was_invalidated_two_steps_away_is_not_joined(here: TwoTierCache, there: TwoTierCache) -> None:
    """A thread asks while another computes the end of the chain from a value that was invalidated before it asked."""
    begun, go_on = threading.Event(), threading.Event()
    fill(here, "a", "old")

    def compute() -> str:
        from_b: str = here.get_or_compute("b", lambda: here.get("a"), deps=("a",))
        begun.set()
        assert go_on.wait(BOUND_S)
        return from_b

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(here.fetch, "c", compute, deps=("b",))
        assert begun.wait(BOUND_S)
        assert there.invalidate("a").durable
        second = pool.submit(here.fetch, "c", lambda: "new", deps=("b",))
        until(lambda: second.done() or bool(here._flight._flights["c"]._bells))
        go_on.set()
        assert first.result(BOUND_S).value == "old"
        assert second.result(BOUND_S).value == "new"
    assert here.get("c") == "new"


def test_a_dep_that_redis_cannot_tell_of_costs_no_answer(here: TwoTierCache) -> None:
    """The server goes away while the value is computed."""

    def compute() -> int:
        shared(here).connection.breaker.failed()
        return 3

    assert here.get_or_compute("c", compute, deps=("never-kept",)) == 3
    assert here.peek("c") is not MISS
