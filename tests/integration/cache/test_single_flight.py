"""One computation a key, among threads and among processes; which callers wait, for how long, and what they must not be given."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest
import redis
from broken_off import broken_off_at
from faults import Clock
from polling import until
from slow import BOUND_S, Slow

from pipeline.cache import MISS, AsOf, CyclicComputationError, Found, Kind, LocalCache, RedisCache, TwoTierCache
from pipeline.cache.flight.leases import BRIEF_S
from pipeline.cache.keys import KeySpace

MakeCache = Callable[..., TwoTierCache]


@pytest.fixture
def pool() -> Any:
    with ThreadPoolExecutor(40) as pool:
        yield pool


def waits(cache: TwoTierCache, key: str) -> int:
    """How many lookups have missed so far: a caller that has missed is about to wait."""
    return int(cache.get_stats()["l1"]["misses"])


@pytest.mark.parametrize("shared", [True, False], ids=["with L2", "L1 only"])
def test_of_many_threads_one_computes(make: MakeCache, pool: ThreadPoolExecutor, shared: bool) -> None:
    """The others have its value, each its own copy, and say so."""
    cache = make() if shared else TwoTierCache()
    slow = Slow({"list": [1]})
    asked = [pool.submit(cache.fetch, "k", slow) for _ in range(20)]
    until(lambda: waits(cache, "k") == 20)
    slow.go_on.set()
    found = [each.result(BOUND_S) for each in asked]
    assert slow.calls == 1
    assert sorted(each.source for each in found).count("no") == 1
    assert {each.source for each in found} <= {"no", "joined", "l1", "l2"}
    found[0].value["list"].append(2)
    assert [each.value for each in found[1:]] == [{"list": [1]}] * 19


def test_of_many_processes_one_computes(make: MakeCache, pool: ThreadPoolExecutor) -> None:
    """Caches share nothing here but the server."""
    caches = [make() for _ in range(8)]
    slow = Slow()
    first = pool.submit(caches[0].fetch, "k", slow)
    assert slow.begun.wait(BOUND_S)
    others = [pool.submit(cache.fetch, "k", lambda: pytest.fail("a second computation")) for cache in caches[1:]]
    until(lambda: all(waits(cache, "k") == 1 for cache in caches[1:]))
    slow.go_on.set()
    assert first.result(BOUND_S) == Found("computed", "no")
    assert {each.result(BOUND_S).source for each in others} == {"joined"}
    assert sum(cache.get_stats()["joined"] for cache in caches) == 7


def test_nothing_is_left_of_a_computation_that_ended(make: MakeCache, client: redis.Redis, namespace: str) -> None:
    """No lease, and no thread for longer than it takes to see that there is nothing to keep."""
    before = set(threading.enumerate())
    cache = make(lease_s=0.5)
    cache.get_or_compute("k", lambda: 1)
    assert client.exists(KeySpace(namespace).lease("k")) == 0
    until(lambda: not any(thread.name == "lease-keeper" for thread in set(threading.enumerate()) - before))


def test_an_error_is_shared_by_the_threads_that_waited_and_is_not_cached(here: TwoTierCache, pool: ThreadPoolExecutor) -> None:
    slow = Slow()
    slow.failure = KeyError("no input")
    asked = [pool.submit(here.fetch, "k", slow) for _ in range(5)]
    until(lambda: waits(here, "k") == 5)
    slow.go_on.set()
    for each in asked:
        with pytest.raises(KeyError, match="no input"):
            each.result(BOUND_S)
    assert slow.calls == 1
    assert here.fetch("k", lambda: "now").value == "now"


def test_who_waits_with_another_type_in_mind_computes_for_himself(here: TwoTierCache, pool: ThreadPoolExecutor) -> None:
    """Another thread's value of another type under the key is of no use to the caller, and no reason to fail."""
    slow = Slow("text")
    first = pool.submit(here.fetch, "k", slow)
    assert slow.begun.wait(BOUND_S)
    waiting = pool.submit(here.fetch, "k", lambda: AsOf("mine", 7), Kind(AsOf))
    until(lambda: waits(here, "k") == 2)
    slow.go_on.set()
    assert first.result(BOUND_S).value == "text"
    assert waiting.result(BOUND_S) == Found(AsOf("mine", 7), "no")


