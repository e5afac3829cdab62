"""The task that is queued or running for a key: which callers may join it, and what its owner may not do then."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import redis
from faults import Clock

from pipeline.cache import LocalCache, RedisCache, TwoTierCache
from pipeline.cache.flight.in_flight import ENTERED_S, QUEUED_S, InFlight
from pipeline.cache.keys import KeySpace

MakeCache = Callable[..., TwoTierCache]


def in_flight(cache: TwoTierCache) -> InFlight:
    assert cache.in_flight is not None
    cache.refresh()
    return cache.in_flight


def test_the_first_enters_and_the_others_join_him(here: TwoTierCache, there: TwoTierCache) -> None:
    assert in_flight(here).enter("k", (), "first") is None
    assert in_flight(there).enter("k", (), "second") == "first"
    assert in_flight(here).enter("k", (), "third") == "first"
    assert in_flight(here).enter("other", (), "fourth") is None
    assert in_flight(there).holds("k", "first")
    assert not in_flight(there).holds("k", "second")
    in_flight(here).leave("k", "first")
    assert in_flight(there).enter("k", (), "fifth") is None


def test_how_long_a_task_has_been_queued_is_known_to_all_that_wait_for_it(
    make: MakeCache, there: TwoTierCache, client: redis.Redis, namespace: str
) -> None:
    """A task that runs, is only being queued, or is to begin later, waits for nothing that a look at its queue could tell."""
    here, name = make(lease_s=0.3), KeySpace(namespace).in_flight("k")
    assert in_flight(there).waits_s("k", "task") is None
    assert in_flight(here).enter("k", (), "task") is None
    assert in_flight(there).waits_s("k", "task") == 0
    in_flight(here).renew("k", "task")
    client.pexpire(name, round((QUEUED_S - 7) * 1000))
    assert in_flight(there).waits_s("k", "task") == pytest.approx(7, abs=1)
    assert in_flight(there).waits_s("k", "other") is None
    in_flight(here).renew("k", "task", begins_in_s=10)
    assert in_flight(there).waits_s("k", "task") == 0
    with in_flight(here).running("k", "task"):
        assert in_flight(there).waits_s("k", "task") == 0


def test_those_of_another_name_are_joined_by_none_but_each_other(here: TwoTierCache, there: TwoTierCache) -> None:
    """A batch's task may be queued behind a thousand others: a caller that is in a hurry does not wait for it."""
    assert in_flight(here).enter("k", ("dep",), "batch", entered_as="bulk k") is None
    assert in_flight(there).enter("k", ("dep",), "hurried") is None
    assert in_flight(there).enter("k", ("dep",), "batch 2", entered_as="bulk k") == "batch"
    assert in_flight(there).holds("bulk k", "batch")
    there.invalidate("k")  # it is judged by its key all the same
    assert in_flight(here).enter("k", ("dep",), "batch 3", entered_as="bulk k") is None


def test_what_runs_is_in_flight_for_as_long_as_its_process_lives(make: MakeCache, client: redis.Redis, namespace: str) -> None:
    """However long that is; and a task that was queued for minutes is forgotten within a lease when its process dies."""
    lease_s = 0.3
    cache = make(lease_s=lease_s)
    assert in_flight(cache).enter("k", (), "task") is None
    in_flight(cache).renew("k", "task")
    name = KeySpace(namespace).in_flight("k")
    with in_flight(cache).running("k", "task"):
        ends_s = time.monotonic() + 4 * lease_s
        while time.monotonic() < ends_s:
            left_ms = client.pttl(name)
            assert 0 < left_ms <= lease_s * 1000
            time.sleep(0.01)
    assert in_flight(cache).holds("k", "task")  # until it leaves, or runs out


@pytest.mark.parametrize("pattern", ["k", "dep", "*"])
def test_nobody_joins_a_task_from_before_an_invalidation(here: TwoTierCache, there: TwoTierCache, pattern: str) -> None:
    """The next caller takes its place, and no other does: the others join that one."""
    assert in_flight(here).enter("k", ("dep",), "old") is None
    there.invalidate(pattern)
    assert in_flight(here).enter("k", ("dep",), "new") is None
    assert in_flight(there).enter("k", ("dep",), "late") == "new"
    in_flight(here).leave("k", "old")  # its end is no longer the key's
    assert in_flight(there).holds("k", "new")


def test_an_invalidation_of_something_else_forbids_nothing(here: TwoTierCache, there: TwoTierCache) -> None:
    assert in_flight(here).enter("k", ("dep",), "old") is None
    there.invalidate("other:*")
    assert in_flight(there).enter("k", ("dep",), "new") == "old"


def test_who_knows_less_of_the_log_than_the_owner_joins_all_the_same(here: TwoTierCache, there: TwoTierCache) -> None:
    """The caller is behind, not the task."""
    lagging = in_flight(there)
    here.invalidate("k")
    assert in_flight(here).enter("k", (), "after") is None
    assert lagging.enter("k", (), "mine") == "after"


def test_an_owner_withdraws_only_what_nobody_has_joined(here: TwoTierCache, there: TwoTierCache) -> None:
    assert in_flight(here).enter("alone", (), "a") is None
    assert in_flight(here).withdraw("alone", "a")
    assert not in_flight(here).holds("alone", "a")
    assert in_flight(here).enter("shared", (), "b") is None
    assert in_flight(there).enter("shared", (), "c") == "b"
    assert not in_flight(here).withdraw("shared", "b")
    assert in_flight(there).holds("shared", "b")
    in_flight(here).renew("shared", "b")
    assert not in_flight(here).withdraw("shared", "b"), "a renewal forgets who has joined"


def test_each_record_ends_by_itself(here: TwoTierCache, client: redis.Redis, namespace: str) -> None:
    """A producer or worker that dies leaves no record for ever, and one of a task that is not queued yet for seconds only."""
    name = KeySpace(namespace).in_flight("k")
    assert in_flight(here).enter("k", (), "mine") is None
    assert 0 < client.pttl(name) <= ENTERED_S * 1000
    in_flight(here).renew("k", "mine")
    assert ENTERED_S * 1000 < client.pttl(name) <= QUEUED_S * 1000
    in_flight(here).renew("k", "another's")
    in_flight(here).enter("k", (), "joined")
    assert ENTERED_S * 1000 < client.pttl(name) <= QUEUED_S * 1000, "joining changes how long it lives"


@pytest.mark.parametrize("foreign", [b"", b"\xff\xfe", b"one", b"a b c", b"a b -1"], ids=repr)
def test_a_record_that_is_none_is_replaced(here: TwoTierCache, client: redis.Redis, namespace: str, foreign: bytes) -> None:
    client.set(KeySpace(namespace).in_flight("k"), foreign)
    assert in_flight(here).enter("k", (), "mine") is None
    assert in_flight(here).holds("k", "mine")


def test_without_the_server_everybody_is_on_his_own(clock: Clock) -> None:
    """No error, no joining, and no refresh: where no server can be asked, a refresh is not sent twice."""
    cache = TwoTierCache(LocalCache(10), RedisCache(url="redis://127.0.0.1:1/0"), clock=clock)
    alone = cache.in_flight
    assert alone is not None
    assert alone.enter("k", (), "mine") is None
    assert alone.holds("k", "mine")
    assert not alone.withdraw("k", "mine"), "nobody knows whether it is shared"
    assert not alone.may_refresh("k", 5)
    alone.renew("k", "mine")
    alone.leave("k", "mine")
    assert TwoTierCache().in_flight is None
