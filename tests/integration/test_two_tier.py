"""Two processes' caches over one real server, step by step: what is served after an invalidation, and what never is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from faults import Clock, SteppedRedisCache, age, lost, once, step_into_log

from pipeline.cache import MISS, AsOf, InvalidPatternError, LocalCache, TwoTierCache, UncacheableValueError
from pipeline.cache.tail import Page

BOUND_S = 1.0
MakeCache = Callable[..., TwoTierCache]


class Colour(msgspec.Struct, frozen=True):
    name: str
    shades: tuple[int, ...] = ()


@pytest.fixture
def clock() -> Clock:
    """One clock for all caches of a test: they stand for processes of one machine."""
    return Clock()


@pytest.fixture
def wall() -> Clock:
    return Clock(1_700_000_000.0)


@pytest.fixture
def make(redis_url: str, namespace: str, clock: Clock, wall: Clock) -> Iterator[MakeCache]:
    """Makes a cache as another process would have it, on the same server and namespace."""
    made: list[TwoTierCache] = []

    def make_cache(**options: Any) -> TwoTierCache:
        l2 = SteppedRedisCache(redis_url, namespace, wall_clock=wall)
        options = {"ttl_jitter": 0.0, "staleness_bound_s": BOUND_S, **options}
        made.append(TwoTierCache(LocalCache(100, clock=clock), l2, clock=clock, wall_clock=wall, **options))
        return made[-1]

    yield make_cache
    for cache in made:
        cache.close()


@pytest.fixture
def here(make: MakeCache) -> TwoTierCache:
    return make()


@pytest.fixture
def there(make: MakeCache) -> TwoTierCache:
    return make()


def shared(cache: TwoTierCache) -> SteppedRedisCache:
    assert isinstance(cache.l2, SteppedRedisCache)
    return cache.l2


def source(cache: TwoTierCache, key: str) -> str:
    """Where a value comes from; `miss` when from nowhere."""
    found = cache.lookup(key)
    return "miss" if found is MISS else found.source


def fill(cache: TwoTierCache, key: str, value: object = "value", **options: Any) -> Any:
    return cache.get_or_compute(key, lambda: value, **options)


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
    """What an entry has lived in L2 counts in the L1 that promotes it."""
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
    """TTL times (1 - jitter x random): what was made together does not end together."""
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
    """The tail comes with every entry: what was invalidated before that read is not served after it."""
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
    """An answer that was long on its way says what was true when it left: nobody knows when that was, but not before the question."""
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


# -- computations in flight


@pytest.mark.parametrize("pattern", ["k", "k:*", "*", "dep:*"])
def test_a_computation_that_an_invalidation_overtakes_is_never_served_again(
    here: TwoTierCache, there: TwoTierCache, clock: Clock, pattern: str
) -> None:
    """Its result goes to the caller who asked before, and to nobody after him: neither here nor there."""
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
    """The entry was valid when it was read; what L1 keeps of it ends with the bound."""
    fill(there, "k", "old")
    here.refresh()
    shared(here).after_read = once(lambda: there.invalidate("k") and None)
    assert here.get("k") == "old"  # it was read before the invalidation
    clock.tick(BOUND_S)
    assert here.get("k") is MISS


def test_another_thread_that_advances_the_view_between_read_and_fill_is_heard(here: TwoTierCache, there: TwoTierCache) -> None:
    """The fill is judged by what is known when it is made, or judged anew at the next read: never served after it was known."""
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
    """It can be repeated by anybody at any time: the keys are misses, and a fill after it stays."""
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
    """Whoever has invalidated reads no old value after it, without any passing of time."""
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
    earlier_answer = here._log.read_since(None)
    there.invalidate("k")
    apply = here._view.apply

    def apply_and_then_the_late_one(page: Page, asked_at_s: float) -> None:
        apply(page, asked_at_s)
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
    names = list(shared(here).raw().scan_iter(match=f"{namespace}:1:e:*"))
    assert names == [shared(here).keys.entry("few:1")]


# -- set


def test_a_value_set_here_replaces_the_value_there(here: TwoTierCache, there: TwoTierCache, clock: Clock) -> None:
    """A set is an invalidation of its key: no other process keeps the old value beyond the bound."""
    here.set("k", "old")
    assert there.get("k") == "old"
    here.set("k", "new")
    assert here.get("k") == "new"
    clock.tick(BOUND_S)
    assert there.get("k") == "new"


def test_a_set_invalidates_what_was_computed_from_the_key(here: TwoTierCache, there: TwoTierCache) -> None:
    """Its dependants were computed from the value before; entries of other keys stay."""
    fill(here, "answer", deps=("k",))
    fill(here, "other", deps=("k2",))
    here.set("k", "new")
    assert [cache.get("answer") for cache in (here, there)] == [MISS, MISS]
    assert [cache.get("other") for cache in (here, there)] == ["value", "value"]


@pytest.mark.parametrize("when", ["before_write", "after_write"])
def test_of_two_racing_sets_the_later_wins_or_nobody(here: TwoTierCache, there: TwoTierCache, clock: Clock, when: str) -> None:
    """The log orders them: the earlier value is never served once the later has been set."""
    setattr(shared(here), when, once(lambda: there.set("k", "later") and None))
    here.set("k", "earlier")
    clock.tick(BOUND_S)
    assert {here.get("k"), there.get("k")} <= {"later", MISS}
    there.l1.clear()
    assert there.get("k") in ("later", MISS)


def test_many_racing_sets_leave_one_value_that_all_see(here: TwoTierCache, there: TwoTierCache, clock: Clock) -> None:
    """Whatever the interleaving, all processes agree after the bound."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: (here, there)[number % 2].set("k", number), range(60)))
    clock.tick(BOUND_S)
    seen = [cache.get("k") for cache in (here, there)]
    assert seen[0] == seen[1] or MISS in seen