def test_an_error_lets_the_next_process_try(here: TwoTierCache, there: TwoTierCache, pool: ThreadPoolExecutor) -> None:
    """Its failure may be its own: another one does not fail unseen."""
    slow = Slow()
    slow.failure = KeyError("mine")
    failing = pool.submit(here.fetch, "k", slow)
    assert slow.begun.wait(BOUND_S)
    waiting = pool.submit(there.fetch, "k", lambda: "theirs")
    until(lambda: waits(there, "k") == 1)
    slow.go_on.set()
    with pytest.raises(KeyError):
        failing.result(BOUND_S)
    assert waiting.result(BOUND_S) == Found("theirs", "no")


def test_a_thread_that_is_stopped_leaves_the_computation_to_another(here: TwoTierCache, pool: ThreadPoolExecutor) -> None:
    """A soft time limit or Ctrl-C concerns the one it meets."""
    slow = Slow()
    slow.failure = KeyboardInterrupt()
    stopped = pool.submit(here.fetch, "k", slow)
    assert slow.begun.wait(BOUND_S)
    waiting = pool.submit(here.fetch, "k", lambda: "mine")
    until(lambda: waits(here, "k") == 2)
    slow.go_on.set()
    with pytest.raises(KeyboardInterrupt):
        stopped.result(BOUND_S)
    assert waiting.result(BOUND_S).value == "mine"


@pytest.mark.parametrize("shared", [True, False], ids=["with L2", "L1 only"])
def test_a_thread_that_is_stopped_at_any_step_holds_up_no_other(make: MakeCache, pool: ThreadPoolExecutor, shared: bool) -> None:
    """A signal may raise before the thread computes, while it takes leave, or when it tells the others. It costs them a lease at
    most."""
    for step in range(1, 300):
        cache = make(wait_s=600, lease_s=0.1) if shared else TwoTierCache(wait_s=600)
        stopped = broken_off_at(
            step,
            lambda: cache.fetch(f"k:{step}", lambda: "value"),  # noqa: B023 - called in this very round
            *("flight/single.py", "flight/seeking.py", "flight/waits.py", "flight/leases.py"),
        )
        assert not cache._flight._flights
        assert pool.submit(cache.fetch, f"k:{step}", lambda: "value").result(BOUND_S).value == "value"
        if not stopped:
            assert step > 20
            return
    pytest.fail("it has no end")


def test_the_death_of_the_owner_costs_one_lease(make: MakeCache, client: redis.Redis, namespace: str) -> None:
    """A killed process does not give back its lease: it runs out, and one of the waiting callers takes over."""
    cache = make()
    client.set(KeySpace(namespace).lease("k"), "killed " + tail_of(cache), px=300)
    began = time.monotonic()
    assert cache.fetch("k", lambda: "mine") == Found("mine", "no")
    assert 0.2 <= time.monotonic() - began < BOUND_S


def test_a_long_lease_is_short_until_its_process_was_held_up(
    make: MakeCache, pool: ThreadPoolExecutor, client: redis.Redis, namespace: str, clock: Clock
) -> None:
    """A death costs about a second, however long a lease may be. A process in which no thread ran for so long would lose each
    lease, so that others computed what it computes: its leases are as long as they may be."""
    cache = make(lease_s=30.0)
    slow = Slow()
    computing = pool.submit(cache.fetch, "k", slow)
    assert slow.begun.wait(BOUND_S)
    name = KeySpace(namespace).lease("k")
    with cache.in_flight.running("k", "task") if cache.in_flight else nullcontext():
        for _ in range(15):
            assert 0 < client.pttl(name) <= BRIEF_S * 1000
            time.sleep(0.1)
        until(lambda: clock.tick(1.0) or client.pttl(name) > BRIEF_S * 1000)
    slow.go_on.set()
    computing.result(BOUND_S)


