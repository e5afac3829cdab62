"""The short form of the model: small configurations explored whole, and every mutant refuted within its own. `make
check-model` is the long form."""

from __future__ import annotations

import pytest
from coherence.mutants import MUTANTS as MUTANTS_OF_THE_CODE

from model.configs import CONFIGS
from model.mutants import MUTANTS
from model.search import explore
from model.stepping import Model

SHORT = [name for name, config in CONFIGS.items() if config.short]
WITHOUT_REDUCTION = ("tiers", "beginners", "threads-broken", "volatile-settled")
MUTANTS_WITHOUT_REDUCTION = [name for name, mutant in MUTANTS.items() if mutant.config in ("tiers", "threads-broken")]


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


# -- fewer orders, and the same verdict


@pytest.mark.parametrize("name", WITHOUT_REDUCTION)
def test_what_the_search_leaves_out_breaks_nothing(name: str) -> None:
    everything, reduced = (explore(Model(CONFIGS[name], reduced=reduced), goes_on=True) for reduced in (False, True))
    assert (everything.whole, everything.kinds) == (reduced.whole, reduced.kinds) == (True, frozenset())
    assert reduced.states < everything.states


@pytest.mark.parametrize(
    "name",
    [*MUTANTS_WITHOUT_REDUCTION[:3], *(pytest.param(each, marks=pytest.mark.long) for each in MUTANTS_WITHOUT_REDUCTION[3:])],
)
def test_what_the_search_leaves_out_shows_no_other_broken_promise(name: str) -> None:
    """A mutant breaks the same promises with all orders of events and with those that are left."""
    mutant = MUTANTS[name]
    config = CONFIGS[mutant.config]
    everything, reduced = (explore(Model(config, mutant.rules, reduced=reduced), goes_on=True) for reduced in (False, True))
    assert everything.kinds == reduced.kinds != frozenset()
