"""The short form of the model of the fetch: each configuration explored whole, and every mutant refuted within its own."""

from __future__ import annotations

import pytest

from model.fetch.configs import FETCH_CONFIGS, explore
from model.fetch.mutants import FETCH_MUTANTS
from model.fetch.rules import FetchModel


@pytest.mark.parametrize("name", [name for name, config in FETCH_CONFIGS.items() if config.short])
def test_a_message_is_in_one_place_whatever_befalls_its_nodes(name: str) -> None:
    found = explore(FetchModel(FETCH_CONFIGS[name]))
    assert found.whole, found.broken


@pytest.mark.parametrize("name", FETCH_MUTANTS)
def test_a_changed_rule_of_the_fetch_breaks_its_promise(name: str) -> None:
    mutant = FETCH_MUTANTS[name]
    found = explore(FetchModel(FETCH_CONFIGS[mutant.config], mutant.rules))
    assert found.broken.startswith(mutant.promise)
