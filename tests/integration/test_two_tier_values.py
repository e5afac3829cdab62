"""What is set, what is accepted, and what a read makes of whatever Redis may hold."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from faults import Clock, fill, once, shared, source

from pipeline.cache import MISS, AsOf, TwoTierCache, UncacheableValueError

BOUND_S = 1.0
MakeCache = Callable[..., TwoTierCache]


class Colour(msgspec.Struct, frozen=True):
    name: str
    shades: tuple[int, ...] = ()


class Loose(msgspec.Struct):
    """One that a caller could change: it is decoded anew for each."""

    name: str


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
    for cache, expected in ((here, "no"), (here, "l1"), (there, "l2"), (there, "l1")):
        found = cache.fetch("k", lambda: "release 2", accept=lambda value: value == "release 2")
        assert (found.value, found.source) == ("release 2", expected)


def test_a_computed_value_need_not_be_accepted(here: TwoTierCache) -> None:
    """`accept` judges what was cached: a computation is not repeated for it."""
    computed = iter(["fresh", "once more"])
    assert here.get_or_compute("k", lambda: next(computed), accept=lambda _: False) == "fresh"


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
    return b'["k","%s",%d,%s,1700000000000,60000,%s]' % (tail.epoch.encode(), tail.seq, deps, value)


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"\x80\x04\x95pickle",
    "another shape": b'{"a": 1}',
    "too short": b'["k","e",1]',
    "wrong types": b'["k",1,"2",3,4,5,6]',
    "cut off": b'["k","e",1,[],1700000000000,60000,"plan',
    "deep": b'["k","e",1,[],1700000000000,60000,' + b"[" * 100_000,
    "deep and closed": b'["k","e",1,[],1700000000000,60000,' + b"[" * 100_000 + b"]" * 100_000 + b"]",
    "epoch is no UTF-8": b'["k","\xff",1,[],1700000000000,60000,1]',
    "dep is no UTF-8": b'["k","e",1,["\xff"],1700000000000,60000,1]',
    "key is no UTF-8": b'["\xff","e",1,[],1700000000000,60000,1]',
    "of an older release": b'["e",1,[],1700000000000,60000,1]',
    "a number beyond all": b'["k","e",1e999,[],1700000000000,60000,1]',
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
    [b'"\xff"', b"[" * 100_000 + b"]" * 100_000, b'{"\xc3\x28": 1}', b'"\\ud800"'],
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


def test_a_value_that_one_type_skips_over_is_a_miss_to_another_that_does_not(here: TwoTierCache) -> None:
    """Promoted as a struct that knows nothing of a field, then asked for as a whole: bytes that do not decode never raise."""
    raw = b'{"name":"red","unknown":"\xff"}'
    shared(here).raw().set(shared(here).keys.entry("k"), entry(here.as_of(), raw), ex=60)
    assert here.get("k", type=Loose) in (Loose("red"), MISS)
    assert here.get("k") is MISS
    assert here.lookup("k") is MISS
