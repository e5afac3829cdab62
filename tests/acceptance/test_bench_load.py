"""The benchmarks that load a fleet: they find what they are there to find, and fail where an answer is not as it must be."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from benchmarks.kit.load import Happened, check_right
from benchmarks.measures.dashboard import dashboard_figures
from benchmarks.measures.outage import Times, outage_figures
from benchmarks.measures.stampede import KEYS, QUICK, Wave, judge
from benchmarks.registry import all_benchmarks

COMMAND = [sys.executable, "-m", "benchmarks"]
LEASE_S = 5.0


def figures_of(name: str) -> dict[str, Any]:
    done = subprocess.run([*COMMAND, name, "--quick", "--json"], check=False, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)["figures"]
    assert all(isinstance(number, int | float) for number in figures.values())
    view = all_benchmarks()[name].view
    assert view is None or view(figures).tables
    return figures


@pytest.mark.long
def test_a_stampede_is_one_call_of_the_model_and_one_more_for_a_killed_owner() -> None:
    """From programs with and without this project's client."""
    figures = figures_of("stampede")
    assert (figures["requests"], figures["keys"], figures["model_calls"]) == (60, 1, 1)
    assert figures["keys20_model_calls"] == 20
    assert (figures["kills"], figures["kill_model_calls"]) == (1, 2)


@pytest.mark.long
def test_what_one_caller_may_cost_all_others_has_a_figure_each() -> None:
    """It fails by itself where an invalidated entry is served, or a bounded step does not end."""
    figures = figures_of("bounds")
    assert figures["hit_ratio_after_eviction"] == 1
    assert figures["pending"] == 10_000
    assert {"l2_hit_foreign_globs_us", "first_read_long_log_ms", "invalidate_frozen_broker_max_ms"} <= set(figures)


@pytest.mark.long
def test_the_dashboard_loses_nothing_and_keeps_its_rate() -> None:
    """Nothing is judged by time: the machine may be busy."""
    figures = figures_of("dashboard")
    assert {"rate_per_s", "p50_ms", "p99_ms", "max_ms", "settled_p99_ms"} <= set(figures)
    assert (figures["requests"], figures["lost"], figures["failed"]) == (600, 0, 0)
    assert figures["model_calls"] == figures["patterns"] == 20
    assert figures["claim_1000_ms"] == 3860


@pytest.mark.long
def test_a_submit_that_hits_is_faster_than_a_task() -> None:
    """By how much, the long run tells; on any machine it is not even close."""
    figures = figures_of("submit")
    assert figures["l1_ratio"] > figures["l2_ratio"] > 2


@pytest.mark.long
def test_an_outage_of_the_cache_costs_no_answer_and_ends() -> None:
    """Answers went on, degraded and right."""
    figures = figures_of("outage")
    assert (figures["wrong"], figures["failed"]) == (0, 0)
    assert figures["client_degraded"] > 0
    assert figures["tasks_degraded"] > 0
    assert figures["client_recovered_s"] <= 5


# -- their judgement


def right(due_s: float = 0.0, took_s: float = 0.001, **changes: Any) -> Happened:
    return Happened(due_s, took_s, **{"source": "l1", "right": True, **changes})


@pytest.mark.parametrize(
    ("happened", "problem"),
    [
        ([right()], "1 of 2 requests were lost"),
        (
            [right(), right(source="", right=False, error="TimeoutError()")],
            "1 of 2 requests failed, the first with TimeoutError()",
        ),
        ([right(), right(right=False)], "1 of 2 answers were wrong"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_lost_failed_or_wrong_is_told(happened: list[Happened], problem: str) -> None:
    """Each fails a benchmark."""
    assert check_right(happened, 2) == [problem]
    assert check_right([right(), right()], 2) == []


def wave(calls: int, *, longest_s: float = 1.0, killed: bool = False, takeover_s: float = 4.0) -> Wave:
    happened = [right(took_s=0.5)] * (QUICK.requests - 1) + [right(took_s=longest_s)]
    return Wave(happened, calls, 0.1, 0.1 + takeover_s) if killed else Wave(happened, calls)


@pytest.mark.parametrize(
    ("one", "several", "kill", "problem"),
    [
        (wave(2), wave(KEYS), wave(2, killed=True), "one key took 2 calls of the model"),
        (wave(1), wave(KEYS - 1), wave(2, killed=True), "20 keys took 19 calls of the model"),
        (wave(1), wave(KEYS), wave(3, killed=True), "kill 1: 3 calls of the model, where one was killed and one more is due"),
        (wave(1), wave(KEYS), wave(2, killed=True, takeover_s=6), "kill 1: the next began 6.0 s after it; the lease is 5 s"),
        (wave(1), wave(KEYS), wave(2, killed=True, longest_s=20), "kill 1: a caller waited 19.9 s after it; the lease is 5 s"),
    ],
    ids=["twice", "too few", "thrice", "taken over late", "a wait too long"],
)
def test_a_stampede_that_is_not_as_it_must_be_fails(one: Wave, several: Wave, kill: Wave, problem: str) -> None:
    """One call a key, one more a kill, no wait beyond the lease."""
    assert judge(one, several, [kill], QUICK, LEASE_S)[1] == [problem]
    assert judge(wave(1), wave(KEYS), [wave(2, killed=True)], QUICK, LEASE_S)[1] == []


def test_a_dashboards_rate_counts_from_the_first_moment_to_the_last_answer() -> None:
    """So a request that is answered late lowers it, and the first second stands apart."""
    happened = [right(10 + number / 10, took_s=0.5 if number < 10 else 0.002) for number in range(20)]
    figures = dashboard_figures(happened, 21)
    assert (figures["lost"], figures["failed"]) == (1, 0)
    assert figures["rate_per_s"] == pytest.approx(20 / 1.902)
    assert (figures["max_ms"], figures["settled_max_ms"]) == (pytest.approx(500), pytest.approx(2))


def test_an_outage_is_told_by_its_windows() -> None:
    """Slow answers while the breaker opens do not count for later, and recovery ends with the last unconfirmed answer."""
    times = Times(calm_s=0, stopped_s=10, open_s=12, resumed_s=20)
    happened = [right(at, took_s=0.250 if 11 <= at < 11.5 else 0.001, degraded=12 <= at < 21.5) for at in range(30)]
    figures = outage_figures("client", happened, times)
    assert figures["client_opening_added_p99_ms"] > 200
    assert figures["client_open_added_p99_ms"] == pytest.approx(0)
    assert figures["client_recovered_s"] == pytest.approx(1)
