"""The circuit breaker with a clock that is told the time."""

from __future__ import annotations

import threading

from faults import Clock

from pipeline.cache.server.breaker import CircuitBreaker


def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(pause_s=1.0, clock=clock)


def test_it_is_closed_at_first_and_lets_everybody_pass() -> None:
    """Nothing is wrong until something failed."""
    subject = breaker(Clock())
    assert subject.closed
    assert all(subject.admits() for _ in range(100))
    subject.succeeded()
    assert subject.closed
    assert subject.opened_count == 0


def test_after_a_failure_nobody_passes_until_the_pause_is_over() -> None:
    """Then one at a time: the probe."""
    clock = Clock()
    subject = breaker(clock)
    subject.failed()
    assert not subject.closed
    clock.tick(0.999)
    assert not subject.admits()
    clock.tick(0.001)
    assert [subject.admits() for _ in range(5)] == [True, False, False, False, False]
    assert not subject.closed


def test_a_probe_that_succeeds_closes_it_for_everybody() -> None:
    """At once."""
    clock = Clock()
    subject = breaker(clock)
    subject.failed()
    clock.tick(1)
    assert subject.admits()
    subject.succeeded()
    assert subject.closed
    assert all(subject.admits() for _ in range(5))


def test_a_probe_that_fails_begins_the_pause_anew() -> None:
    """Counted from its failure, not from its start."""
    clock = Clock()
    subject = breaker(clock)
    subject.failed()
    clock.tick(1)
    assert subject.admits()
    clock.tick(0.8)
    subject.failed()
    clock.tick(0.999)
    assert not subject.admits()
    clock.tick(0.001)
    assert subject.admits()


def test_a_probe_that_never_reports_is_forgotten_after_a_pause() -> None:
    """A thread that died with it does not keep the server away for ever."""
    clock = Clock()
    subject = breaker(clock)
    subject.failed()
    clock.tick(1)
    assert subject.admits()
    clock.tick(0.999)
    assert not subject.admits()
    clock.tick(0.001)
    assert subject.admits()


def test_failures_that_were_under_way_together_open_it_once() -> None:
    """`opened_count` is the number of outages, not of calls that met one."""
    clock = Clock()
    subject = breaker(clock)
    for _ in range(10):
        subject.failed()
    assert subject.opened_count == 1
    clock.tick(1)
    assert subject.admits()
    subject.failed()
    assert subject.opened_count == 1
    subject.succeeded()
    subject.failed()
    assert subject.opened_count == 2


def test_of_many_threads_one_is_the_probe() -> None:
    """However they race for it."""
    clock = Clock()
    for _ in range(50):
        subject = breaker(clock)
        subject.failed()
        clock.tick(1)
        barrier = threading.Barrier(6)
        admitted: list[bool] = []

        def ask(subject: CircuitBreaker = subject, barrier: threading.Barrier = barrier, admitted: list[bool] = admitted) -> None:
            barrier.wait(20)
            admitted.append(subject.admits())

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sorted(admitted) == [False] * 5 + [True]
