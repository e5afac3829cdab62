"""Each mutant of the model has a shortest trace: taken step by step by the code with the same part taken out, it serves what the
model says; by the code as it is, it does not."""

from __future__ import annotations

import re
from typing import Final

import pytest
from coherence.mutants import MUTANTS as OF_THE_CODE
from coherence.mutants import STAGE_MUTANT
from coherence.replaying import Replay
from coherence.stepped_mutants import STEPPED
from coherence.stopped import Served
from forked import fresh_processes
from model.configs import CONFIGS
from model.mutants import MUTANTS
from model.search import explore
from model.stepping import Model

NOT_REPLAYED: Final = {
    "joined_unjudged": "a flight's steps have no places yet; `test_interleavings`, tests/integration/cache/test_joins.py",
    "joined_unasked": "the same",
    "history_ignored": "a failover needs two servers; tests/integration/cache/test_succession.py",
    "replica_believed": "the same",
    "as_of_after_the_computation": "the code's mutant is late by where the model's is not; `test_interleavings`",
    "log_begun_in_two_steps": "the code's mutant asks in another place; test_invalidation_log.py",
    "judged_in_two_steps": "the code's mutant stands still by itself; the random checker sees it",
    "judged_before_the_lease": "the same",
    "settled_by_an_older_look": "the start `settled`; test_found_by_the_model.py",
    "notice_believed": "the model has no listeners; the traces of real runs reject it (tests/traces)",
    STAGE_MUTANT: "it is in the caller; the random checker sees it",
}
"""Mutants of the code whose trace is not replayed, with why, and what shows them."""
REPLAYED: Final = sorted((set(OF_THE_CODE) - set(NOT_REPLAYED)) | set(STEPPED))
FAR: Final = {"as_of_before_its_generation", "confirmed_before_it_is_known"}
"""To look for the trace of these takes a quarter of a minute: `make test-long` does."""


@pytest.mark.parametrize("mutant", [pytest.param(each, marks=pytest.mark.long) if each in FAR else each for each in REPLAYED])
def test_the_model_and_the_mutated_code_break_the_same_promise_by_the_same_steps(
    mutant: str, redis_url: str, namespace: str
) -> None:
    broken, served = _replayed(mutant, redis_url, f"{namespace}-as-it-is", mutated=False)
    assert not _falls_short(broken, served), "the code as it is"
    with fresh_processes().Pool(1) as pool:  # a mutant changes the classes
        broken, served = pool.apply(_replayed, (mutant, redis_url, namespace), {"mutated": True})
    assert _falls_short(broken, served), f"{broken}; served were {served}"


def _replayed(mutant: str, url: str, namespace: str, *, mutated: bool) -> tuple[str, list[Served]]:
    """What the model says, and what the code serves."""
    changed = MUTANTS[mutant]
    config = CONFIGS[changed.config]
    found = explore(Model(config, changed.rules))
    if mutated:
        (OF_THE_CODE | STEPPED)[mutant]()
    return found.broken, Replay(config, list(found.trace), url, namespace).run()


def _falls_short(broken: str, served: list[Served]) -> bool:
    """Whether what was served breaks the promise that the model says is broken."""
    said = re.search(r"version \d+ of source (\d+) .*, (\d+) was invalidated", broken)
    if said is None:
        return bool(served)
    source, least = map(int, said.groups())
    return any(each.value[source] < least for each in served)