def test_a_lease_does_not_run_out_while_its_owner_computes(make: MakeCache, pool: ThreadPoolExecutor) -> None:
    """However short it is: another process waits for as long as the owner lives."""
    here, there = make(lease_s=0.3), make(lease_s=0.3)
    slow = Slow()
    first = pool.submit(here.fetch, "k", slow)
    assert slow.begun.wait(BOUND_S)
    second = pool.submit(there.fetch, "k", lambda: pytest.fail("a second computation"))
    with pytest.raises(TimeoutError):
        second.result(1.0)  # three leases
    slow.go_on.set()
    assert (first.result(BOUND_S).source, second.result(BOUND_S).source) == ("no", "joined")


def test_a_lease_is_kept_although_the_last_one_has_just_ended(make: MakeCache, pool: ThreadPoolExecutor) -> None:
    """What keeps leases alive had nothing to do a moment ago, and must not have gone to sleep for longer than this one lasts."""
    here, there = make(lease_s=0.5), make(lease_s=0.5)
    here.fetch("before", lambda: "value")
    slow = Slow()
    first = pool.submit(here.fetch, "k", slow)
    assert slow.begun.wait(BOUND_S)
    second = pool.submit(there.fetch, "k", lambda: pytest.fail("a second computation"))
    with pytest.raises(TimeoutError):
        second.result(1.5)
    slow.go_on.set()
    assert (first.result(BOUND_S).source, second.result(BOUND_S).source) == ("no", "joined")


@pytest.mark.parametrize("where", ["thread", "process"])
def test_who_has_waited_for_long_enough_computes_for_himself(
    make: MakeCache, pool: ThreadPoolExecutor, clock: Clock, where: str
) -> None:
    """A computation that never ends holds up no caller for ever."""
    here = make(wait_s=0.2)
    other = here if where == "thread" else make(wait_s=5.0)
    stuck = Slow()
    never = pool.submit(here.fetch, "k", stuck)
    assert stuck.begun.wait(BOUND_S)
    waiting = pool.submit(other.fetch, "k", lambda: "mine")
    if where == "process":
        until(lambda: waits(other, "k") == 1)
        with pytest.raises(TimeoutError):
            waiting.result(0.3)
        clock.tick(6.0)
    assert waiting.result(BOUND_S) == Found("mine", "no")
    assert other.get_stats()["waited_out"] == 1
    stuck.go_on.set()
    never.result(BOUND_S)


@pytest.mark.parametrize("where", ["thread", "process"])
@pytest.mark.parametrize("pattern", ["k", "dep", "*"])
def test_nobody_waits_for_a_computation_from_before_an_invalidation(
    make: MakeCache, pool: ThreadPoolExecutor, clock: Clock, where: str, pattern: str
) -> None:
    """Promise 2: a caller that asks after it has returned is not given a value that was begun before, and does not wait for it
    either."""
    here, there = make(), make()
    asking = here if where == "thread" else there
    old = Slow("from old inputs")
    first = pool.submit(here.fetch, "k", old, deps=("dep",))
    assert old.begun.wait(BOUND_S)
    there.invalidate(pattern)
    clock.tick(2.0)
    new = Slow("from new inputs")
    second = pool.submit(asking.fetch, "k", new, deps=("dep",))
    assert new.begun.wait(BOUND_S), "it waits for the old one"
    third = pool.submit(asking.fetch, "k", lambda: pytest.fail("a third computation"), deps=("dep",))
    old.go_on.set()
    assert first.result(BOUND_S).value == "from old inputs"  # this caller asked before
    new.go_on.set()
    assert [each.result(BOUND_S).value for each in (second, third)] == ["from new inputs"] * 2
    clock.tick(2.0)
    assert [cache.get("k") for cache in (here, there)] == ["from new inputs"] * 2


def test_a_computation_may_ask_for_its_own_key(here: TwoTierCache) -> None:
    """It would wait for itself."""
    assert here.get_or_compute("k", lambda: here.get_or_compute("k", lambda: "inner") + "!") == "inner!"


def test_two_computations_that_need_each_other_fail_at_once(make: MakeCache, pool: ThreadPoolExecutor) -> None:
    """In two threads of a process: waiting would be for nothing. Their leases of the fleet are given back."""
    cache = make(wait_s=600)
    meet = threading.Barrier(2)

    def needing(key: str) -> object:
        meet.wait(BOUND_S)
        return cache.get_or_compute(key, lambda: pytest.fail("it is being computed"))

    asked = [pool.submit(cache.fetch, key, lambda need=need: needing(need)) for key, need in (("a", "b"), ("b", "a"))]
    for each in asked:
        with pytest.raises(CyclicComputationError, match=r"'a'.*'b'"):
            each.result(BOUND_S)
    assert cache.fetch("a", lambda: "now") == Found("now", "no")


