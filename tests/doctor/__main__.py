"""The table of planted faults with what the doctor said: `PYTHONPATH=tests python -m doctor`. Two minutes.

Fails if a fault is not named, or if a healthy stack leads to a finding. `--fault WORDS`: those alone.
"""

from __future__ import annotations

import argparse
import re
import sys
from itertools import chain

from doctor.faults import FAULTS
from doctor.healthy import HEALTHY
from doctor.planting import Said, name_of, said_of, said_of_the_dead
from doctor.stacks import Stack


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", default="", help="those whose words match this pattern")
    parser.add_argument("--healthy", action="store_true", help="the healthy stacks alone")
    parser.add_argument("--planted", action="store_true", help="the planted faults alone")
    given = parser.parse_args()
    wrong = 0
    if not given.healthy:
        chosen = [fault for fault in FAULTS if re.search(given.fault, fault.what)]
        out("| planted | named | seen |\n|---|---|---|")
        for said in chain(said_of(chosen), [] if given.fault else [said_of_the_dead()]):
            wrong += bool(said.missing)
            show(said)
        out()
    if not given.fault and not given.planted:
        wrong += sum(not is_quiet(name) for name in HEALTHY)
    out(f"\n{wrong} wrong" if wrong else "\nall named, none too much")
    return int(wrong > 0)


def show(said: Said) -> None:
    named = [f"{finding.severity}, `{name_of(finding)}`" for finding in said.findings] + [f"NOT {name}" for name in said.missing]
    seen = [finding.seen for finding in said.findings] + [""] * len(said.missing)
    for number, (name, text) in enumerate(zip(named, seen, strict=True)):
        out(f"| {said.what if number == 0 else ''} | {name} | {text.replace('|', '/')} |")


def is_quiet(name: str) -> bool:
    with Stack(**HEALTHY[name]) as stack:
        found = stack.findings()
    out(f"healthy: {name}: {'; '.join(f'{name_of(finding)} ({finding.seen})' for finding in found) or 'nothing'}")
    return not found


def out(line: str = "") -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
