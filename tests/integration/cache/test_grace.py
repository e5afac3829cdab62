"""Entries past their time to live: served at once while they are computed anew, or when that fails; and those that never are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
from faults import Clock

from pipeline.cache import MISS, Found, Grace, Kind, TwoTierCache
from pipeline.cache.keys import KeySpace

MakeCache = Callable[..., TwoTierCache]
TTL_S = 10.0
GRACE_S = 100.0


class Refresh:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1


@pytest.fixture
def refresh() -> Refresh:
    return Refresh()


@pytest.fixture
def later(clock: Clock, wall: Clock) -> Callable[[float], None]:
    """Time passes for all but the server, which is to keep what the grace allows."""

    def pass_s(seconds: float) -> None:
        clock.tick(seconds)
        wall.tick(seconds)

    return pass_s


def forgives(error: Exception) -> bool:
    return isinstance(error, ConnectionError)


def fails() -> Any:
    raise ConnectionError("the model is away")


def fetch(cache: TwoTierCache, compute: Callable[[], object], **grace: Any) -> Found:
    return cache.fetch("k", compute, Kind(ttl=TTL_S), deps=("dep",), grace=Grace(GRACE_S, **grace))


def test_past_its_time_it_is_served_at_once_and_refreshed(
    here: TwoTierCache, there: TwoTierCache, refresh: Refresh, later: Callable[[float], None]
) -> None:
    fetch(there, lambda: "old")
    assert fetch(here, lambda: pytest.fail("computed"), refresh=refresh) == Found("old", "l2", deps=("dep",))
    later(TTL_S - 1)
    assert fetch(here, lambda: pytest.fail("computed"), refresh=refresh) == Found("old", "l1", deps=("dep",))
    later(2)
    for served in (1, 2):
        assert fetch(here, lambda: pytest.fail("computed"), refresh=refresh) == Found("old", "stale", deps=("dep",))
        assert refresh.calls == served
    assert here.get_stats()["stale"] == 2
    # A caller that may not be served it computes it anew, for all.
    assert fetch(there, lambda: "new", max_age_s=0.0) == Found("new", "no", deps=("dep",))
    assert fetch(here, lambda: pytest.fail("computed"), refresh=refresh) == Found("new", "l2", deps=("dep",))
    assert refresh.calls == 2


def test_a_plain_read_knows_no_grace(here: TwoTierCache, later: Callable[[float], None]) -> None:
    fetch(here, lambda: "old")
    later(TTL_S + 1)
    assert here.get("k") is MISS
    assert here.lookup("k") is MISS
    assert here.lookup("k", stale_age_s=1000) == Found("old", "stale", deps=("dep",))


def test_the_server_keeps_it_for_its_time_and_its_grace_and_no_longer(
    here: TwoTierCache, client: redis.Redis, namespace: str
) -> None:
    fetch(here, lambda: "old")
    left_ms = client.pttl(KeySpace(namespace).entry("k"))
    assert TTL_S + GRACE_S - 20 < left_ms / 1000 <= TTL_S + GRACE_S


@pytest.mark.parametrize(("max_age_s", "source"), [(None, "stale"), (TTL_S + 6, "stale"), (TTL_S + 4, "no"), (0.0, "no")])
def test_the_call_says_how_old_it_may_be(
    here: TwoTierCache, refresh: Refresh, later: Callable[[float], None], max_age_s: float | None, source: str
) -> None:
    """0 is never; and within its time to live it is served whatever the call says."""
    fetch(here, lambda: "old")
    assert fetch(here, lambda: "new", refresh=refresh, max_age_s=max_age_s).source == "l1"
    later(TTL_S + 5)
    assert fetch(here, lambda: "new", refresh=refresh, max_age_s=max_age_s).source == source
    assert refresh.calls == (source == "stale")


@pytest.mark.parametrize("pattern", ["k", "dep", "*"])
def test_what_was_invalidated_is_served_by_neither(
    here: TwoTierCache, there: TwoTierCache, refresh: Refresh, later: Callable[[float], None], pattern: str
) -> None:
    fetch(here, lambda: "old")
    later(TTL_S + 1)
    there.invalidate(pattern)
    with pytest.raises(ConnectionError):
        fetch(here, fails, refresh=refresh, forgives=forgives)
    assert refresh.calls == 0


def test_when_the_computation_fails_the_last_good_value_is_served(here: TwoTierCache, later: Callable[[float], None]) -> None:
    fetch(here, lambda: "old")
    later(TTL_S + 1)
    assert fetch(here, fails, forgives=forgives) == Found("old", "stale", deps=("dep",))
    assert here.get("k") is MISS


def test_an_invalidation_while_the_computation_fails_counts(
    here: TwoTierCache, there: TwoTierCache, later: Callable[[float], None]
) -> None:
    """The last good value was looked for before it; it is judged once more after it."""
    fetch(here, lambda: "old")
    later(TTL_S + 1)

    def invalidated_meanwhile() -> Any:
        there.invalidate("dep")
        raise ConnectionError("the model is away")

    with pytest.raises(ConnectionError):
        fetch(here, invalidated_meanwhile, forgives=forgives)


def test_only_what_is_forgiven_is_covered(here: TwoTierCache, later: Callable[[float], None]) -> None:
    """A mistake of the caller's is not hidden behind an old answer; and the call may ask for no old answers at all."""
    fetch(here, lambda: "old")
    later(TTL_S + 1)

    def wrong() -> Any:
        raise KeyError("a mistake")

    with pytest.raises(KeyError):
        fetch(here, wrong, forgives=forgives)
    with pytest.raises(ConnectionError):
        fetch(here, fails, forgives=forgives, max_age_s=0.0)


def test_one_process_in_the_fleet_refreshes_a_key(here: TwoTierCache, there: TwoTierCache) -> None:
    assert here.in_flight is not None
    assert there.in_flight is not None
    assert [each.may_refresh("k", 60) for each in (here.in_flight, there.in_flight, here.in_flight)] == [True, False, False]
    assert there.in_flight.may_refresh("other", 60)


@pytest.mark.parametrize("grace_s", [-1.0, 1e6, float("nan")])
def test_a_grace_beyond_what_the_log_remembers_is_refused(here: TwoTierCache, grace_s: float) -> None:
    """An entry that outlives the records of its invalidation could not be judged."""
    with pytest.raises(ValueError, match="grace"):
        here.fetch("k", lambda: 1, Kind(ttl=TTL_S), grace=Grace(grace_s))
