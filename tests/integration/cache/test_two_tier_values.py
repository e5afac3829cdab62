"""Values that are set, values that are accepted, and how a read treats whatever Redis may hold."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from faults import Clock, fill, once, shared, source

from pipeline.cache import MISS, AsOf, Grace, Kind, TwoTierCache, UncacheableValueError

BOUND_S = 1.0
MakeCache = Callable[..., TwoTierCache]


class Colour(msgspec.Struct, frozen=True):
    name: str
    shades: tuple[int, ...] = ()


class Loose(msgspec.Struct):
    """One that a caller could change: it is decoded anew for each."""

    name: str


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


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


def test_a_value_that_does_not_fit_is_returned_and_told_once(here: TwoTierCache, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is kept, nothing invalidated. On demand it raises, and names the place."""
    fill(here, "other", deps=("k",))
    assert [here.get_or_compute("k", lambda: {"a": {1}}) for _ in range(3)] == [{"a": {1}}] * 3
    assert [record.getMessage() for record in caplog.records if "not_kept" in record.getMessage()] == [
        "cache.value_not_kept: k: value['a']: set is not a JSON value; its callers compute it each time (told once; "
        "unfit='raise' raises)"
    ]
    assert here.get_stats()["unkept"] == 3
    with pytest.raises(UncacheableValueError, match=r"value\['a'\]: set"):
        here.get_or_compute("k", lambda: {"a": {1}}, unfit="raise")
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


# -- accepted values


def test_a_value_that_is_not_accepted_is_computed_anew_and_replaced(here: TwoTierCache, there: TwoTierCache) -> None:
    """Whichever tier has it: what another release has written is not served, and does not stay."""
    fill(there, "k", "release 1")
    for cache, expected in ((here, "no"), (here, "l1"), (there, "l2"), (there, "l1")):
        found = cache.fetch("k", lambda: "release 2", accept=lambda value: value == "release 2")
        assert (found.value, found.source) == ("release 2", expected)


def test_a_computed_value_need_not_be_accepted(here: TwoTierCache) -> None:
    """`accept` judges cached values: a computation is not repeated for it."""
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


class One(msgspec.Struct, frozen=True):
    a: int


class Two(msgspec.Struct, frozen=True):
    a: int
    b: int = 7


VIEWS: list[tuple[bytes, Any, Any]] = [
    (b'{"a":1,"b":2}', One, {"a": 1, "b": 2}),
    (b'{"a":1}', Two, {"a": 1}),
    (b'{"a":1,"b":2}', One, Two(1, 2)),
    (b'{"a":1}', Two, One(1)),
    (b"3", float, 3),
    (b"1152921504606846977", float, 2**60 + 1),
    (b"0.10000000000000000000001", Any, Decimal("0.10000000000000000000001")),
    (b"[1,2]", tuple[int, ...], [1, 2]),
    (b'["a","b","a"]', frozenset[str], ["a", "b", "a"]),
    (b'"\\u00e9"', str, "é"),
]


@pytest.mark.parametrize(("payload", "first", "second"), VIEWS, ids=lambda value: str(value)[:24])
def test_a_type_never_sees_what_another_has_left_of_the_value(
    here: TwoTierCache, there: TwoTierCache, payload: bytes, first: Any, second: Any
) -> None:
    """L1 keeps an entry under the type that it was first asked for; another one sees what L2 shows it."""
    kind = Any if isinstance(second, dict | list) else type(second)
    shared(here).raw().set(shared(here).keys.entry("k"), entry(here.as_of(), payload), ex=60)
    expected = there.lookup("k", type=kind)
    assert expected is not MISS
    assert repr(expected.value) == repr(second)
    assert here.get("k", type=first) is not MISS
    for look in (lambda: here.get("k", type=kind), lambda: here.lookup("k", type=kind), lambda: here.peek("k", type=kind)):
        seen = look()
        seen = getattr(seen, "value", seen)
        assert (type(seen), repr(seen)) == (type(second), repr(second))


def test_who_waits_never_sees_what_the_type_of_another_has_left(
    here: TwoTierCache, there: TwoTierCache, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a value that the first one found after all, while the second one waited for it."""
    leases = here._flight.leases
    assert leases is not None
    take, boarded, go_on = leases.take, threading.Event(), threading.Event()

    def slowly(*arguments: Any, **how: Any) -> Any:
        boarded.set()
        assert go_on.wait(5)
        return take(*arguments, **how)

    monkeypatch.setattr(leases, "take", slowly)
    seeking = pool.submit(here.fetch, "k", lambda: One(9), Kind(One))
    assert boarded.wait(5)
    waiting = pool.submit(here.fetch, "k", lambda: {"a": 8})
    deadline_s = time.monotonic() + 5
    while here.get_stats()["l1"]["misses"] < 2:
        assert time.monotonic() < deadline_s
        time.sleep(0.002)
    there.get_or_compute("k", lambda: {"a": 1, "b": 2})
    go_on.set()
    assert seeking.result(5).value == One(1)
    assert waiting.result(5).value == {"a": 1, "b": 2}


# -- time to live


@pytest.mark.parametrize(
    "ttl",
    [0, -1, True, "60", float("nan"), timedelta(0), timedelta(days=-1), 10**5000, timedelta(days=365)],
    ids=["0", "-1", "True", "text", "nan", "no time", "past", "endless", "year"],
)
def test_a_duration_that_is_none_is_refused_by_its_name(here: TwoTierCache, ttl: Any) -> None:
    """Before anything is computed."""
    for name, options in {
        "ttl": {"ttl": ttl},
        "negative_ttl": {"negative_ttl": ttl if ttl else -1},
        "grace": {"grace": Grace(s=ttl if ttl else -1)},
    }.items():
        with pytest.raises(ValueError, match=rf"^{name}: "):
            here.get_or_compute("k", lambda: pytest.fail("computed"), **options)


def test_a_duration_may_be_a_timedelta_everywhere(here: TwoTierCache) -> None:
    """The time to live, that of nothing, and the grace."""
    minute = timedelta(minutes=1)
    here.fetch("value", lambda: 1, Kind(ttl=minute), grace=Grace(s=2 * minute))
    here.get_or_compute("none", lambda: None, ttl=minute, negative_ttl=timedelta(seconds=5))
    here.set("set", 1, ttl=timedelta(hours=1))
    left_s = here.left_s(["value", "none", "set"])
    assert left_s is not None
    assert [round(left) for left in left_s.values()] == [60, 5, 3600]
    left_ms: Any = shared(here).raw().pttl(shared(here).keys.entry("value"))
    assert 170_000 < left_ms <= 180_000


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
    """A sound envelope says nothing of its contents."""
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
    """It is judged by a log that it was not made under, or that has lost the records it was made by."""
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
    """`RedisCache` alone knows no log: its entries cannot be judged, and so are misses."""
    shared(here).set("k", "unjudged")
    assert here.get("k") is MISS


def test_a_value_that_one_type_skips_over_is_a_miss_to_another_that_does_not(here: TwoTierCache) -> None:
    """Promoted as a struct that knows nothing of a field, then asked for as a whole: bytes that do not decode never raise."""
    raw = b'{"name":"red","unknown":"\xff"}'
    shared(here).raw().set(shared(here).keys.entry("k"), entry(here.as_of(), raw), ex=60)
    assert here.get("k", type=Loose) in (Loose("red"), MISS)
    assert here.get("k") is MISS
    assert here.lookup("k") is MISS
