"""Holes that the model of the protocol (`tests/model`) has found, on the real code: each was red before its mend."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import pytest

from pipeline.cache import MISS, LocalCache, RedisCache, TwoTierCache
from pipeline.cache.coherence import bus as bus_module
from pipeline.cache.coherence.bus import NodeBus
from pipeline.cache.coherence.log import RedisInvalidationLog
from pipeline.cache.coherence.node import NodeFollower
from pipeline.cache.coherence.registry import NodeRegistry
from pipeline.cache.coherence.view import InvalidationView
from pipeline.cache.flight.computation import Computation
from pipeline.cache.flight.filling import Filling
from pipeline.cache.keys import KeySpace
from pipeline.cache.lineage import Lineage
from pipeline.cache.server.connection import RedisConnection


def test_an_invalidation_while_the_dep_is_computed(redis_url: str, namespace: str) -> None:
    """By a process that learns of it: the dep's own fill is discarded, and what was computed from it must be, too."""

    def c_of(here: TwoTierCache, b: Callable[[], str]) -> str:
        as_of = here.as_of()
        value = here.get_or_compute("b", b, deps=("a",))  # outside of c's computation, which would note what it reads
        return here.get_or_compute("c", lambda: "c of " + value, deps=("b",), as_of=as_of)

    _while_b_is_computed(redis_url, namespace, c_of)


def test_an_invalidation_while_the_dep_is_computed_within(redis_url: str, namespace: str) -> None:
    """As above, where c's own computation asks for the dep."""

    def c_of(here: TwoTierCache, b: Callable[[], str]) -> str:
        return here.get_or_compute("c", lambda: "c of " + here.get_or_compute("b", b, deps=("a",)), deps=("b",))

    _while_b_is_computed(redis_url, namespace, c_of)


def _while_b_is_computed(redis_url: str, namespace: str, c_of: Callable[[TwoTierCache, Callable[[], str]], str]) -> None:
    with ExitStack() as opened:
        here = opened.enter_context(
            closing(TwoTierCache(LocalCache(), RedisCache(url=redis_url, namespace=namespace), staleness_bound_s=1e-9))
        )
        there = opened.enter_context(
            closing(TwoTierCache(LocalCache(), RedisCache(url=redis_url, namespace=namespace), staleness_bound_s=1e-9))
        )
        source = {"a": "old"}

        def b() -> str:
            value = source["a"]
            source["a"] = "new"
            assert there.invalidate("a").durable
            here.lookup("something else")  # by which the process learns of it
            return value

        assert c_of(here, b) == "c of old"
        assert here.get("b") is MISS
        assert there.get("c") is MISS
        assert here.get("c") is MISS


def test_a_sweep_while_c_is_computed(redis_url: str, namespace: str) -> None:
    """The dep's entry is in neither tier when its deps are looked for."""
    with ExitStack() as opened:
        here = opened.enter_context(
            closing(TwoTierCache(LocalCache(max_size=1), RedisCache(url=redis_url, namespace=namespace), staleness_bound_s=1e-9))
        )
        there = opened.enter_context(
            closing(TwoTierCache(LocalCache(), RedisCache(url=redis_url, namespace=namespace), staleness_bound_s=1e-9))
        )

        as_of = here.as_of()
        value = here.get_or_compute("b", lambda: "old", deps=("a",))  # outside, as above
        assert there.invalidate("a").durable
        here.get("b")  # drops the slot
        there.sweep()
        assert here.get_or_compute("c", lambda: "c of " + value, deps=("b",), as_of=as_of) == "c of old"
        assert there.get("c") is MISS
        assert here.get("c") is MISS


def test_two_threads_follow_the_bus(redis_url: str, namespace: str) -> None:
    """What one hears of is not forgotten by the other, which has found all that was heard before in the log."""
    with ExitStack() as opened:
        bus = NodeBus()
        connection = opened.enter_context(closing(RedisConnection(redis_url, retry_pause_s=0.0)))
        keys = KeySpace(namespace)
        log = RedisInvalidationLog(connection, keys, retention_s=3600.0)
        follower = NodeFollower("node", bus, log, NodeRegistry(connection, keys))
        follower.beat()
        child = opened.enter_context(
            closing(TwoTierCache(LocalCache(), RedisCache(url=redis_url, namespace=namespace), bus=bus, max_ttl_s=3600.0))
        )
        child.refresh()
        child.get_or_compute("k", lambda: "old")
        # It was volatile, and is in the log by now.
        follower.receive("", 0, ["x"])
        follower.beat()
        coherence = child._coherence
        view = coherence.view
        settle = view.settle_heard

        def held(count: int) -> None:
            # The other thread hears of an invalidation that no log has.
            view.settle_heard = settle  # type: ignore[method-assign]
            follower.receive("", 0, ["k"])
            thread = threading.Thread(target=lambda: seen.append(child.get("k")))
            thread.start()
            thread.join()
            settle(count)

        seen: list[object] = []
        view.settle_heard = held  # type: ignore[method-assign]
        child.get("other")
        assert seen == [MISS]
        assert child.get("k") is MISS


