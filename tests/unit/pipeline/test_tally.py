"""The counts of a process: exact among threads, times to 6 %, and cheap enough to be sorted later."""

from __future__ import annotations

import math
import random
import threading
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.figures.fields import QUEUE_WAIT, SERIES, STALENESS
from pipeline.figures.histogram import BUCKETS, LEAST_MS, MOST_MS, bounds_ms, count_buckets, middle_ms, quantiles_ms
from pipeline.figures.tally import FOLD_AT, Tally

TIMES_MS = st.floats(min_value=0.0, max_value=1e12, allow_subnormal=True)


def bucket_of(ms: float) -> int:
    """The one bucket that a time falls into."""
    (bucket,) = count_buckets([ms])
    return bucket


# -- buckets


@given(st.floats(min_value=LEAST_MS, max_value=MOST_MS))
def test_a_time_read_back_is_off_by_6_percent_at_most(ms: float) -> None:
    """The bucket holds it, and its middle stands for it."""
    low, high = bounds_ms(bucket_of(ms))
    assert low <= ms < high
    assert abs(middle_ms(bucket_of(ms)) - ms) <= 0.0626 * ms


def test_the_buckets_are_bounded_and_follow_each_other_without_a_gap() -> None:
    """Whatever comes in, a process, a slot and a page have no more of them than this."""
    assert 200 <= BUCKETS <= 256
    assert [bucket_of(ms) for ms in (0.0, 5e-324, LEAST_MS / 2, LEAST_MS)] == [0] * 4
    assert [bucket_of(ms) for ms in (MOST_MS, 1e300, math.inf)] == [BUCKETS - 1] * 3
    assert all(bounds_ms(bucket)[1] == bounds_ms(bucket + 1)[0] for bucket in range(BUCKETS - 1))


@given(st.lists(TIMES_MS, max_size=60) | st.lists(st.floats(min_value=0.0001, max_value=1.9), max_size=60))
def test_many_are_counted_as_one_by_one(samples: list[float]) -> None:
    """Both by the short way, when all of them are of usual length, and by the other."""
    assert count_buckets(samples) == Counter(map(bucket_of, samples))


@given(st.lists(st.floats(min_value=0.001, max_value=100_000), min_size=1, max_size=200), st.sampled_from((0.5, 0.99, 1.0)))
def test_a_quantile_is_that_of_the_times_themselves(samples: list[float], share: float) -> None:
    """By nearest rank, and off by no more than the bucket is wide."""
    exact = sorted(samples)[math.ceil(share * len(samples)) - 1]
    assert quantiles_ms(count_buckets(samples), share)[0] == pytest.approx(exact, rel=0.0626)


def test_the_quantile_of_nothing_is_0() -> None:
    """A page shows it before the first request."""
    assert quantiles_ms({}, 0.5, 0.99) == [0.0, 0.0]


# -- counting


def test_what_threads_record_while_others_take_it_away_is_counted_once_each() -> None:
    """No record is lost or counted twice, whichever thread folds: one that records, one that asks, one that reports."""
    tally, threads, times = Tally(), 6, 10_000
    taken: Counter[str] = Counter()
    recorded = threading.Event()

    def record() -> None:
        for _ in range(times):
            tally.record("l1", 0.5)
            tally.record("no", 1.5)

    def take() -> None:
        while not recorded.is_set():
            taken.update(tally.take())
            tally.snapshot()

    recorders = [threading.Thread(target=record) for _ in range(threads)]
    taker = threading.Thread(target=take)
    for thread in (*recorders, taker):
        thread.start()
    for thread in recorders:
        thread.join()
    recorded.set()
    taker.join()
    taken.update(tally.take())
    assert taken["n.l1"] == taken["n.no"] == threads * times
    assert taken[f"b.l1.{bucket_of(0.5)}"] == threads * times
    assert (taken["us.l1"], taken["us.no"]) == (threads * times * 500, threads * times * 1500)
    counted = tally.snapshot()
    assert (counted["l1"].count, counted["no"].sum_ms) == (threads * times, threads * times * 1.5)


