"""The code's mutants, each with the workload that brings it out and the rows of the table that reject its trace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from coherence.faults import GENTLE
from coherence.mutants import STAGE_MUTANT
from coherence.profiles import PROFILES


class Brought(NamedTuple):
    """`rows`: one of these at least rejects a step. `options`: of the workload. `hole`: random work hardly comes by it; it is
    brought out by the test that reproduces this one (`recording.mends`)."""

    rows: frozenset[str]
    options: Mapping[str, Any]
    hole: str = ""


_GENTLE: Final = {"faults": GENTLE}


def _by(*rows: str, **options: Any) -> Brought:
    return Brought(frozenset(rows), options)


MUTANTS: Final[dict[str, Brought]] = {
    "no_lease": _by("served from L1", "as_of", **_GENTLE, bound_s=0.1),
    "no_validation": _by("judged"),
    "as_of_after_the_computation": _by("wrote", "filled"),
    "joined_unjudged": _by("joined", **_GENTLE),
    STAGE_MUTANT: _by("filled", **_GENTLE, bound_s=1.0),
    "skipped_record": _by("read", "page whole", **_GENTLE),
    "deps_ignored": _by("judged", **_GENTLE),
    "bus_never_followed": _by("served from L1", **_GENTLE),
    "epoch_ignored": _by("judged"),
    "floor_ignored": _by("judged"),
    "pending_ignored": _by("pended"),
    "log_begun_in_two_steps": _by("read", **PROFILES["beginnings"]),
    "confirmed_before_it_is_known": _by("confirmed", **PROFILES["pages"]),
    "history_ignored": _by("numbered", **PROFILES["succession"]),
    "judged_in_two_steps": _by("judged", **PROFILES["refusals"]),
    "judged_before_the_lease": _by("served from L1", **_GENTLE),
    "joined_unasked": _by("joined", **PROFILES["joins"]),
    "replica_believed": _by("one history", **PROFILES["demotion"]),
    "deps_of_deps_ignored": _by("filled", **PROFILES["chains"]),
    "settled_by_an_older_look": _by("published"),
    "deps_of_deps_looked_for_afterwards": Brought(frozenset({"filled"}), {}, hole="i"),
    "broken_off_taken_for_no_news": Brought(frozenset({"bus left"}), {}, hole="k"),
    "notice_believed": _by("listened", "confirmed", "page whole", **PROFILES["listening"]),
}
