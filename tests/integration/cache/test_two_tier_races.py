"""Computations and invalidations that cross each other's way, forced step by step: which values are never served."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from faults import Clock, fill, lost, once, shared, source, step_into_log

from pipeline.cache import MISS, LocalCache, RedisCache, TwoTierCache
from pipeline.cache.coherence.bus import NodeBus
from pipeline.cache.coherence.log import RedisInvalidationLog
from pipeline.cache.coherence.node import NodeFollower
from pipeline.cache.coherence.registry import NodeRegistry
from pipeline.cache.coherence.tail import Page
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.connection import RedisConnection

BOUND_S = 1.0
MakeCache = Callable[..., TwoTierCache]


# -- computations in flight


@pytest.mark.parametrize("pattern", ["k", "k:*", "*", "dep:*"])
def test_a_computation_that_an_invalidation_overtakes_is_never_served_again(
    here: TwoTierCache, there: TwoTierCache, clock: Clock, pattern: str
) -> None:
    """Its result goes to the caller that asked before, and to no later caller: neither here nor there."""
    key = "k:1" if ":" in pattern else "k"
    started, go_on = threading.Event(), threading.Event()

    def compute() -> str:
        started.set()
        assert go_on.wait(20)
        return "from old inputs"

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(here.get_or_compute, key, compute, deps=("dep:1",))
        assert started.wait(20)
        there.invalidate(pattern)
        go_on.set()
        assert asked.result(20) == "from old inputs"
    # Right away its own L1 may not know of the invalidation yet, which is what the bound is for; L2 knows.
    assert there.get(key) is MISS
    clock.tick(BOUND_S)
    assert here.get(key) is MISS
    assert fill(there, key, "new") == "new"
    clock.tick(BOUND_S)
    assert here.get(key) == "new"


def test_an_invalidation_in_this_process_stops_its_own_computation_in_flight(here: TwoTierCache) -> None:
    """No bound applies within a process: it knows at once."""

    def compute() -> str:
        here.invalidate("k")
        return "from old inputs"

    assert here.get_or_compute("k", compute) == "from old inputs"
    assert here.get("k") is MISS
    assert here.get_stats()["fills_discarded"] == 1


def test_an_entry_is_as_old_as_the_first_of_its_inputs(here: TwoTierCache, there: TwoTierCache, clock: Clock) -> None:
    """A response built on a routing that L1 still held does not pass for newer than that routing."""
    fill(here, "routing:x", "old routing")
    as_of = here.as_of()
    routing = here.get("routing:x")
    there.invalidate("routing:*")
    here.get("something in l2")  # the view advances between the first input and the computation
    here.get_or_compute("answer", lambda: f"by {routing}", deps=("routing:x",), as_of=as_of)
    assert here.get("answer") is MISS
    assert there.get("answer") is MISS


def test_an_invalidation_between_the_read_of_l2_and_the_fill_of_l1_is_not_lost(
    here: TwoTierCache, there: TwoTierCache, clock: Clock
) -> None:
    """The entry was valid when it was read; its copy in L1 ends with the bound."""
    fill(there, "k", "old")
    here.refresh()
    here.refresh()  # on the connection that the first has opened: after a new one the log is asked in any case
    shared(here).after_read = once(lambda: there.invalidate("k") and None)
    assert here.get("k") == "old"  # it was read before the invalidation
    clock.tick(BOUND_S)
    assert here.get("k") is MISS


def test_another_thread_that_advances_the_view_between_read_and_fill_is_heard(here: TwoTierCache, there: TwoTierCache) -> None:
    """The fill is judged by what is known when it is made, or judged anew at the next read: it is never served once the
    invalidation is known."""
    fill(there, "k", "old")

    def meanwhile() -> None:
        there.invalidate("k")
        here.refresh()

    shared(here).after_read = once(meanwhile)
    here.get("k")
    assert here.get("k") is MISS


def test_an_invalidation_while_an_entry_is_written_to_l2_wins(here: TwoTierCache, there: TwoTierCache, clock: Clock) -> None:
    """Whether the bytes land before or after it, they are never served."""
    for when in ("before_write", "after_write"):
        setattr(shared(here), when, once(lambda: there.invalidate("k") and None))
        fill(here, "k", "old")
        assert there.get("k") is MISS, when
        clock.tick(BOUND_S)
        assert here.get("k") is MISS, when


# -- invalidations


def test_an_invalidation_twice_and_from_two_at_once_is_one(here: TwoTierCache, there: TwoTierCache, clock: Clock) -> None:
    """Any caller can repeat it at any time: the keys are misses, and a fill after it stays."""
    fill(here, "k", "old")
    barrier = threading.Barrier(2)

    def invalidate(cache: TwoTierCache) -> bool:
        barrier.wait(20)
        return all(cache.invalidate("k").durable for _ in range(20))

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(invalidate, (here, there)))
    clock.tick(BOUND_S)
    assert here.get("k") is MISS
    fill(there, "k", "new")
    clock.tick(BOUND_S)
    assert here.get("k") == there.get("k") == "new"


def test_an_invalidation_takes_effect_in_its_own_process_at_once(here: TwoTierCache) -> None:
    """A caller that has invalidated reads no old value after it, without any passing of time."""
    for pattern in ("k", "*", "k*", "[k]"):
        fill(here, "k")
        here.invalidate(pattern)
        assert here.get("k") is MISS, pattern


def test_an_answer_of_the_log_that_comes_late_does_not_bring_back_what_was_invalidated(
    here: TwoTierCache, there: TwoTierCache, clock: Clock
) -> None:
    """A thread that asked the log later may have been answered earlier: a process's first readers race. A read that went to
    L2 after the invalidation is not misled by the other's older answer."""
    fill(there, "k", "old")
    earlier_answer = here._coherence.log.read_since(None)
    there.invalidate("k")
    apply = here._view.apply

    def apply_and_then_the_late_one(page: Page, asked_at_s: float, answered_at_s: float) -> None:
        apply(page, asked_at_s, answered_at_s)
        setattr(here._view, "apply", apply)  # noqa: B010 - a method of an object, for this call alone
        clock.tick(0.1)
        apply(earlier_answer, clock())

    setattr(here._view, "apply", apply_and_then_the_late_one)  # noqa: B010 - as above
    assert here.get("k") is MISS


