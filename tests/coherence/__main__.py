"""The long run: `python -m coherence --steps 30000 --seed 7`. Goes through the profiles in turn, each with a server of its own,
until it has taken that many steps. Prints the histories' counts, and fails if one broke a promise."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

from coherence.mutants import MUTANTS
from coherence.profiles import PROFILES
from coherence.workload import Workload


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30_000, help="of all processes together, at least")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--profile", choices=sorted(PROFILES), action="append", help="this one only; may be said again")
    parser.add_argument("--round", type=int, default=5_000, help="steps of one round, of one profile")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), default="", help="what to take out of the cache")
    parser.add_argument("--awaits", choices=("some", "all"), default="", help="which workers are tasks, over cache.aio")
    parser.add_argument("--keep", type=Path, help="a directory for the histories, one folder a round")
    given = parser.parse_args()
    names = given.profile or list(PROFILES)
    steps, number, violations, began_s = 0, 0, 0, time.monotonic()
    by_profile: Counter[str] = Counter()
    reads: Counter[str] = Counter()
    awaited: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    while steps < given.steps:
        name = names[number % len(names)]
        steps_of_round = min(given.round, given.steps)
        workload = Workload(
            seed=given.seed + number, steps=steps_of_round, mutant=given.mutant, awaits=given.awaits, **PROFILES[name]
        )
        report = workload.run(None if given.keep is None else given.keep / f"{number}-{name}")
        number += 1
        steps += report.steps
        by_profile[name] += report.steps
        reads += report.reads
        awaited += report.awaited
        faults += report.faults
        violations += len(report.violations)
        sys.stderr.write(f"{steps} steps after {time.monotonic() - began_s:.0f} s ({name}): {violations} violations\n")
        for violation in report.violations[:20]:
            sys.stderr.write(f"  {violation.rule}: {violation.what}\n  {violation.read}\n")
    figures = {
        "seed": given.seed,
        "steps": steps,
        "violations": violations,
        "rounds": number,
        "seconds": round(time.monotonic() - began_s),
        "steps_by_profile": dict(by_profile),
        "reads": dict(reads),
        "awaited": dict(awaited),
        "faults": dict(sorted(faults.items())),
    }
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
