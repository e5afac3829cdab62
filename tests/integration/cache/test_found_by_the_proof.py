"""Holes that the proof by induction (`tests/model/proof`) has found, on the real code: each was red before its mend."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest
from broken_off import broken_off_at
from faults import Clock, SteppedLog, SteppedRedisCache
from polling import BOUND_S
from servers import ValkeyServer

from pipeline.cache import MISS, AsOf, LocalCache, RedisCache, TwoTierCache
from pipeline.cache.coherence.process import Coherence
from pipeline.cache.coherence.tail import Tail
from pipeline.cache.coherence.view import InvalidationView
from pipeline.cache.keys import KeySpace

A_MINUTE_S = 60.0


class SlowThread:
    """A thread that stands still at one step of its call, until it is told to go on."""

    def __init__(self) -> None:
        self._stands_still, self._go_on = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self) -> None:
        """The step. Any other thread passes."""
        if threading.current_thread() is self._thread and not self._go_on.is_set():
            self._stands_still.set()
            assert self._go_on.wait(BOUND_S)

    def begin(self, call: Callable[[], object]) -> None:
        """Returns when it stands still."""
        self._thread = threading.Thread(target=call)
        self._thread.start()
        assert self._stands_still.wait(BOUND_S)

    def end(self) -> None:
        """Let it go on, and wait for its end."""
        self._go_on.set()
        assert self._thread is not None
        self._thread.join(BOUND_S)
        assert not self._thread.is_alive()


@contextmanager
def slow_threads(count: int) -> Iterator[list[SlowThread]]:
    """So many, which end with the block at the latest."""
    threads = [SlowThread() for _ in range(count)]
    try:
        yield threads
    finally:
        for thread in threads:
            thread._go_on.set()


def test_a_computation_begins_between_two_steps_of_a_publication(redis_url: str, namespace: str) -> None:
    """A writer is broken off after the state that judges, and before its generation. A computation that begins then must not
    count as newer than what L1 judges its inputs by."""
    step, reached = 0, True
    while reached:
        step += 1
        name = f"{namespace}-{step}"
        here = TwoTierCache(LocalCache(), RedisCache(url=redis_url, namespace=name), staleness_bound_s=A_MINUTE_S)
        there = TwoTierCache(LocalCache(), RedisCache(url=redis_url, namespace=name))
        here.get_or_compute("b", lambda: "old", deps=("a",))
        assert there.invalidate("a").durable
        reached = broken_off_at(step, here.refresh, "coherence/view.py")
        as_of = here.as_of()
        b = here.get("b", "new")
        here.fill("c", f"c of {b}", deps=("b",), as_of=as_of)
        assert there.get_or_compute("c", lambda: "c of new") == "c of new", f"broken off at step {step}"
        here.close()
        there.close()
    assert step > 10


def test_a_late_page_of_a_former_log_while_a_value_is_computed(valkey: ValkeyServer, namespace: str) -> None:
    """Three threads load the log as a process begins, while it begins anew. The view must not go back to the former log: a value
    whose computation began by the later one would be computed from what only the former one lets pass, and count as newer."""
    clock = Clock()
    l2 = SteppedRedisCache(valkey.url, namespace)
    here = TwoTierCache(LocalCache(), l2, staleness_bound_s=A_MINUTE_S, clock=clock)
    there = TwoTierCache(LocalCache(), RedisCache(url=valkey.url, namespace=namespace))
    here._coherence.log = log = SteppedLog(here._coherence.log)  # type: ignore[assignment]
    read = l2.read
    there.refresh()
    with closing(here), closing(there), slow_threads(3) as (first, second, third):

        def read_slowly(key: str) -> tuple[bytes | None, bytes | None]:
            first()
            second()
            return read(key)

        l2.read = read_slowly  # type: ignore[method-assign]
        log.after_read = third
        for thread, name in (first, "first"), (second, "second"), (third, "third"):
            thread.begin(lambda name=name: here.get(name))
            clock.tick(1)
        # The third has a page in hand; the others have asked before it, and nothing has reached the server yet.
        first.end()
        here.fill("b", "old", deps=("a",), as_of=here.as_of())
        l2.raw().delete(KeySpace(namespace).tail)
        assert there.invalidate("a").durable
        second.end()
        as_of = here.as_of()
        third.end()
        b = here.get("b", "new")
        here.get("anything")  # by which this process knows the log as it is
        here.fill("c", f"c of {b}", deps=("b",), as_of=as_of)
        assert there.get_or_compute("c", lambda: "c of new") == "c of new"


def test_a_page_that_came_too_late_is_no_reading_of_the_log(namespace: str) -> None:
    """After a failover the log itself is asked. Where the view could not take the answer, nothing has been learned by it: the
    tail that another thread has from the new server may be one that lost records."""
    with ValkeyServer() as master, slow_threads(2) as (refreshes, reads), ExitStack() as opened:
        clock = Clock()
        l2 = SteppedRedisCache(master.url, namespace)
        here = opened.enter_context(closing(TwoTierCache(LocalCache(), l2, staleness_bound_s=A_MINUTE_S, clock=clock)))
        l2_there = RedisCache(url=master.url, namespace=namespace, timeout_s=5.0)
        there = opened.enter_context(closing(TwoTierCache(LocalCache(), l2_there)))
        there.invalidate("something")
        here.get_or_compute("k", lambda: "old")
        with master.client() as client:
            client.save()

        class SlowLog(SteppedLog):
            @property
            def contacts(self) -> int:
                refreshes()
                return super().contacts

        here._coherence.log = SlowLog(here._coherence.log)  # type: ignore[assignment]
        refreshes.begin(here.refresh)  # it has noted when it asked, and does not know yet on which connection
        clock.tick(1)
        here.get("anything")  # confirms the view as of a later moment
        assert there.invalidate("k").durable
        master.kill()
        master.start()
        here.l1.clear()
        clock.tick(1)
        seen: list[object] = []
        l2.after_read = reads
        reads.begin(lambda: seen.append(here.get("k")))  # it has the entry, and a tail that lacks the record
        refreshes.end()
        reads.end()
        assert seen == [MISS]


def takes_as_of_from_a_half_published_state(monkeypatch: pytest.MonkeyPatch) -> None:
    def as_of(view: InvalidationView) -> AsOf:
        known = view._state
        return AsOf(known.tail.epoch, known.tail.seq, known.generation)

    monkeypatch.setattr(InvalidationView, "as_of", as_of)


def goes_back_to_a_former_log(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_late(view: InvalidationView, theirs: Tail, asked_at_s: float) -> bool:
        tail = view._state.tail
        return theirs.seq < tail.seq if theirs.epoch == tail.epoch else asked_at_s < view.confirmed_at_s

    monkeypatch.setattr(InvalidationView, "_is_late", is_late)


def counts_a_refused_page_as_a_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    read_log = Coherence._read_log

    def read(coherence: Coherence, asked_at_s: float | None = None) -> None:
        apply = coherence.view.apply
        coherence.view.apply = lambda *given: apply(*given) or True  # type: ignore[method-assign]
        try:
            read_log(coherence, asked_at_s)
        finally:
            coherence.view.apply = apply  # type: ignore[method-assign]

    monkeypatch.setattr(Coherence, "_read_log", read)


def test_without_its_mend_each_serves_stale(
    valkey: ValkeyServer, redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that each of the tests above can fail, and for the reason that it names."""
    with monkeypatch.context() as patch:
        takes_as_of_from_a_half_published_state(patch)
        with pytest.raises(AssertionError, match="c of old"):
            test_a_computation_begins_between_two_steps_of_a_publication(redis_url, f"{namespace}-m")
    with monkeypatch.context() as patch:
        goes_back_to_a_former_log(patch)
        with pytest.raises(AssertionError, match="c of old"):
            test_a_late_page_of_a_former_log_while_a_value_is_computed(valkey, f"{namespace}-n")
    with monkeypatch.context() as patch:
        counts_a_refused_page_as_a_reading(patch)
        with pytest.raises(AssertionError, match="'old'"):
            test_a_page_that_came_too_late_is_no_reading_of_the_log(f"{namespace}-o")
