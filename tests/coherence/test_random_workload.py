"""Several processes, a server, and all that may go wrong with them, at random: nothing that was served breaks a promise."""

from __future__ import annotations

import json
from typing import Any

import pytest
from coherence.faults import GENTLE
from coherence.mutants import MUTANTS, STAGE_MUTANT
from coherence.profiles import PROFILES
from coherence.workload import Workload

ROUNDS = 8
ROUND_S = 12.0
"""At most: a round ends when it has shown the mutant."""


def test_no_promise_is_broken_whatever_goes_wrong() -> None:
    """The short run of what `make check-coherence` does at length. It must also have come near the edges: values in all
    tiers, stale ones within the bound, invalidations that the server did and did not hear of, every node told of some."""
    report = Workload(seed=20_250, steps=2_600, seconds=14.0).run()
    figures = json.dumps(report.figures(), indent=1)
    told = [f"{violation.rule}: {violation.what}\n{violation.read}" for violation in report.violations[:5]]
    assert not told, "\n".join([figures, *told])
    assert report.steps > 2_000, figures
    assert min(report.reads[source] for source in ("l1", "l2", "no")) > 200, figures
    assert report.reads["joined"] > 50, figures
    assert report.written["durable"] > 100, figures
    assert report.written["not durable"] > 0, figures
    assert report.applied > 100, figures
    assert report.stale_in_bound > 0, figures
    assert report.faults["freeze"] > 3, figures
    assert len(report.faults) >= 5, figures


QUICK_PROFILES = {"network", "succession"}
"""The two that have found most. `make test-long` has the others, too."""


@pytest.mark.parametrize(
    "profile",
    [
        each if each in QUICK_PROFILES else pytest.param(each, marks=pytest.mark.long)
        for each in sorted(set(PROFILES) - {"loopback"})
    ],
)
def test_no_promise_is_broken_where_the_windows_are_wide(profile: str) -> None:
    """A network, failovers to servers that lack acknowledged writes, long pages, threads that change places all the time, calls
    that are broken off: in each profile the conditions of its kind of hole. A failover excuses nothing."""
    report = Workload(seed=7, seconds=3.0, **PROFILES[profile]).run()
    told = [f"{violation.rule}: {violation.what}\n{violation.read}" for violation in report.violations[:5]]
    assert not told, "\n".join([json.dumps(report.figures(), indent=1), *told])
    assert report.faults.total() > 2
    assert report.reads.total() > 100


def test_no_promise_is_broken_to_tasks_of_event_loops() -> None:
    """The same with every second worker a task that awaits `cache.aio`, beside threads of the same process; some are cancelled.
    `python -m coherence --awaits some` is the long form, in every profile."""
    report = Workload(seed=20_260, steps=1_600, seconds=3.0, awaits="some", break_off_s=0.1).run()
    figures = json.dumps(report.figures(), indent=1)
    told = [f"{violation.rule}: {violation.what}\n{violation.read}" for violation in report.violations[:5]]
    assert not told, "\n".join([figures, *told])
    assert min(report.awaited[source] for source in ("l1", "l2", "no")) > 20, figures
    assert report.awaited["joined"] > 3, figures
    assert report.awaited.total() < report.reads.total() * 0.8, figures
    assert report.broken_off > 5, figures
    assert report.faults.total() > 5, figures


_GENTLE = {"faults": GENTLE}

# What each is seen by, one rule or another, and what brings it out: a bound that is short, or long, a log that is left as it
# is, so that nothing else heals it, or the profile that is made for its kind.
EXPECTED: dict[str, tuple[set[str], dict[str, Any]]] = {
    "no_lease": ({"bound"}, _GENTLE | {"bound_s": 0.1}),
    "no_validation": ({"l2"}, {}),
    "as_of_after_the_computation": ({"l2"}, {}),
    "joined_unjudged": ({"l2"}, _GENTLE),
    STAGE_MUTANT: ({"l2"}, _GENTLE | {"bound_s": 1.0}),
    "skipped_record": ({"l2"}, _GENTLE),
    "deps_ignored": ({"l2"}, _GENTLE),
    "bus_never_followed": ({"node"}, _GENTLE),
    "epoch_ignored": ({"l2"}, {}),
    "floor_ignored": ({"l2"}, {}),
    "pending_ignored": ({"process", "node"}, {}),
    "log_begun_in_two_steps": ({"l2", "bound"}, dict(PROFILES["beginnings"])),
    "confirmed_before_it_is_known": ({"bound"}, dict(PROFILES["pages"])),
    "history_ignored": ({"l2", "bound", "process", "node"}, dict(PROFILES["succession"])),
    "judged_in_two_steps": ({"process"}, dict(PROFILES["refusals"])),
    "judged_before_the_lease": ({"node", "bound"}, _GENTLE),
    "joined_unasked": ({"l2"}, dict(PROFILES["joins"])),
    "replica_believed": ({"l2", "node", "bound"}, dict(PROFILES["demotion"])),
    "deps_of_deps_ignored": ({"l2"}, dict(PROFILES["chains"])),
    "settled_by_an_older_look": ({"node"}, {}),
}
SELDOM = {"deps_of_deps_looked_for_afterwards", "broken_off_taken_for_no_news", "notice_believed"}
"""These random work meets too rarely: within minutes it showed none. `test_replay` shows the first two, by the model's steps;
the traces of real runs reject the third (`tests/traces`)."""


RARE = {
    "confirmed_before_it_is_known",
    "history_ignored",
    "judged_before_the_lease",
    "replica_believed",
    "settled_by_an_older_look",
}
"""These take long, or several rounds: `make test-long` has them. In `make test` schedules and model show them."""


@pytest.mark.parametrize(
    "mutant", [pytest.param(each, marks=pytest.mark.long) if each in RARE else each for each in sorted(set(MUTANTS) - SELDOM)]
)
def test_a_protocol_with_a_part_taken_out_is_seen_to_break_its_promise(mutant: str) -> None:
    """A checker that never objects proves nothing. Most mutants break in the first round; chance has several."""
    _is_seen(mutant)


@pytest.mark.long
@pytest.mark.parametrize("mutant", sorted(set(MUTANTS) - SELDOM))
def test_tasks_are_seen_to_be_served_what_a_promise_forbids(mutant: str) -> None:
    """Where all that reads and computes is a task over `cache.aio`, each mutant is seen, too: nothing there hides it."""
    _is_seen(mutant, awaits="all")


def _is_seen(mutant: str, **more: Any) -> None:
    rules, options = EXPECTED[mutant]
    for seed in range(ROUNDS):
        report = Workload(seed=seed, seconds=ROUND_S, mutant=mutant, **options, **more).run(until=frozenset(rules))
        assert "value" not in report.rules, "the workload itself is wrong"
        if rules & report.rules:
            return
    pytest.fail(f"{ROUNDS} rounds did not show {mutant}")
