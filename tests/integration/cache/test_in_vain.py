"""A computation that brings nothing to share: a caller that waited for it waits for no other, and later callers are no worse
off."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from polling import until
from slow import BOUND_S, Slow

from pipeline.cache import AsOf, Found, Kind, TwoTierCache, UncacheableValueError
from pipeline.cache.flight.claims import Claim, Claims
from pipeline.cache.flight.leases import TOLD_S
from pipeline.cache.keys import KeySpace

MakeCache = Callable[..., TwoTierCache]
WAITING = 6

IN_VAIN: dict[str, tuple[object, dict[str, Any]]] = {
    "it fails": (KeyError("the model is down"), {}),
    "there is nothing, which is not kept": (None, {"kind": Kind(negative_ttl=0)}),
    "no value that can be kept": (object(), {}),
    "kept for too short a time to do": ("brief", {"kind": Kind(ttl=3.0), "least_s": 5.0}),
    "a value that will not do": ("bad", {"accept": lambda value: value != "bad"}),
}


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(20) as pool:
        yield pool


def pauses(cache: TwoTierCache) -> threading.Event:
    """Set when a caller of this cache has seen another compute the key, and waits for it."""
    paused = threading.Event()

    leases = cache._flight.leases
    assert leases is not None
    await_end = leases.await_end

    def wait(owner: str, wait_s: float) -> tuple[bytes, bytes] | None:
        paused.set()
        return await_end(owner, wait_s)

    leases.await_end = wait  # type: ignore[method-assign]
    return paused


def outcome_of(ask: Callable[[], Found]) -> object:
    try:
        return ask().value
    except (KeyError, UncacheableValueError) as error:
        return type(error)


@pytest.mark.parametrize(("value", "options"), IN_VAIN.values(), ids=IN_VAIN)
def test_who_waited_in_vain_computes_at_once(
    make: MakeCache, pool: ThreadPoolExecutor, value: Any, options: dict[str, Any]
) -> None:
    """All of them at the same time, in whatever process they are: one after another, the last would wait for all before it."""
    failure = value if isinstance(value, BaseException) else None
    first, caches = make(), [make() for _ in range(WAITING)]
    slow = Slow(value)
    slow.failure = failure
    all_at_once = threading.Barrier(WAITING)

    def compute() -> object:
        all_at_once.wait(BOUND_S)  # breaks, which raises, if one of them waits for another
        if failure is not None:
            raise failure
        return value

    paused = {cache: pauses(cache) for cache in caches}
    begun = pool.submit(outcome_of, lambda: first.fetch("k", slow, **options))
    assert slow.begun.wait(BOUND_S)
    waiting = [pool.submit(outcome_of, lambda cache=cache: cache.fetch("k", compute, **options)) for cache in caches]
    for cache in caches:
        assert paused[cache].wait(BOUND_S)
    slow.go_on.set()
    outcomes = {each.result(BOUND_S) for each in (begun, *waiting)}
    assert len(outcomes) == 1
    assert outcomes == {value if failure is None else type(failure)}


@pytest.mark.parametrize(("ttl", "told"), [(0.01, True), (0.15, True), (60, False)])
def test_what_ends_before_anybody_looks_was_in_vain(
    here: TwoTierCache, client: redis.Redis, namespace: str, ttl: float, told: bool
) -> None:
    """A waiting caller looks ten times a second: an entry that it cannot count on finding is as good as nothing, except for
    one."""
    assert here.fetch("k", lambda: "brief", Kind(ttl=ttl)) == Found("brief", "no")
    assert (client.get(KeySpace(namespace).lease("k")) is not None) is told


def test_who_comes_after_a_failure_shares_as_ever(make: MakeCache, pool: ThreadPoolExecutor) -> None:
    """A model that has just failed is asked by one at a time: those who come then have waited for nothing yet."""
    cache, others = make(), [make() for _ in range(4)]
    failing = Slow()
    failing.failure = KeyError("the model is down")
    failing.go_on.set()
    with pytest.raises(KeyError):
        cache.fetch("k", failing)
    slow = Slow("at last")
    asked = [pool.submit(other.fetch, "k", slow) for other in others]
    assert slow.begun.wait(BOUND_S)
    until(lambda: all("k" in other._flight._flights for other in others))
    slow.go_on.set()
    assert {each.result(BOUND_S).value for each in asked} == {"at last"}
    assert slow.calls == 1


def test_what_was_invalidated_meanwhile_is_computed_anew_by_one(make: MakeCache, pool: ThreadPoolExecutor) -> None:
    """It was not kept either. But the next one will be, and the others wait for it."""
    first, caches, elsewhere = make(), [make() for _ in range(4)], make()
    old, new = Slow("old"), Slow("new")
    begun = pool.submit(first.fetch, "k", old)
    assert old.begun.wait(BOUND_S)
    waiting = [pool.submit(cache.fetch, "k", new) for cache in caches]
    until(lambda: all("k" in cache._flight._flights for cache in caches))
    elsewhere.invalidate("k")
    old.go_on.set()
    assert begun.result(BOUND_S).value == "old"
    assert new.begun.wait(BOUND_S)
    new.go_on.set()
    assert {each.result(BOUND_S).value for each in waiting} == {"new"}
    assert new.calls == 1


def test_a_lease_tells_what_its_owner_knew_when_it_began(
    make: MakeCache, pool: ThreadPoolExecutor, client: redis.Redis, namespace: str
) -> None:
    """Not before: else a caller that knows of an invalidation in between would not wait for it."""
    here, there = make(), make()
    here.refresh()
    done = there.invalidate("k")
    slow = Slow()
    first = pool.submit(here.fetch, "k", slow, least_s=5.0)
    assert slow.begun.wait(BOUND_S)
    assert held(client, KeySpace(namespace).lease("k")).seq >= done.seq
    second = pool.submit(there.fetch, "k", lambda: pytest.fail("a second computation"))
    until(lambda: "k" in there._flight._flights)
    slow.go_on.set()
    assert [each.result(BOUND_S).value for each in (first, second)] == ["computed"] * 2


def test_a_thread_that_is_stopped_sends_nobody_off(make: MakeCache, pool: ThreadPoolExecutor) -> None:
    """A time limit or Ctrl-C says nothing of the key: one of the waiting callers takes over, and the others wait for that one."""
    here, caches = make(), [make() for _ in range(4)]
    stopped, slow = Slow(), Slow("theirs")
    stopped.failure = KeyboardInterrupt()
    first = pool.submit(here.fetch, "k", stopped)
    assert stopped.begun.wait(BOUND_S)
    waiting = [pool.submit(cache.fetch, "k", slow) for cache in caches]
    until(lambda: all("k" in cache._flight._flights for cache in caches))
    stopped.go_on.set()
    with pytest.raises(KeyboardInterrupt):
        first.result(BOUND_S)
    assert slow.begun.wait(BOUND_S)
    slow.go_on.set()
    assert {each.result(BOUND_S).value for each in waiting} == {"theirs"}
    assert slow.calls == 1


# -- the claim that says so


@pytest.fixture
def claims(here: TwoTierCache) -> Claims:
    assert here.l2 is not None
    return Claims(here.l2.connection)


def held(client: redis.Redis, name: bytes) -> Claim:
    raw = client.get(name)
    assert isinstance(raw, bytes)
    return Claim.parse(raw)


def test_a_claim_given_back_tells_how_often_it_was_held_in_vain(claims: Claims, client: redis.Redis, namespace: str) -> None:
    """In a row, through those who take it over, and for a short time."""
    name = KeySpace(namespace).lease("k")
    assert claims.take(name, Claim.of("first", AsOf("e", 7)), 5.0) is None
    assert not claims.give_back(name, "another", TOLD_S)
    assert claims.give_back(name, "first", TOLD_S)
    told = held(client, name)
    assert told == Claim("-", "e", 7, in_vain=1)
    assert told.given_back
    assert 0 < client.pttl(name) <= TOLD_S * 1000
    assert claims.replace(name, told.owner, Claim.of("second", AsOf("e", 9), told.in_vain), 5.0)
    assert not claims.replace(name, told.owner, Claim.of("third", AsOf("e", 9), told.in_vain), 5.0), "two have taken it"
    assert held(client, name) == Claim("second", "e", 9, in_vain=1)
    assert claims.give_back(name, "second", TOLD_S)
    assert held(client, name) == Claim("-", "e", 9, in_vain=2)
    assert claims.replace(name, "-", Claim.of("fourth", AsOf("e", 9), 2), 5.0)
    assert claims.release(name, "fourth")
    assert client.get(name) is None


@pytest.mark.parametrize(
    "foreign", [b"", b"\xff\xfe", b"one", b"a b c", b"mine e " + b"9" * 5_000, b"mine e 1 -" + b"9" * 5_000], ids=len
)
def test_a_text_that_is_no_claim_is_given_back_and_read_all_the_same(
    claims: Claims, client: redis.Redis, namespace: str, foreign: bytes
) -> None:
    """No caller waits for it, whatever it is."""
    name = KeySpace(namespace).lease("k")
    client.set(name, foreign)
    owner = Claim.parse(foreign).owner
    assert claims.give_back(name, owner, TOLD_S)
    assert held(client, name).given_back
    assert held(client, name).in_vain >= 0


@pytest.mark.parametrize("claim", [Claim("a", "e", 1), Claim("a", "e", 1, in_vain=3), Claim("-", "", -1)], ids=str)
def test_a_claim_is_read_as_it_was_written(claim: Claim) -> None:
    """Also when another caller shares it; the words behind it stand in this order."""
    assert Claim.parse(str(claim).encode()) == claim
    assert Claim.parse(f"{claim} +".encode()) == claim._replace(shared=claim.seq >= 0)
