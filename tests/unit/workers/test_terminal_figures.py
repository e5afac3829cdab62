"""The figures of a run, against values computed by hand."""

from __future__ import annotations

import pytest

from workers.cli.terminal.figures import Sample, Tier, bar, figures_of, quantile


def test_the_figures_of_a_run_are_those_computed_by_hand() -> None:
    """Ten answers: four computed (100, 200, 300, 400 ms), five from L1, one from L2; two requests failed; 4 s in all."""
    l1 = [Sample("l1", ms) for ms in (0.5, 0.1, 0.4, 0.2, 0.3)]
    computed = [Sample("no", ms) for ms in (400.0, 100.0, 300.0, 200.0)]
    figures = figures_of([*l1, *computed, Sample("l2", 2.0)], failed=2, elapsed_s=4.0)
    assert (figures.requests, figures.answered, figures.failed) == (12, 10, 2)
    assert figures.hit_rate == 0.6
    assert (figures.computed, figures.saved) == (4, 6)
    assert figures.mean_computed_ms == 250.0
    assert figures.estimated_saved_s == 1.5  # 6 x 250 ms
    assert figures.throughput_per_s == 2.5
    assert figures.tiers == (
        Tier("l1", 5, 0.5, 0.3, 0.5),
        Tier("l2", 1, 0.1, 2.0, 2.0),
        Tier("no", 4, 0.4, 200.0, 400.0),
    )


def test_what_was_joined_or_stale_is_saved_and_a_tier_of_its_own() -> None:
    """Neither was computed for this request."""
    figures = figures_of([Sample("no", 80.0), Sample("joined", 60.0), Sample("stale", 1.0)], failed=0, elapsed_s=1.0)
    assert [tier.source for tier in figures.tiers] == ["joined", "stale", "no"]
    assert figures.saved == 2
    assert figures.hit_rate == pytest.approx(2 / 3)


@pytest.mark.parametrize(("failed", "elapsed_s"), [(0, 0.0), (3, 1.0)])
def test_a_run_without_answers_has_figures_too(failed: int, elapsed_s: float) -> None:
    """Nothing is divided by zero when everything failed, or nothing was sent."""
    figures = figures_of([], failed=failed, elapsed_s=elapsed_s)
    assert figures.requests == failed
    assert figures.tiers == ()
    assert (figures.hit_rate, figures.mean_computed_ms, figures.estimated_saved_s, figures.throughput_per_s) == (0, 0, 0, 0)


def test_nothing_is_estimated_from_a_run_that_computed_nothing() -> None:
    """The saved calls are known, their worth is not."""
    figures = figures_of([Sample("l1", 0.1)], failed=0, elapsed_s=1.0)
    assert (figures.saved, figures.hit_rate, figures.estimated_saved_s) == (1, 1.0, 0.0)


def test_a_source_that_nobody_knows_is_refused() -> None:
    """Rather than being counted as a hit."""
    with pytest.raises(KeyError, match="l3"):
        figures_of([Sample("l3", 1.0)], failed=0, elapsed_s=1.0)


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(1, 0.5, 1), (1, 0.99, 1), (2, 0.5, 1), (3, 0.5, 2), (4, 0.5, 2), (100, 0.99, 99), (101, 0.99, 100), (200, 0.99, 198)],
)
def test_a_quantile_is_a_value_that_occurred_by_nearest_rank(count: int, share: float, expected: int) -> None:
    """Of 1, 2, ... count."""
    assert quantile(range(1, count + 1), share) == expected


@pytest.mark.parametrize(("share", "expected"), [(0.0, "░░░░"), (0.01, "█░░░"), (0.5, "██░░"), (0.99, "████"), (1.0, "████")])
def test_a_bar_is_as_long_as_its_share_and_shows_what_is_not_nothing(share: float, expected: str) -> None:
    """One percent of many requests is still some."""
    assert bar(share, 4) == expected
