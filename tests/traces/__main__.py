"""Hold real runs against the model: record what the processes of the random workload do, in each profile of tests/coherence in
turn, and what those of the benchmark `coherence` do, and replay it through the table of tests/traces. Ends after as many steps as
--events says, and after each of these runs at least once.

A step that no order of events allows is told with its process, the rule that forbids it, and the 20 events around it. With
--mutants, a part of the cache is taken out in each run, and a step of it must be rejected.

Exit code 0: nothing was rejected (with --mutants: each mutant was); 1: something was (one was not); 2: a run failed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from coherence.profiles import PROFILES

from traces.mutants import MUTANTS
from traces.replay import Outcome, Rejected
from traces.runs import Run, replay_directory, run_bench, run_reproduced, run_workload
from traces.story import story

ROUND_STEPS: Final = 3_000
SLOW: Final = {"refusals": 0.1}
"""By profile: how much shorter its rounds are. One step of these looks up a hundred keys."""
BENCH: Final = "the benchmark"
MUTANT_S: Final = 8.0
MUTANT_ROUNDS: Final = 8
TOLD: Final = 3
"""Of one run so many rejected steps are told in words."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m traces", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=1_000_000, help="steps to replay, at least; 1,000,000 unless given")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--profile", choices=sorted(PROFILES), action="append", help="this one only; may be said again")
    parser.add_argument("--no-bench", action="store_true", help="leave the benchmark out")
    parser.add_argument("--mutants", action="store_true", help="every mutant in turn: each must be rejected")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), action="append", help="this one only; may be said again")
    parser.add_argument("--awaits", choices=("some", "all"), default="", help="which workers are tasks, over cache.aio")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the traces there, a folder a run")
    parser.add_argument("--replay", type=Path, metavar="DIR", help="replay what one run has left in DIR, and do nothing else")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args()
    if given.replay is not None:
        return _replayed(replay_directory(given.replay), given)
    try:
        return _mutants(given) if given.mutants or given.mutant else _runs(given)
    except (AssertionError, OSError) as failure:
        sys.stderr.write(f"a run failed: {failure}\n")
        return 2


def _replayed(outcome: Outcome, given: argparse.Namespace) -> int:
    _tell(outcome.rejected)
    _print({"events": outcome.steps.total(), "rejected": len(outcome.rejected), "by_kind": dict(outcome.steps)}, given)
    return int(bool(outcome.rejected))


def _runs(given: argparse.Namespace) -> int:
    names = given.profile or [*PROFILES, *([] if given.no_bench else [BENCH])]
    steps = min(ROUND_STEPS, max(200, given.events // 300))
    began_s, number, written = time.monotonic(), 0, 0
    by_run: Counter[str] = Counter()
    by_kind: Counter[str] = Counter()
    rejected: list[Rejected] = []
    violations = 0
    while by_kind.total() < given.events or number < len(names):
        name = names[number % len(names)]
        keep = _kept(given, f"{number}-{name}")
        if name == BENCH:
            run = run_bench(keep, quick=steps < ROUND_STEPS)
        else:
            taken = round(steps * SLOW.get(name, 1))
            run = run_workload(dict(PROFILES[name]) | {"seed": given.seed + number, "steps": taken, "awaits": given.awaits}, keep)
        number += 1
        written += run.bytes
        by_run[name] += run.outcome.steps.total()
        by_kind += run.outcome.steps
        rejected += run.outcome.rejected
        violations += len(run.violations)
        _progress(f"{by_kind.total():,} events after {time.monotonic() - began_s:.0f} s ({name}): {len(rejected)} rejected")
        _tell(run.outcome.rejected)
    figures = {
        "seed": given.seed,
        "events": by_kind.total(),
        "rejected": len(rejected),
        "rejected_by_row": dict(Counter(one.row for one in rejected)),
        "violations_of_the_checker": violations,
        "seconds": round(time.monotonic() - began_s),
        "megabytes": round(written / 1e6, 1),
        "by_run": dict(by_run),
        "by_kind": dict(by_kind.most_common()),
    }
    _print(figures, given)
    return int(bool(rejected))


def _mutants(given: argparse.Namespace) -> int:
    """Each mutant runs until it is rejected by a row that is made for it."""
    figures: dict[str, Any] = {}
    for name in given.mutant or MUTANTS:
        began_s, events = time.monotonic(), 0
        rows: Counter[str] = Counter()
        for number in range(MUTANT_ROUNDS):
            run = _mutant(name, given.seed + number, _kept(given, f"{name}-{number}"), given.awaits)
            events += run.outcome.steps.total()
            rows.update(one.row for one in run.outcome.rejected)
            if MUTANTS[name].rows & set(rows):
                if given.mutant:
                    _tell(run.outcome.rejected)
                break
        caught = bool(MUTANTS[name].rows & set(rows))
        figures[name] = {"rejected": caught, "rows": dict(rows), "events": events, "seconds": round(time.monotonic() - began_s)}
        _progress(f"{name}: {'rejected by ' + ', '.join(rows) if caught else 'NOT REJECTED'}, {events:,} events")
    _print(figures, given)
    return int(not all(figure["rejected"] for figure in figures.values()))


def _mutant(name: str, seed: int, keep: Path | None, awaits: str) -> Run:
    if MUTANTS[name].hole:
        return run_reproduced(MUTANTS[name].hole, keep, without=True)
    return run_workload(dict(MUTANTS[name].options) | {"seed": seed, "seconds": MUTANT_S, "mutant": name, "awaits": awaits}, keep)


def _kept(given: argparse.Namespace, name: str) -> Path | None:
    return None if given.keep is None else given.keep / name.replace(" ", "-")


def _tell(rejected: list[Rejected]) -> None:
    for one in rejected[:TOLD]:
        _progress("\n".join(story(one)))


def _progress(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _print(figures: dict[str, Any], given: argparse.Namespace) -> None:
    if given.json:
        sys.stdout.write(json.dumps(figures, indent=2) + "\n")
        return
    for name, figure in figures.items():
        sys.stdout.write(f"{name:32} {_short(figure)}\n")


def _short(figure: Any) -> str:
    if isinstance(figure, dict):
        return ", ".join(f"{name}: {_short(part)}" for name, part in figure.items())
    return f"{figure:,}" if isinstance(figure, int) and not isinstance(figure, bool) else str(figure)


if __name__ == "__main__":
    sys.exit(main())