class Interrupted(list[float]):
    """Another thread records right after each time that the waiting samples were looked at."""

    def __getitem__(self, part: Any) -> Any:
        found = super().__getitem__(part)
        self.append(4.0)
        return found


def test_what_is_recorded_in_the_middle_of_folding_counts_with_what_comes_next() -> None:
    """The race of the test above, forced."""
    tally = Tally()
    tally.samples["l1"] = Interrupted([1.0, 2.0])
    assert [tally.take()["n.l1"] for _ in range(3)] == [2, 1, 1]
    assert tally.snapshot()["l1"].sum_ms == 1 + 2 + 4 + 4 + 4


def test_what_waits_to_be_sorted_is_bounded() -> None:
    """Also where no thread reports, nor ever asks."""
    tally = Tally()
    for _ in range(3 * FOLD_AT + 5):
        tally.record("l1", 0.01)
    assert len(tally.samples["l1"]) < FOLD_AT
    assert tally.snapshot()["l1"].count == 3 * FOLD_AT + 5


def test_of_many_a_part_tells_how_they_are_spread_and_none_is_left_out_of_the_number() -> None:
    """Whatever turn the times take: here one in twenty is long, and they come in a round of fourteen."""
    tally = Tally()
    tally._choices = random.Random(1).choices  # which part is taken is chance: here always the same one
    for number in range(FOLD_AT - 1):
        tally.record("l1", 50.0 if number % 20 == 7 else 0.01 * (1 + number % 14))
    fresh = tally.take()
    buckets = {int(field.rpartition(".")[2]): count for field, count in fresh.items() if field.startswith("b.l1.")}
    assert sum(buckets.values()) == fresh["n.l1"] == FOLD_AT - 1
    p50_ms, p99_ms = quantiles_ms(buckets, 0.5, 0.99)
    assert p50_ms == pytest.approx(0.07, rel=0.25)
    assert p99_ms == pytest.approx(50, rel=0.07)


def test_no_part_of_a_microsecond_is_lost_between_two_reports() -> None:
    """Reports carry whole ones; hits take few of them."""
    tally = Tally()
    reported_us = 0
    for _ in range(50):
        for _ in range(3):
            tally.record("l1", 0.00255)
        reported_us += tally.take()["us.l1"]
    assert reported_us == pytest.approx(50 * 3 * 2.55, abs=1)


def test_staleness_and_queue_wait_have_a_longest() -> None:
    """Their worst case is a figure; it is exact, to the microsecond."""
    tally = Tally()
    for series in (STALENESS, QUEUE_WAIT):
        for ms in (3.0, 41.3371, 0.0):
            tally.record(series, ms)
    fresh = tally.take()
    assert (fresh["max.staleness"], fresh["max.queue_wait"]) == (41337, 41337)
    assert "max.l1" not in fresh


def test_nothing_is_taken_twice() -> None:
    """The records that were taken are the reporter's."""
    tally = Tally()
    tally.record("l2", 1.0)
    tally.count("invalidations")
    first = tally.take()
    assert (first["n.l2"], first["n.invalidations"]) == (1, 1)
    assert not tally.take()


def test_the_first_record_wakes_the_reporter_and_no_other_does() -> None:
    """Until it rests; the next records wake it once more."""
    woken: list[int] = []
    tally = Tally(lambda: woken.append(1))
    assert woken == []
    for _ in range(5):
        tally.record("l1", 1.0)
    assert len(woken) == 1
    tally.rest()
    for _ in range(5):
        tally.record("l1", 1.0)
    assert len(woken) == 2
    assert tally.snapshot()["l1"].count == 10


def test_what_begins_anew_has_nothing_of_before() -> None:
    """A forked child."""
    woken: list[int] = []
    tally = Tally(lambda: woken.append(1))
    for series in SERIES:
        tally.record(series, 1.0)
    tally.forget()
    assert not tally.take()
    assert all(counted.count == 0 for counted in tally.snapshot().values())
    tally.record("no", 2.0)
    assert tally.snapshot()["no"].sum_ms == 2.0
    assert len(woken) == 2
