"""The auditor over random workloads with faults: `python -m audit --checks 1000000 --seed 7` (with `PYTHONPATH=tests`).

Goes through the coherence checker's profiles in turn, with every served answer sampled, until so many were judged. Prints the
counts, and fails if one was called stale: none was.

`python -m audit --mutants`: each mutant in one program of a workload, at the rate that is the default; fails if one that the
auditor can see is not reported within 60 s, in any of four turns.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time

from audit.mutants import BLIND, SEEN, Seen, hunt
from coherence.audited import Audits
from coherence.profiles import PROFILES
from coherence.workload import Workload

EVERY = 1e9
"""A second: more than there can be."""
ROUND_S = 15.0
BURST = 400
TURNS = 4
"""Of 60 s each: where a mutant is reported is a matter of chance for some."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checks", type=int, default=100_000, help="judged answers of all processes together, at least")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--profile", choices=sorted(PROFILES), action="append", help="this one only; may be said again")
    parser.add_argument("--mutants", action="store_true", help="look for mutants instead")
    parser.add_argument("--mutant", choices=sorted(SEEN), action="append", help="this one only; may be said again")
    given = parser.parse_args()
    return _hunt_all(given.mutant or sorted(SEEN), given.seed) if given.mutants else _judge_many(given)


def _judge_many(given: argparse.Namespace) -> int:
    names = given.profile or list(PROFILES)
    audits, number, violations, began_s = Audits(), 0, 0, time.monotonic()
    while audits.checks < given.checks:
        name = names[number % len(names)]
        workload = Workload(seed=given.seed + number, seconds=ROUND_S, audit_per_s=EVERY, burst=BURST, **PROFILES[name])
        report = workload.run()
        number += 1
        audits.add(report.audits)
        violations += len(report.violations)
        sys.stderr.write(
            f"{audits.checks} checks after {time.monotonic() - began_s:.0f} s ({name}): {audits.stale or 'none'} stale\n"
        )
    figures = {
        "seed": given.seed,
        "checks": audits.checks,
        "stale": sum(audits.stale.values()),
        "undecided": audits.undecided,
        "violations": violations,
        "rounds": number,
        "seconds": round(time.monotonic() - began_s),
    }
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    return 1 if audits.stale else 0


def _hunt_all(names: list[str], seed: int) -> int:
    missed = []
    for name in names:
        seen: Seen | None = None
        for turn in range(TURNS):
            seen = seen or hunt(name, seed + turn)
        if seen is None:
            missed.append(name)
        sys.stdout.write(f"{name}: {'not reported' if seen is None else seen}\n")
        sys.stdout.flush()
    for name, why in BLIND.items():
        sys.stdout.write(f"{name}: not to be seen. {why}\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