def test_a_main_process_that_is_broken_off_in_the_middle_of_a_write(redis_url: str, namespace: str) -> None:
    """The bus is empty then, and no child may take that for having no news."""
    with ExitStack() as opened:
        bus = NodeBus()
        connection = opened.enter_context(closing(RedisConnection(redis_url, retry_pause_s=0.0)))
        keys = KeySpace(namespace)
        log = RedisInvalidationLog(connection, keys, retention_s=3600.0)
        follower = NodeFollower("node", bus, log, NodeRegistry(connection, keys))
        follower.beat()
        child = opened.enter_context(
            closing(TwoTierCache(LocalCache(), RedisCache(url=redis_url, namespace=namespace), bus=bus, staleness_bound_s=3600.0))
        )
        other = opened.enter_context(closing(TwoTierCache(LocalCache(), RedisCache(url=redis_url, namespace=namespace))))
        child.refresh()
        child.get_or_compute("k", lambda: "old")
        done = other.invalidate("k")
        assert follower.receive(done.epoch, done.seq, ["k"]) is not None
        with pytest.raises(KeyboardInterrupt), bus._writing():
            raise KeyboardInterrupt
        assert child.get("k") is MISS


def test_an_as_of_from_between_the_state_and_its_generation(
    redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that stands there, or was broken off there, has published what judges, and not yet that L1 is to be judged by
    it: b is served by the lease, and c, computed from it, must not count as newer than the invalidation."""
    with ExitStack() as opened:
        here = opened.enter_context(
            closing(TwoTierCache(LocalCache(), RedisCache(url=redis_url, namespace=namespace), staleness_bound_s=3600.0))
        )
        there = opened.enter_context(closing(TwoTierCache(LocalCache(), RedisCache(url=redis_url, namespace=namespace))))
        here.get_or_compute("b", lambda: "old", deps=("a",))
        assert there.invalidate("a").durable

        def broken_off(view: InvalidationView, known: Any) -> None:
            view._state = known._replace(generation=view._state.generation + 1)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(InvalidationView, "_publish", broken_off)
            with pytest.raises(KeyboardInterrupt):
                here.refresh()
        as_of = here.as_of()
        here.fill("c", f"c of {here.get('b')}", deps=("b", "a"), as_of=as_of)
        assert there.get("c") in (MISS, f"c of {MISS}"), "MISS"


def forgets_the_deps_of_discarded_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lineage, "note", lambda *_: None)


def records_and_remembers_no_deps_of_deps(monkeypatch: pytest.MonkeyPatch) -> None:
    with_theirs: Callable[..., tuple[str, ...]] = Filling.with_theirs
    monkeypatch.setattr(Filling, "with_theirs", lambda filling, deps, known=(): with_theirs(filling, deps))  # noqa: ARG005
    monkeypatch.setattr(Computation, "deps", lambda computation: tuple(computation.read.keys() - {computation.key}))
    forgets_the_deps_of_discarded_values(monkeypatch)


def forgets_all_that_was_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    settle = InvalidationView.settle_heard
    monkeypatch.setattr(InvalidationView, "settle_heard", lambda view, _count: settle(view, view._heard_count))


def takes_a_write_that_was_broken_off_for_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_module, "_BROKEN_OFF", b"")


@pytest.mark.parametrize(
    ("take_out", "shown_by"),
    [
        (forgets_the_deps_of_discarded_values, test_an_invalidation_while_the_dep_is_computed),
        (records_and_remembers_no_deps_of_deps, test_an_invalidation_while_the_dep_is_computed_within),
        (forgets_the_deps_of_discarded_values, test_a_sweep_while_c_is_computed),
        (forgets_all_that_was_heard, test_two_threads_follow_the_bus),
        (takes_a_write_that_was_broken_off_for_no_news, test_a_main_process_that_is_broken_off_in_the_middle_of_a_write),
    ],
)
def test_a_cache_without_the_mend_serves_stale(
    take_out: Callable[[pytest.MonkeyPatch], None],
    shown_by: Callable[[str, str], None],
    redis_url: str,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that each of the tests above can fail, and for the reason that it names."""
    take_out(monkeypatch)
    with pytest.raises(AssertionError, match="MISS"):
        shown_by(redis_url, namespace)