def test_who_waits_in_the_fleet_is_in_no_circle(make: MakeCache, pool: ThreadPoolExecutor) -> None:
    """A thread that waits for one of this process, which waits for another process, has no thread waiting for it."""
    here, there = make(), make()
    theirs = Slow("theirs")
    first = pool.submit(there.fetch, "far", theirs)
    assert theirs.begun.wait(BOUND_S)
    near = pool.submit(here.fetch, "near", lambda: here.get_or_compute("far", lambda: pytest.fail("computed twice")))
    until(lambda: waits(here, "far") == 2)
    others = [pool.submit(here.fetch, key, lambda: pytest.fail("computed twice")) for key in ("near", "far") * 3]
    until(lambda: waits(here, "far") == 8)
    theirs.go_on.set()
    assert {each.result(BOUND_S).value for each in (first, near, *others)} == {"theirs"}


def test_a_lease_that_is_no_claim_holds_up_nobody(here: TwoTierCache, client: redis.Redis, namespace: str) -> None:
    client.set(KeySpace(namespace).lease("k"), b"\xff foreign")
    assert here.fetch("k", lambda: "mine") == Found("mine", "no")


def test_what_is_cheap_asks_nobody(make: MakeCache, client: redis.Redis, namespace: str) -> None:
    """A lease that another process holds is not even looked at."""
    cache = make()
    client.set(KeySpace(namespace).lease("k"), "another " + tail_of(cache), px=60_000)
    assert cache.fetch("k", lambda: 1, single_flight=False) == Found(1, "no")
    cache.fill("k", 2, as_of=cache.as_of())
    assert (cache.get("k"), make().get("k")) == (2, 2)


def test_a_fill_from_inputs_that_were_invalidated_meanwhile_is_not_kept(make: MakeCache) -> None:
    """By the key itself, and by what it was computed from."""
    cache = make()
    as_of = cache.as_of()
    make().invalidate("k", "input")
    cache.fill("k", "old", as_of=as_of)
    cache.fill("other", "old", deps=("input",), as_of=as_of)
    assert (make().get("k"), make().get("other")) == (MISS, MISS), "what this process had not read yet is judged at the next look"
    cache.refresh()
    assert (cache.get("k"), cache.get("other")) == (MISS, MISS)
    cache.fill("k", "new", as_of=cache.as_of())
    assert cache.get("k") == "new"


def test_without_the_server_each_process_computes_once(clock: Clock) -> None:
    """No server can be asked: its threads still share."""
    cache = TwoTierCache(LocalCache(10), RedisCache(url="redis://127.0.0.1:1/0"))
    slow = Slow()
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(cache.fetch, "k", slow) for _ in range(4)]
        until(lambda: waits(cache, "k") >= 4)
        slow.go_on.set()
        assert {each.result(BOUND_S).value for each in asked} == {"computed"}
    assert slow.calls == 1


@pytest.mark.parametrize(("negative_ttl", "kept"), [(None, True), (5, True), (0, False)])
def test_that_there_is_nothing_is_kept_for_a_time_of_its_own(
    here: TwoTierCache, client: redis.Redis, namespace: str, negative_ttl: float | None, kept: bool
) -> None:
    assert here.get_or_compute("k", lambda: None, ttl=60, negative_ttl=negative_ttl) is None
    assert (here.get("k") is None) is kept
    left_ms = client.pttl(KeySpace(namespace).entry("k"))
    assert (0 < left_ms <= 5_000) is (negative_ttl == 5)
    assert here.get_or_compute("other", lambda: 0, ttl=60, negative_ttl=0) == 0
    assert here.get("other") is not MISS


def tail_of(cache: TwoTierCache) -> str:
    """The log's position as a claim writes it."""
    cache.refresh()
    known = cache.as_of()
    return f"{known.epoch} {known.seq}"
