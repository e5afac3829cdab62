"""Each checker passes a right history, and reports one in which a single thing is changed."""

from __future__ import annotations

import random
from typing import Any

import pytest

from reliability.checkers import (
    Served,
    Task,
    Told,
    Version,
    begun_too_often,
    leaked,
    lost,
    stale,
    too_late,
    twice,
    wrong,
)
from reliability.result import Result
from reliability.rows.deaths import converted
from reliability.rows.users import look_alikes
from reliability.soak.sampling import Sample
from reliability.soak.slopes import breaches, slopes

RIGHT = [Task(f"task {number}", 1.0, 2.0) for number in range(3)]
VERSIONS = [Version(2, 10.0), Version(3, 0.0), Version(4, 20.0)]
CANARIES = {"one": "Canary1Q", "two": "Canary2Q"}


@pytest.mark.parametrize(
    ("checker", "change"),
    [
        (lost, {"answered_s": 0.0}),
        (wrong, {"right": False}),
        (twice, {"outcomes": 2}),
        (lambda tasks: begun_too_often(tasks, 2), {"starts": 3}),
    ],
)
def test_a_task_that_is_not_as_it_must_be_is_reported(checker: Any, change: dict[str, Any]) -> None:
    assert checker(RIGHT) == []
    changed = RIGHT[1]._replace(**change)
    assert checker([RIGHT[0], changed, RIGHT[2]]) == [changed]


@pytest.mark.parametrize(
    ("served", "is_stale"),
    [
        (Served(1, 10.9), False),  # within the bound
        (Served(1, 11.0), True),
        (Served(2, 20.9), False),  # the third one's invalidation was not durable: nothing was promised of it
        (Served(3, 20.9), False),
        (Served(2, 21.5), True),
        (Served(3, 21.5), True),
        (Served(4, 21.5), False),
    ],
)
def test_an_answer_is_stale_by_the_bound_and_by_what_was_durable(served: Served, is_stale: bool) -> None:
    assert stale([served], VERSIONS, 1.0) == [served] * is_stale


@pytest.mark.parametrize(
    ("text", "is_leaked"), [("Canary1Q", False), ("Canary2Q", True), ("", True), ("Canary1Q Canary2Q", True)]
)
def test_an_answer_leaks_with_anothers_canary_or_without_its_own(text: str, is_leaked: bool) -> None:
    told = Told("one", text)
    assert leaked([told], CANARIES) == [told] * is_leaked


def test_a_return_is_late_beyond_the_bound() -> None:
    assert too_late([0.5, 15.0, 15.1], 15.0) == [15.1]


def samples(grows_by: float, name: str = "rss_mb main") -> list[Sample]:
    """Half an hour; the first minutes are a warm-up, and each tenth sample is what a fault makes of it."""
    return [
        Sample(5.0 * number, {name: 100.0 + 40 * min(number / 60, 1) + grows_by * number / 360 + 30 * (number % 10 == 0)})
        for number in range(360)
    ]


@pytest.mark.parametrize(
    ("grows_by", "name", "reported"),
    [
        (0.0, "rss_mb main", False),
        (0.2, "rss_mb main", False),
        (2.0, "rss_mb main", True),
        (9.0, "rss_mb main", True),
        (9.0, "descriptors main", True),
        (60.0, "connections broker", True),
        (90.0, "keys cache", True),
        (90.0, "all_keys cache", False),  # most end by their own time to live
    ],
)
def test_what_grows_after_the_warm_up_is_reported(grows_by: float, name: str, reported: bool) -> None:
    assert bool(breaches(slopes(samples(grows_by, name)))) is reported


@pytest.mark.parametrize(
    ("grows_by", "told"), [(0.0, "at most 1"), (0.1, "at most 1"), (0.5, "cannot tell 1 from none"), (3.0, "more than 1")]
)
def test_half_an_hour_tells_a_megabyte_an_hour_from_none_or_says_that_it_cannot(grows_by: float, told: str) -> None:
    (slope,) = slopes(samples(grows_by))
    assert slope.told == told
    assert slope.low <= 2 * grows_by <= slope.high


def test_steps_that_stay_are_seldom_a_slope_beyond_doubt() -> None:
    """A walk without a drift, as memory's: 95 % confidence, of growth and of shrinking."""
    beyond = 0
    for seed in range(20):
        chance, at = random.Random(seed), 100.0
        walk = [at := at + chance.gauss(0, 0.1) for _ in range(360)]
        (slope,) = slopes([Sample(5.0 * number, {"rss_mb main": value}) for number, value in enumerate(walk)])
        beyond += slope.low > 0 or slope.high < 0
    assert beyond <= 2


@pytest.mark.parametrize(("grows_by", "reported"), [(0.2, False), (9.0, True)])
def test_a_process_that_began_later_has_a_warm_up_of_its_own(grows_by: float, reported: bool) -> None:
    """It grows for 12 minutes, as one that began with the run does for 5."""
    first = samples(0.0)
    later = [
        Sample(each.at_s + 600, {"rss_mb child 7": 100 + 40 * min(number / 144, 1) + grows_by * number / 360})
        for number, each in enumerate(first)
    ]
    run = [Sample(each.at_s, {**each.values, **later[number - 120].values}) for number, each in enumerate(first) if number >= 120]
    assert bool(breaches(slopes([*first[:120], *run, *later[240:]]))) is reported


def test_what_lived_too_shortly_has_no_slope() -> None:
    assert slopes(samples(9.0)[:10]) == []


@pytest.mark.parametrize("change", [{"lost": 1}, {"wrong": 1}, {"twice": 1}, {"problems": ("one",)}, {"trials": 0}])
def test_a_result_is_right_only_without_any(change: dict[str, Any]) -> None:
    right = Result(30, 100)
    assert right.right
    assert not Result(**{**vars(right), **change}).right


def test_the_rows_of_deaths_keep_their_figures() -> None:
    figures = {"kills": 30, "sent": 900, "lost": 1, "wrong": 2, "committed_twice": 3, "failed": 4, "returned_max_s": 12.5}
    result = converted("killed", figures, ("lost: 1 tasks were lost",))
    assert (result.trials, result.tasks, result.lost, result.wrong, result.twice, result.back_s) == (30, 900, 1, 2, 3, (12.5,))
    outage = converted("full", {"full_times": 5, "full_sent": 10, "full_lost": 1, "full_back_max_s": 0.5}, ())
    assert (outage.trials, outage.tasks, outage.lost, outage.back_s) == (5, 10, 1, (0.5,))


def test_look_alikes_differ() -> None:
    ids = look_alikes(300)
    assert len(set(ids)) == len(ids) == 300
    assert any(ids.count(each.swapcase()) for each in ids if each != each.swapcase())
