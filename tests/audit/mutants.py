"""Which mutants of the coherence checker the auditor reports, where each is at work, and which it cannot see."""

from __future__ import annotations

import time
from typing import Any, Final, NamedTuple

from coherence.faults import GENTLE
from coherence.mutants import STAGE_MUTANT
from coherence.profiles import PROFILES
from coherence.steps import WEIGHTS
from coherence.workload import AUDITOR, SHAPES, Shape, Workload

WITHIN_S: Final = 60.0
PER_S: Final = 20.0
"""The default of PERSONA_AUDIT_PER_S."""

_GENTLE: Final = {"faults": GENTLE}

# Six threads after the same three keys, and one program that changes them.
_JOINS: Final = {
    "joins": Shape("lone", 6, loose=True, pauses_s=(0.002,), weights=dict.fromkeys(WEIGHTS, 0) | {"ahead": 1}),
    "near": Shape("lone", 1, pauses_s=(0.002,), weights=dict.fromkeys(WEIGHTS, 0) | {"change": 1}),
}

# One that asks now and then, and hears of nothing meanwhile.
_READER: Final = {"reader": Shape("lone", 2, pauses_s=(0.1,), weights=dict.fromkeys(WEIGHTS, 0) | {"look": 1})}

# The one program that is the mutant, and what brings out its kind, as for the checker. No name stands for all programs, where one
# alone breaks nothing: the first of the others begins the new log for it, too.
SEEN: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "no_lease": ("reader", _GENTLE | {"bound_s": 0.02, "shapes": SHAPES | _READER}),
    "no_validation": ("small", {}),
    "joined_unjudged": ("small", _GENTLE),
    "joined_unasked": ("joins", dict(PROFILES["joins"]) | {"shapes": _JOINS}),
    "as_of_after_the_computation": ("loose", _GENTLE | {"bound_s": 0.05}),
    "skipped_record": ("small", _GENTLE),
    "deps_ignored": ("small", _GENTLE),
    "epoch_ignored": ("small", {}),
    "floor_ignored": ("small", {}),
    "log_begun_in_two_steps": ("far", dict(PROFILES["beginnings"]) | {"audit_every_s": 0.02}),
    "confirmed_before_it_is_known": ("busy", dict(PROFILES["pages"])),
    "history_ignored": ("", dict(PROFILES["succession"])),
    "replica_believed": ("reader", dict(PROFILES["demotion"])),
}

BLIND: Final = {
    STAGE_MUTANT: "The entry itself says that it is newer than what went into it, and is believed.",
    "deps_of_deps_ignored": "The entry itself names too few deps; the auditor takes these for all.",
    "deps_of_deps_looked_for_afterwards": "As deps_of_deps_ignored.",
    "pending_ignored": "What could not be appended is in no log.",
    "bus_never_followed": "It keeps to the bound, as a program without a bus does; its node is promised more.",
    "broken_off_taken_for_no_news": "As bus_never_followed.",
    "settled_by_an_older_look": "As pending_ignored.",
    "notice_believed": "It misses a record when a connection breaks between two notices: in seven turns of a minute no sample "
    "met that, where the checker, which looks at all answers, does.",
    "judged_before_the_lease": "It breaks the promise to its node; the bound, where a beat comes in one certain millisecond.",
    "judged_in_two_steps": "As pending_ignored: what is served too long is what was pending, until it is in the log.",
}


class Seen(NamedTuple):
    """`after_s`: from the start of the programs until it was reported."""

    after_s: float
    stale: int
    checks: int

    def __str__(self) -> str:
        return f"reported after {self.after_s:.1f} s ({self.stale} of {self.checks} checks)"


def hunt(name: str, seed: int, *, per_s: float = PER_S) -> Seen | None:
    """Run a workload with that mutant in one program until an auditor reports it, for WITHIN_S at most. None if none does."""
    program, options = SEEN[name]
    workload = Workload(seed=seed, seconds=WITHIN_S, mutant=name, mutant_in=program, audit_per_s=per_s, **options)
    began_s = time.monotonic()
    audits = workload.run(until=frozenset({AUDITOR})).audits
    return Seen(audits.first_ns / 1e9 - began_s, sum(audits.stale.values()), audits.checks) if audits.stale else None