def test_a_value_that_cannot_be_cached_is_refused_after_it_was_computed(here: TwoTierCache) -> None:
    """The caller learns it by name; nothing is kept, nothing invalidated."""
    fill(here, "other", deps=("k",))
    with pytest.raises(UncacheableValueError, match=r"value\['a'\]: set"):
        here.get_or_compute("k", lambda: {"a": {1}})
    assert here.get("k") is MISS
    assert here.get("other") == "value"


def test_an_exception_of_a_computation_is_not_cached(here: TwoTierCache) -> None:
    """It goes to the caller as it is, and the next caller computes."""

    def fail() -> str:
        raise KeyError("no input")

    for _ in range(2):
        with pytest.raises(KeyError, match="no input"):
            here.get_or_compute("k", fail)
    assert fill(here, "k", "now it works") == "now it works"


# -- what is accepted


def test_a_value_that_is_not_accepted_is_computed_anew_and_replaced(here: TwoTierCache, there: TwoTierCache) -> None:
    """Whichever tier has it: what another release has written is not served, and does not stay."""
    fill(there, "k", "release 1")
    for cache, expected in ((here, "no"), (here, "l1"), (there, "no"), (there, "l1")):
        found = cache.fetch("k", lambda: "release 2", accept=lambda value: value == "release 2")
        assert (found.value, found.source) == ("release 2", expected)


def test_a_computed_value_need_not_be_accepted(here: TwoTierCache) -> None:
    """`accept` judges what was cached: a computation is not repeated for it."""
    computed: list[int] = []
    value = here.get_or_compute("k", lambda: computed.append(1) or "fresh", accept=lambda _: False)
    assert (value, computed) == ("fresh", [1])


def test_a_struct_comes_back_as_that_struct_from_either_tier(here: TwoTierCache, there: TwoTierCache) -> None:
    """Equal, of the same type, and to the leaves."""
    colour = Colour("red", (1, 2))
    assert fill(here, "k", colour, type=Colour) == colour
    assert here.get("k", type=Colour) == colour
    found = there.lookup("k", type=Colour)
    assert found is not MISS
    assert (found.value, type(found.value), found.source) == (colour, Colour, "l2")
    assert here.get("k") == {"name": "red", "shades": [1, 2]}


@pytest.mark.parametrize("wrong", ["text", 7, None, {"name": 7}, {"nom": "rouge"}, [1]], ids=repr)
def test_a_value_of_another_type_is_a_miss(here: TwoTierCache, there: TwoTierCache, wrong: Any) -> None:
    """In L1 and in L2: a key that another release used for something else is computed anew."""
    fill(here, "k", wrong)
    assert here.get("k", type=Colour) is MISS
    assert there.get("k", type=Colour) is MISS
    assert fill(there, "k", Colour("red"), type=Colour) == Colour("red")
    assert there.get("k", type=Colour) == Colour("red")


def test_a_value_of_another_type_counts_as_a_miss_only(here: TwoTierCache) -> None:
    """One lookup is one hit or one miss."""
    fill(here, "k", "text")
    before = here.l1.get_stats()
    assert here.get("k", type=Colour) is MISS
    after = here.l1.get_stats()
    assert (after["hits"] - before["hits"], after["misses"] - before["misses"]) == (0, 1)


