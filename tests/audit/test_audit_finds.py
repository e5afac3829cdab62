"""What the auditor is for: a process that breaks the promise is reported within a minute, and one that keeps it never is."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from audit.mutants import BLIND, SEEN, WITHIN_S, hunt
from coherence.mutants import MUTANTS
from coherence.profiles import PROFILES
from coherence.workload import Workload
from fleet import Fleet, send_plain
from polling import until

from pipeline.cache.server.connection import RedisConnection
from pipeline.figures import FigureKeys, read_figures
from pipeline.models import PersonaRequest
from workers.dashboard.metrics import exposition

KEYS = ("calm-flowing-learning", "urgent-medium-planning", "playful-burst-reflection")
LONG = pytest.mark.long
"""`make test` has one of a kind; `make test-long` has all."""


def test_each_mutant_is_seen_or_it_is_said_why_not() -> None:
    """No mutant is left out in silence."""
    assert set(SEEN) | set(BLIND) == set(MUTANTS)
    assert not set(SEEN) & set(BLIND)


@pytest.mark.parametrize("mutant", ["no_validation", pytest.param("deps_ignored", marks=LONG)])
def test_a_mutant_in_one_child_of_a_live_fleet_is_reported_within_a_minute(mutant: str, tmp_path: Path) -> None:
    """Celery's own workers, the default rate, answers by pool children; what is invalidated is asked for before and after. The
    counts are on the metrics, and the log says by which process, without a key."""
    place = tmp_path / "mutant"
    environ = {"PERSONA_DOOR": "false", "PERSONA_LOG": "json", "MUTANT": mutant, "MUTANT_IN": str(place)}
    with (
        Fleet(nodes=2, concurrency=2, app="mutant_app", environ=environ) as fleet,
        closing(RedisConnection(fleet.cache.url, timeout_s=5)) as connection,
    ):
        requests = [PersonaRequest.create(f"Question {number}", KEYS[number % 3]) for number in range(12)]
        began_s = time.monotonic()

        def reported() -> bool:
            fleet.plain(*requests)
            fleet.client.invalidate("routing:*", "persona:*")
            return read_figures(connection, FigureKeys("persona")).ever.audit.stale > 0

        until(reported, f"{mutant} is reported", bound_s=WITHIN_S)
        assert time.monotonic() - began_s < WITHIN_S
        metrics = exposition(read_figures(connection, FigureKeys("persona")), {}).decode()
        (stale,) = [line for line in metrics.splitlines() if line.startswith("persona_audit_stale_total")]
        assert float(stale.split()[1]) > 0
        logged = [line for node in fleet.nodes for line in node.log().splitlines() if "cache.stale_serve" in line]
        lines = [json.loads(line) for line in logged]
        assert {line["pid"] for line in lines} == {int(place.read_text())}
        assert all(line["late_s"] > 0 and len(line["key_digest"]) == 16 for line in lines)


def test_a_fleet_that_keeps_its_promises_is_not_accused() -> None:
    """As above, without a mutant: fresh in all checks, of which there are many."""
    with Fleet(nodes=2, concurrency=2) as fleet, closing(RedisConnection(fleet.cache.url, timeout_s=5)) as connection:
        requests = [PersonaRequest.create(f"Question {number}", KEYS[number % 3]) for number in range(12)]
        ends_s = time.monotonic() + 6
        while time.monotonic() < ends_s:
            for result in [send_plain(fleet.app, request) for request in requests]:
                result.get(timeout=30)
            fleet.client.invalidate("routing:calm-*", "persona:*")
        until(lambda: read_figures(connection, FigureKeys("persona")).ever.audit.checks > 20, "there are checks")
        audit = read_figures(connection, FigureKeys("persona")).ever.audit
        assert audit.stale == 0
        assert audit.undecided < audit.checks


@pytest.mark.parametrize(
    "profile", ["loopback", *(pytest.param(each, marks=LONG) for each in ("succession", "demotion", "network"))]
)
def test_no_false_alarm_whatever_goes_wrong(profile: str) -> None:
    """Every answer is a sample. The long form is `python -m audit --checks 10000000`."""
    audits = Workload(seed=12, seconds=3.0, audit_per_s=1e9, burst=100, **PROFILES[profile]).run().audits
    assert not audits.stale
    assert audits.checks > 500


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("mutant", sorted(SEEN))
def test_every_mutant_that_serves_stale_is_reported_within_a_minute(mutant: str) -> None:
    """In one process of several with a real cache, under the faults that bring it out. Where chance decides, it has turns."""
    found: Any = None
    for seed in range(4):
        found = found or hunt(mutant, seed)
    assert found is not None
    assert found.after_s < WITHIN_S
