"""The short form of the model: small configurations explored whole, and every mutant refuted within its own. `make
check-model` is the
long form."""

from __future__ import annotations

import pytest
from coherence.mutants import MUTANTS as MUTANTS_OF_THE_CODE

from model.configs import CONFIGS
from model.mutants import MUTANTS
from model.search import explore
from model.stepping import Model

SHORT = ("tiers", "beginners", "threads-broken", "demotion", "node", "away", "volatile-settled", "stale")


@pytest.mark.parametrize("name", SHORT)
def test_a_small_configuration_keeps_the_promises_in_every_order_of_events(name: str) -> None:
    found = explore(Model(CONFIGS[name]))
    assert found.whole, found.broken


@pytest.mark.parametrize("name", MUTANTS)
def test_a_changed_rule_breaks_a_promise(name: str) -> None:
    """Else the model would not see such a hole."""
    mutant = MUTANTS[name]
    found = explore(Model(CONFIGS[mutant.config], mutant.rules))
    assert found.broken
    assert found.trace[-1][1].broken == found.broken


def test_every_mutant_of_the_code_has_a_twin() -> None:
    """Those of listeners apart, which the model has none of: a notice is to a view what a late page is that confirms nothing."""
    assert {name for name, mutant in MUTANTS.items() if mutant.twin} == set(MUTANTS_OF_THE_CODE) - {"notice_believed"}