def test_several_patterns_are_one_invalidation(here: TwoTierCache, there: TwoTierCache) -> None:
    """Each takes a seq of its own; the result names the last."""
    for key in ("a", "b:1", "c"):
        fill(here, key)
    first = here.invalidate("a")
    done = here.invalidate("a", "b:*")
    assert done.patterns == ("a", "b:*")
    assert done.seq == first.seq + 2
    assert done.epoch == first.epoch
    assert [there.get(key) for key in ("a", "b:1", "c")] == [MISS, MISS, "value"]


@pytest.mark.parametrize("patterns", [(), ("",), ("ok", ""), ("[",), ("ok", 7)], ids=repr)
def test_an_invalidation_with_a_bad_pattern_invalidates_nothing(here: TwoTierCache, patterns: Any) -> None:
    """All or nothing: the good patterns beside the bad one do not take effect either."""
    fill(here, "ok")
    with pytest.raises(ValueError, match="pattern"):
        here.invalidate(*patterns)
    assert here.get("ok") == "value"


def test_delete_pattern_counts_the_keys_of_both_tiers_once(here: TwoTierCache, there: TwoTierCache) -> None:
    """A key that only one tier holds counts, and one that both hold counts once."""
    for key in ("a:1", "a:2", "a:3"):
        fill(here, key)
    fill(there, "a:4")
    shared(here).delete("a:1")  # as an eviction does
    assert here.delete_pattern("a:*") == 4


def test_the_bytes_of_what_delete_pattern_removed_are_gone(here: TwoTierCache, namespace: str) -> None:
    """It waits for the sweep: more keys than one batch, and only those."""
    for number in range(2_500):
        shared(here).set(f"many:{number}", number, ttl=60)
    shared(here).set("few:1", 1, ttl=60)
    assert here.delete_pattern("many:*") == 2_500
    names = list(shared(here).raw().scan_iter(match=f"{namespace}:2:e:*"))
    assert names == [shared(here).keys.entry("few:1")]


# -- a lost answer


