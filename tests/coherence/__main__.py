"""The long run: `python -m coherence --steps 30000 --seed 7`. Prints what the history showed, and fails if it broke a promise."""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path

from coherence.mutants import MUTANTS
from coherence.workload import Workload


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30_000, help="of all processes together, at least")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--mutant", choices=sorted(MUTANTS), default="", help="what to take out of the cache")
    parser.add_argument("--keep", type=Path, help="a directory for the history")
    parser.add_argument("--set", type=json.loads, default={})
    given = parser.parse_args()
    report = Workload(seed=given.seed, steps=given.steps, mutant=given.mutant, **given.set).run(given.keep)
    sys.stdout.write(json.dumps({"seed": given.seed, **report.figures()}, indent=2) + "\n")
    for violation in report.violations[:20]:
        sys.stderr.write(f"{violation.rule}: {violation.what}\n  {violation.read}\n")
    return 1 if report.violations or report.steps < given.steps else 0


if __name__ == "__main__":
    sys.exit(main())
