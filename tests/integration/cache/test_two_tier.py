"""Two processes' caches over one real server: promotion, the bound, dependencies and figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from faults import Clock, age, fill, once, shared, source

from pipeline.cache import MISS, AsOf, Found, InvalidPatternError, LocalCache, TwoTierCache

BOUND_S = 1.0
MakeCache = Callable[..., TwoTierCache]


# -- the hot path, of which there are two copies


class Scene(NamedTuple):
    here: TwoTierCache
    there: TwoTierCache
    clock: Clock
    key: str


SITUATIONS: dict[str, Callable[[Scene], object]] = {
    "in L1": lambda scene: scene.key,
    "in L1, and used before": lambda scene: scene.here.get(scene.key),
    "in L1, judged by older records": lambda scene: scene.here.invalidate("something else"),
    "in L1, the lease has run out": lambda scene: scene.clock.tick(BOUND_S + 0.1),
    "in L2 alone": lambda scene: scene.here.l1.delete(scene.key),
    "past its time in L1": lambda scene: (scene.clock.tick(60.1), scene.here.refresh()),
    "invalidated here": lambda scene: scene.here.invalidate(scene.key),
    "invalidated elsewhere": lambda scene: (scene.there.invalidate(scene.key), scene.here.refresh()),
    "nowhere": lambda scene: scene.here.delete(scene.key),
}


@pytest.mark.parametrize("value", ["text", {"a": [1]}, AsOf("e", 1)], ids=["shared", "copied", "a struct"])
@pytest.mark.parametrize("asked_as", [Any, AsOf], ids=["as JSON", "as a struct"])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_get_and_lookup_agree(
    here: TwoTierCache, there: TwoTierCache, clock: Clock, situation: str, asked_as: Any, value: object
) -> None:
    """In what they serve and in what they count: `get` has the steps of `lookup` a second time, for speed."""
    kept_as = AsOf if isinstance(value, AsOf) else Any
    seen = []
    for key, read in {"get": here.get, "lookup": here.lookup}.items():
        fill(here, key, value, type=kept_as, ttl=300)
        SITUATIONS[situation](Scene(here, there, clock, key))
        before = here.get_stats()
        found: Any = read(key, type=asked_as)
        after = here.get_stats()
        counted = [after[tier][count] - before[tier][count] for tier in ("l1", "l2") for count in ("hits", "misses")]
        seen.append((found.value if isinstance(found, Found) else found, counted))
    assert seen[0] == seen[1]


# -- promotion


def test_a_value_of_another_process_comes_from_l2_and_then_from_l1(here: TwoTierCache, there: TwoTierCache) -> None:
    """An L2 hit is promoted: the next read asks no server."""
    fill(there, "k", {"a": 1})
    assert source(here, "k") == "l2"
    reads = shared(here).reads
    assert source(here, "k") == "l1"
    assert shared(here).reads == reads


def test_the_l1_given_is_the_l1_used() -> None:
    """Also when it is empty, which a cache is at first: its size and its clock are the caller's choice."""
    l1 = LocalCache(3)
    cache = TwoTierCache(l1)
    assert cache.l1 is l1
    for number in range(10):
        fill(cache, f"k{number}")
    assert len(cache.l1) == 3


def test_l1_keeps_an_entry_for_60_s_at_most(here: TwoTierCache, clock: Clock) -> None:
    """Then it is asked for in L2 once more, however long its TTL."""
    fill(here, "k", ttl=3600)
    clock.tick(59.9)
    here.refresh()
    assert source(here, "k") == "l1"
    clock.tick(0.2)
    here.refresh()
    assert source(here, "k") == "l2"


def test_a_promoted_entry_does_not_outlive_its_ttl_in_l1(
    here: TwoTierCache, there: TwoTierCache, clock: Clock, wall: Clock, namespace: str
) -> None:
    """An entry's life in L2 counts in the L1 that promotes it."""
    fill(there, "k", ttl=30)
    for passing in (clock, wall):
        passing.tick(25)
    assert source(here, "k") == "l2"
    for passing in (clock, wall):
        passing.tick(5.1)
    age(shared(here).raw(), namespace, 30.1)
    here.refresh()
    assert source(here, "k") == "miss"


@pytest.mark.parametrize("skew_s", [-1000.0, 1000.0])
def test_a_wall_clock_that_is_wrong_never_lengthens_an_entry(
    here: TwoTierCache, there: TwoTierCache, clock: Clock, wall: Clock, namespace: str, skew_s: float
) -> None:
    """A reader whose clock is behind or ahead serves no longer than the whole TTL."""
    fill(there, "k", ttl=30)
    wall.tick(skew_s)
    assert source(here, "k") == "l2"
    clock.tick(30.1)
    age(shared(here).raw(), namespace, 30.1)
    here.refresh()
    assert source(here, "k") == "miss"


def test_a_computed_entry_lives_shorter_by_the_jitter_and_never_longer(make: MakeCache) -> None:
    """TTL times (1 - jitter x random): entries made together do not end together."""
    for random, expected_ms in ((0.0, 100_000), (0.5, 95_000), (1.0, 90_000)):
        cache = make(ttl_jitter=0.1, rng=lambda random=random: random)
        fill(cache, f"k{random}", ttl=100)
        left_ms: Any = shared(cache).raw().pttl(cache.l2.keys.entry(f"k{random}"))  # type: ignore[union-attr]  # has one
        assert expected_ms - 5_000 < left_ms <= expected_ms


# -- the bound


