"""Which threads wait for which: a circle is an error at once, and nothing else is."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pipeline.cache import AsOf, CyclicComputationError, TwoTierCache
from pipeline.cache.flight.waits import WAITS, Flight, Waits

BOUND_S = 20.0


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(30) as pool:
        yield pool


def needing(cache: TwoTierCache, key: str, *needs: str, meet: threading.Barrier | None = None) -> Callable[[], str]:
    """A computation that, once all who meet have begun, asks for each of `needs` in turn."""

    def compute() -> str:
        if meet is not None:
            meet.wait(BOUND_S)
        return key + "".join(cache.get_or_compute(need, lambda need=need: need) for need in needs)

    return compute


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_a_circle_of_threads_is_an_error_at_once_that_names_it(pool: ThreadPoolExecutor, count: int) -> None:
    """Each computes one key and needs the next one's. No thread waits for a time to run out: it would be for a minute."""
    cache = TwoTierCache()
    meet = threading.Barrier(count)
    keys = [f"key:{number}" for number in range(count)]
    asked = [
        pool.submit(cache.get_or_compute, key, needing(cache, key, keys[(number + 1) % count], meet=meet))
        for number, key in enumerate(keys)
    ]
    for each in asked:
        with pytest.raises(CyclicComputationError) as told:
            each.result(BOUND_S)
        named = str(told.value).rpartition(": ")[0], [key for key in keys if repr(key) in str(told.value)]
        assert named[1] == keys
    chain = str(told.value)[str(told.value).index("'") :].split(" -> ")
    assert chain[0] == chain[-1]
    follows = {repr(key): repr(keys[(number + 1) % count]) for number, key in enumerate(keys)}
    assert all(follows[key] == following for key, following in itertools.pairwise(chain))
    assert cache.get_or_compute("key:0", lambda: "now") == "now", "something of it is left"


def test_a_circle_may_lead_through_several_caches(pool: ThreadPoolExecutor) -> None:
    one, other = TwoTierCache(), TwoTierCache()
    meet = threading.Barrier(2)
    asked = [
        pool.submit(one.get_or_compute, "a", needing(other, "a", "b", meet=meet)),
        pool.submit(other.get_or_compute, "b", needing(one, "b", "a", meet=meet)),
    ]
    for each in asked:
        with pytest.raises(CyclicComputationError, match="'a'"):
            each.result(BOUND_S)


def test_a_circle_may_lead_through_what_a_thread_computes_further_out(pool: ThreadPoolExecutor) -> None:
    """One thread computes `outer` and for it `inner`, which needs a key that another thread computes, which needs `outer`."""
    cache = TwoTierCache()
    meet = threading.Barrier(2)
    nested = needing(cache, "inner", "theirs", meet=meet)
    asked = [
        pool.submit(cache.get_or_compute, "outer", lambda: cache.get_or_compute("inner", nested)),
        pool.submit(cache.get_or_compute, "theirs", needing(cache, "theirs", "outer", meet=meet)),
    ]
    for each in asked:
        with pytest.raises(CyclicComputationError, match="outer"):
            each.result(BOUND_S)


def test_who_catches_it_may_go_on(pool: ThreadPoolExecutor) -> None:
    """It is an error of the call that would have closed the circle, and of no caller whose value came about all the same."""
    cache = TwoTierCache()
    meet = threading.Barrier(2)

    def careful(mine: str, theirs: str) -> str:
        meet.wait(BOUND_S)
        try:
            return mine + cache.get_or_compute(theirs, lambda: theirs)
        except CyclicComputationError:
            return mine + " alone"

    asked = [
        pool.submit(cache.get_or_compute, *pair) for pair in (("a", lambda: careful("a", "b")), ("b", lambda: careful("b", "a")))
    ]
    assert sorted(each.result(BOUND_S) for each in asked) in (["a alone", "ba alone"], ["ab alone", "b alone"])