def test_a_write_whose_answer_was_lost_costs_nothing(here: TwoTierCache, there: TwoTierCache) -> None:
    """The value goes to the caller; an entry that landed is as good as one whose write was acknowledged."""
    shared(here).after_write = once(lost)
    assert fill(here, "k") == "value"
    assert source(there, "k") == "l2"


def test_an_append_whose_answer_was_lost_is_made_again(here: TwoTierCache, there: TwoTierCache, clock: Clock) -> None:
    """Not known to be durable, it holds here at once, and is appended once more: twice is as good as once."""
    fill(here, "k", "old")
    log = step_into_log(here)
    log.after_append = once(lost)
    assert not here.invalidate("k").durable
    assert here.get("k") is MISS
    assert there.get("k") is MISS
    fill(there, "k", "new")
    clock.tick(BOUND_S)
    assert here.get("k") in ("new", MISS)
    there.set("k", "newest")
    clock.tick(BOUND_S)
    assert here.get("k") == there.get("k") == "newest"


def test_an_append_that_could_not_be_read_back_holds_here_too(here: TwoTierCache, there: TwoTierCache) -> None:
    """It is durable, so it says so; and this process does not serve the entries that it has invalidated."""
    fill(here, "k", "old")
    log = step_into_log(here)
    log.after_read = once(lost)
    done = here.invalidate("k")
    assert done.durable
    assert there.get("k") is MISS
    assert here.get("k") is MISS


def test_a_pending_invalidation_is_not_overtaken_by_a_read_of_l2(here: TwoTierCache) -> None:
    """An entry that is invalidated here while it is on its way from L2 is not served from then on, appended or not."""
    fill(here, "k", "old")
    here.l1.clear()
    log = step_into_log(here)

    def invalidated_meanwhile() -> None:
        log.before_append = once(lost)
        assert not here.invalidate("k").durable

    shared(here).after_read = once(invalidated_meanwhile)
    here.get("k")
    log.before_append = lost
    assert here.get("k") is MISS


@pytest.mark.parametrize("held_by", ["l1", "l2"])
def test_a_view_that_was_taken_to_another_epoch_judges_nothing_that_was_read_here(
    here: TwoTierCache, there: TwoTierCache, clock: Clock, held_by: str
) -> None:
    """The server lost its log between two threads' questions: a caller that came to L2 after the invalidation is served nothing
    by the older log that the slower thread brings, neither from L2 nor from L1."""
    fill(here, "k", "old")
    if held_by == "l2":
        here.l1.clear()
    answer_of_the_lost_log = here._coherence.log.read_since(None)
    shared(here).raw().delete(shared(here).keys.tail)
    assert there.invalidate("k").durable
    clock.tick(BOUND_S)
    apply = here._view.apply

    def apply_and_then_the_late_one(page: Page, asked_at_s: float, answered_at_s: float) -> None:
        apply(page, asked_at_s, answered_at_s)
        setattr(here._view, "apply", apply)  # noqa: B010 - a method of an object, for this call alone
        clock.tick(0.1)
        apply(answer_of_the_lost_log, clock())

    setattr(here._view, "apply", apply_and_then_the_late_one)  # noqa: B010 - as above
    assert here.get("k") is MISS


def test_the_lease_is_granted_before_a_slot_is_judged(redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child finds the bus's writer in the middle of a write, and at its next look the finished state: a slot that was judged
    before that look would be served by a lease for a state that it was not judged by."""
    bus = NodeBus()
    with closing(RedisConnection(redis_url)) as connection:
        keys = KeySpace(namespace)
        log = RedisInvalidationLog(connection, keys, retention_s=600)
        follower = NodeFollower("a-node", bus, log, NodeRegistry(connection, keys))
        assert follower.beat()
        child = TwoTierCache(LocalCache(), RedisCache(url=redis_url, namespace=namespace), bus=bus, staleness_bound_s=60.0)
        assert child.get_or_compute("k", lambda: "old") == "old"
        child.refresh()
        assert child.get("k") == "old"
        tail = log.append(["k"])
        assert follower.receive(tail.epoch, tail.seq, ["k"]) is not None
        read, looks = bus.read, iter([None])
        monkeypatch.setattr(bus, "read", lambda *known: next(looks) if looks.__length_hint__() else read(*known))
        assert child.lookup("k") is MISS
        child.close()