def test_an_invalidation_elsewhere_is_seen_within_the_bound(here: TwoTierCache, there: TwoTierCache, clock: Clock) -> None:
    """Without any message: L1 may serve the old value until the bound, and not a moment longer."""
    fill(here, "k", "old")
    there.invalidate("k")
    clock.tick(BOUND_S - 0.001)
    assert here.get("k") == "old"
    clock.tick(0.001)
    assert here.get("k") is MISS


def test_serving_from_l1_does_not_renew_the_lease(here: TwoTierCache, there: TwoTierCache, clock: Clock) -> None:
    """Only the server can confirm: a key that is read all the time is no exception."""
    fill(here, "k", "old")
    there.invalidate("k")
    for _ in range(10):
        clock.tick(BOUND_S / 10)
        seen = here.get("k")
    assert seen is MISS


def test_a_read_of_any_key_in_l2_confirms_all_of_l1(here: TwoTierCache, there: TwoTierCache, clock: Clock) -> None:
    """The tail comes with every entry: an entry that was invalidated before that read is not served after it."""
    fill(here, "k", "old")
    fill(here, "kept")
    there.invalidate("k")
    here.get("another key")
    assert here.get("k") is MISS
    clock.tick(BOUND_S - 0.001)
    assert source(here, "kept") == "l1"


def test_a_read_that_goes_to_l2_sees_an_invalidation_at_once(here: TwoTierCache, there: TwoTierCache, make: MakeCache) -> None:
    """In any process, also in one that has just started, as soon as `invalidate` has returned."""
    for round_ in range(5):
        fill(there, "k", round_)
        assert there.invalidate("k").durable
        here.l1.clear()
        assert here.get("k") is MISS
        assert make().get("k") is MISS


def test_the_lease_counts_from_before_the_server_was_asked(here: TwoTierCache, there: TwoTierCache, clock: Clock) -> None:
    """A reply that was long on its way tells the state when it left, which is some time after the question."""
    fill(here, "k", "old")
    clock.tick(BOUND_S)

    def slow_answer() -> None:
        there.invalidate("k")
        clock.tick(0.7)

    shared(here).after_read = once(slow_answer)
    assert here.get("k") == "old"
    clock.tick(0.29)
    assert here.get("k") == "old"
    clock.tick(0.01)
    assert here.get("k") is MISS


def test_a_process_that_was_frozen_serves_nothing_old_when_it_resumes(
    here: TwoTierCache, there: TwoTierCache, clock: Clock
) -> None:
    """Its clock has gone on: the first read goes to the server."""
    fill(here, "k", "old")
    clock.tick(30)
    there.set("k", "new")
    assert here.get("k") == "new"


# -- dependencies


def test_an_invalidation_cascades_along_deps(here: TwoTierCache, there: TwoTierCache, clock: Clock) -> None:
    """An entry falls with any key that it was computed from, by pattern or by name, in L1 and L2; others stay."""
    for pattern in ("routing:calm", "routing:*", "rout[i]ng:*", "user:u1"):
        fill(here, "answer", deps=("routing:calm", "user:u1"))
        fill(here, "other", deps=("routing:wild", "user:u2"))
        there.invalidate(pattern)
        clock.tick(BOUND_S)
        assert here.get("answer") is MISS, pattern
        assert there.get("answer") is MISS, pattern
        assert (here.get("other") is MISS) == pattern.endswith("*"), pattern


def test_deps_travel_with_the_entry(here: TwoTierCache, there: TwoTierCache, make: MakeCache) -> None:
    """A process that promoted an entry judges it by the deps that its writer named."""
    fill(here, "answer", deps=("user:u1",))
    assert source(there, "answer") == "l2"
    make().invalidate("user:u1")
    there.refresh()
    assert there.get("answer") is MISS


@pytest.mark.parametrize("deps", [("\ud800",), (7,), ("",)], ids=repr)
def test_a_dep_that_is_no_key_is_refused_before_anything_is_computed(here: TwoTierCache, deps: Any) -> None:
    """A dep that no pattern could name protects nothing."""
    with pytest.raises((InvalidPatternError, TypeError)):
        here.get_or_compute("k", lambda: pytest.fail("computed"), deps=deps)
    assert here.get("k") is MISS


# -- figures


def test_get_stats_counts_each_lookup_once(here: TwoTierCache, there: TwoTierCache) -> None:
    """L1's and L2's hits and misses, and the computations, exactly."""
    fill(there, "k")
    assert [source(here, key) for key in ("k", "k", "absent")] == ["l2", "l1", "miss"]
    fill(here, "computed")
    stats = here.get_stats()
    assert (stats["l1"]["hits"], stats["l1"]["misses"], stats["l1"]["size"]) == (1, 3, 2)
    assert (stats["l2"]["hits"], stats["l2"]["misses"]) == (1, 2)
    assert (stats["computed"], stats["fills_discarded"], stats["degraded"]) == (1, 0, 0)
    assert stats["l2"]["available"] is True
    assert stats["l2"]["cache_type"] == "L2 Redis"
    assert stats["l2"]["connected_clients"] >= 2


def test_without_a_server_the_statistics_have_the_same_names() -> None:
    """A dashboard need not know whether there is an L2."""
    stats = TwoTierCache().get_stats()
    assert {"cache_type", "available", "memory_used", "connected_clients"} <= stats["l2"].keys()
    assert stats["l2"]["available"] is False


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), 86_400.1])
def test_a_ttl_beyond_what_the_log_remembers_is_refused_before_anything_is_computed(here: TwoTierCache, ttl: float) -> None:
    """An entry older than the log could not be judged."""
    with pytest.raises(ValueError, match="ttl"):
        here.get_or_compute("k", lambda: pytest.fail("computed"), ttl=ttl)
    with pytest.raises(ValueError, match="ttl"):
        here.set("k", 1, ttl=ttl)