def test_what_only_looks_like_a_circle_is_none(pool: ThreadPoolExecutor) -> None:
    """Diamonds, many who wait for one, and a chain of them: each comes to its end."""
    cache = TwoTierCache()
    begun, go_on = threading.Event(), threading.Event()

    def bottom() -> str:
        begun.set()
        assert go_on.wait(BOUND_S)
        return "."

    asked: list[Any] = [pool.submit(cache.get_or_compute, "bottom", bottom)]
    assert begun.wait(BOUND_S)
    asked += [pool.submit(cache.get_or_compute, side, needing(cache, side, "bottom")) for side in ("left", "right") * 3]
    asked += [pool.submit(cache.get_or_compute, f"top:{n}", needing(cache, "top", "left", "right", "bottom")) for n in range(4)]
    asked += [pool.submit(cache.get_or_compute, "top:0", lambda: pytest.fail("computed twice")) for _ in range(8)]
    go_on.set()
    assert {each.result(BOUND_S) for each in asked} == {".", "left.", "right.", "topleft.right.."}


def test_a_recursion_over_other_keys_is_none() -> None:
    """As a function that is cached and calls itself."""
    cache = TwoTierCache()

    def sum_to(number: int) -> int:
        return cache.get_or_compute(f"n:{number}", lambda: number + sum_to(number - 1) if number else 0)

    assert sum_to(20) == 210


def test_many_threads_over_many_keys_never_see_one(pool: ThreadPoolExecutor) -> None:
    """They need each other's values all the time, always of a higher number: there can be no circle."""
    cache = TwoTierCache()

    def value(number: int) -> int:
        return cache.get_or_compute(
            f"n:{number}", lambda: 1 + sum(value(other) for other in (number + 1, number + 2, number + 5) if other < 40), ttl=0.01
        )

    expected: dict[int, int] = {}
    for number in range(39, -1, -1):
        expected[number] = 1 + sum(expected[other] for other in (number + 1, number + 2, number + 5) if other < 40)
    asked = [pool.submit(value, start % 25) for start in range(300)]
    assert [each.result(BOUND_S) for each in asked] == [expected[start % 25] for start in range(300)]


def test_no_thread_waits_for_one_that_has_ended(pool: ThreadPoolExecutor) -> None:
    """A thread that is being woken still stands there as waiting: it is no way on."""
    waits = Waits()
    theirs, mine = Flight("theirs", (), AsOf("e", 1)), Flight("mine", (), AsOf("e", 1))
    theirs.thread = pool.submit(threading.get_ident).result(BOUND_S)
    waits._flights[theirs.thread] = (mine,)
    with pytest.raises(CyclicComputationError, match="'mine' -> 'theirs' -> 'mine'"), waits.waiting(theirs):
        pytest.fail("it waits")
    mine.end()
    with waits.waiting(theirs):
        assert waits._flights[threading.get_ident()] == (theirs,)
    assert threading.get_ident() not in waits._flights


def test_a_thread_that_is_interrupted_while_it_waits_waits_for_both() -> None:
    """A signal handler's own wait comes on top of it."""
    waits = Waits()
    outer, inner = Flight("outer", (), AsOf("e", 1)), Flight("inner", (), AsOf("e", 1))
    outer.thread = inner.thread = -1
    me = threading.get_ident()
    with waits.waiting(outer):
        with waits.waiting(inner):
            assert waits._flights[me] == (outer, inner)
        assert waits._flights[me] == (outer,)
    assert waits._flights == {}


def test_a_flight_wakes_all_whenever_they_came() -> None:
    """Before its end, after it, and in the very moment."""
    for _ in range(50):
        flight = Flight("k", (), AsOf("e", 1))
        with ThreadPoolExecutor(8) as pool:
            waiting = [pool.submit(flight.wait, BOUND_S) for _ in range(8)]
            flight.end()
            assert all(each.result(BOUND_S) for each in waiting)
    assert not Flight("k", (), AsOf("e", 1)).wait(0.01)


def test_nothing_is_left_of_threads_that_waited() -> None:
    assert WAITS._flights == {}
