"""Plants faults, and asks the doctor of each."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from polling import PAUSE_S

from doctor.faults.dead import OF_THE_DEAD, killed
from doctor.faults.every import FAULTS
from doctor.faults.planted import Fault
from doctor.stacks import Stack
from workers.doctor.finding import Finding

WITHIN_S: Final = 90.0
"""A fault may take a moment to show: a node to be silent, a lock to run out."""


class Said(NamedTuple):
    """What the doctor said to a fault: the finding of each of its names, and the names that are missing."""

    what: str
    findings: tuple[Finding, ...]
    missing: tuple[str, ...]


def name_of(finding: Finding) -> str:
    return f"{finding.part}: {finding.name}"


def said_of(faults: Sequence[Fault] = FAULTS) -> Iterator[Said]:
    """Each fault in turn, in one stack that is well before and after."""
    with Stack(nodes=2) as stack:
        stack.settled()
        for fault in faults:
            with fault.plant(stack) as given:
                said = _said(stack, fault.what, fault.names, dict(given))
            yield said
        stack.settled()


def said_of_the_dead() -> Said:
    """A stack whose only node was killed, and that has no beat."""
    with Stack(beat=False, delay_ms=60_000) as stack:
        killed(stack)
        return _said(stack, "the only node was killed, and there is no beat", OF_THE_DEAD, {})


def _said(stack: Stack, what: str, names: tuple[str, ...], given: dict[str, str]) -> Said:
    ends_s = time.monotonic() + WITHIN_S
    while True:
        found = {name_of(finding): finding for finding in stack.findings(**given)}
        missing = tuple(name for name in names if name not in found)
        if missing and time.monotonic() > ends_s:
            sys.stderr.write(f"{what}: {missing} not among {[(name, one.seen) for name, one in found.items()]}\n")
            sys.stderr.write("\n".join(f"{node.name}: {node.log()[-2000:]}" for node in stack.nodes))
        if not missing or time.monotonic() > ends_s:
            return Said(what, tuple(found[name] for name in names if name in found), missing)
        time.sleep(PAUSE_S)