# -- what Redis may hold


def entry(tail: AsOf, value: bytes = b'"planted"', deps: bytes = b"[]") -> bytes:
    return b'["%s",%d,%s,1700000000000,60000,%s]' % (tail.epoch.encode(), tail.seq, deps, value)


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"\x80\x04\x95pickle",
    "another shape": b'{"a": 1}',
    "too short": b'["e",1]',
    "wrong types": b'[1,"2",3,4,5,6]',
    "cut off": b'["e",1,[],1700000000000,60000,"plan',
    "deep": b'["e",1,[],1700000000000,60000,' + b"[" * 100_000,
    "deep and closed": b'["e",1,[],1700000000000,60000,' + b"[" * 100_000 + b"]" * 100_000 + b"]",
    "epoch is no UTF-8": b'["\xff",1,[],1700000000000,60000,1]',
    "dep is no UTF-8": b'["e",1,["\xff"],1700000000000,60000,1]',
    "a number beyond all": b'["e",1e999,[],1700000000000,60000,1]',
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
def test_bytes_that_are_no_entry_are_a_miss_and_are_replaced(here: TwoTierCache, raw: bytes) -> None:
    """Whatever stands in Redis, a read does not raise; it is counted, computed anew and written over."""
    shared(here).raw().set(shared(here).keys.entry("k"), raw, ex=60)
    assert here.get("k") is MISS
    assert shared(here).undecodable_count == 1
    assert fill(here, "k", "new") == "new"
    here.l1.clear()
    assert source(here, "k") == "l2"


@pytest.mark.parametrize(
    "value",
    [b'"\xff"', b"[" * 5_000 + b"]" * 5_000, b'{"\xc3\x28": 1}', b'"\\ud800"'],
    ids=["no UTF-8", "deep", "key", "surrogate"],
)
def test_a_valid_entry_whose_value_does_not_decode_is_a_miss(here: TwoTierCache, value: bytes) -> None:
    """The envelope being sound says nothing of what is in it."""
    shared(here).raw().set(shared(here).keys.entry("k"), entry(here.as_of(), value), ex=60)
    assert here.get("k") is MISS
    assert shared(here).get("k") is MISS
    assert fill(here, "k", "new") == "new"


def test_a_key_of_a_foreign_type_is_a_miss_and_is_replaced(here: TwoTierCache) -> None:
    """Another program's list under our name costs an answer, not an error."""
    shared(here).raw().rpush(shared(here).keys.entry("k"), "x")
    assert here.get("k") is MISS
    assert shared(here).get("k") is MISS
    assert fill(here, "k", "new") == "new"
    here.l1.clear()
    assert source(here, "k") == "l2"


def test_an_entry_of_another_epoch_or_of_the_future_is_a_miss(here: TwoTierCache) -> None:
    """It is judged by a log that it was not made under, or that has lost what it was made by."""
    here.invalidate("x")
    now = here.as_of()
    raw, name = shared(here).raw(), shared(here).keys.entry("k")
    for as_of, expected in (
        (now, "planted"),
        (AsOf("other", now.seq), MISS),
        (AsOf(now.epoch, now.seq + 1), MISS),
        (AsOf("", 0), MISS),
    ):
        here.l1.clear()
        raw.set(name, entry(as_of), ex=60)
        assert here.get("k") == expected, as_of


def test_what_the_single_tier_wrote_is_not_served_by_the_protocol(here: TwoTierCache) -> None:
    """`RedisCache` alone knows no log: what it wrote cannot be judged, and so is a miss."""
    shared(here).set("k", "unjudged")
    assert here.get("k") is MISS


# -- a lost answer


def test_a_write_whose_answer_was_lost_costs_nothing(here: TwoTierCache, there: TwoTierCache) -> None:
    """The value goes to the caller; what landed is as good as if it had been told."""
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
    """It is durable, so it says so; and this process does not serve what it has invalidated."""
    fill(here, "k", "old")
    log = step_into_log(here)
    log.after_read = once(lost)
    done = here.invalidate("k")
    assert done.durable
    assert there.get("k") is MISS
    assert here.get("k") is MISS


def test_a_pending_invalidation_is_not_overtaken_by_a_read_of_l2(here: TwoTierCache) -> None:
    """What is invalidated here while an entry is on its way from L2 is not served from then on, appended or not."""
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


# -- figures


def test_get_stats_counts_each_lookup_once(here: TwoTierCache, there: TwoTierCache) -> None:
    """L1's and L2's hits and misses, and what was computed, exactly."""
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
