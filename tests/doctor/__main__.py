"""The table of planted faults with what the doctor said: `PYTHONPATH=tests python -m doctor`. Some minutes.

Fails if a fault is not named, or if a healthy stack leads to a finding. `--fault WORDS`: those alone. `--record`: the table goes
into docs/doctor.md.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from itertools import chain

from doctor.faults.every import FAULTS
from doctor.healthy import HEALTHY
from doctor.page import HEADING, counts, healthy_line, record, rows
from doctor.planting import Said, said_of, said_of_the_dead
from doctor.stacks import Stack
from workers.doctor.finding import Finding


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fault", default="", help="those whose words match this pattern")
    parser.add_argument("--healthy", action="store_true", help="the healthy stacks alone")
    parser.add_argument("--planted", action="store_true", help="the planted faults alone")
    parser.add_argument("--record", action="store_true", help="put the table of a whole run into docs/doctor.md")
    given = parser.parse_args()
    if given.record and (given.fault or given.healthy or given.planted):
        parser.error("--record takes a whole run: leave out --fault, --healthy and --planted")
    said: list[Said] = []
    found: dict[str, Sequence[Finding]] = {}
    if not given.healthy:
        chosen = [fault for fault in FAULTS if re.search(given.fault, fault.what)]
        out(HEADING)
        for one in chain(said_of(chosen), () if given.fault else (said_of_the_dead() for _ in range(1))):
            said.append(one)
            for row in rows(one):
                out(row)
        out()
    if not given.fault and not given.planted:
        for name, options in HEALTHY.items():
            with Stack(**options) as stack:
                found[name] = stack.findings()
            out(healthy_line(name, found[name]))
    if given.record:
        record(said, found)
    wrong = sum(bool(one.missing) for one in said) + sum(bool(each) for each in found.values())
    out(f"\n{counts(said, found)}")
    return int(wrong > 0)


def out(line: str = "") -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
