"""The proof by induction, whole: every obligation, that every step can happen, and that a changed rule leaves one unproved."""

from __future__ import annotations

import pytest

from model.proof.mutants_log import MUTANTS
from model.proof.obligations import Small, each_step_keeps, first_holds, promises_follow
from model.proof.steps import RULES
from model.proof.words import told


def test_the_invariants_hold_at_first() -> None:
    assert [answer for answer in first_holds() if answer.outcome != "proved"] == []


@pytest.mark.parametrize("step", RULES)
def test_each_step_keeps_the_invariants(step: str) -> None:
    assert [answer for answer in each_step_keeps(step) if answer.outcome != "proved"] == []


def test_the_promises_follow() -> None:
    """Of each step that serves a value."""
    answers = list(promises_follow())
    assert len(answers) == 9
    assert [answer for answer in answers if answer.outcome != "proved"] == []


@pytest.mark.parametrize("step", RULES)
def test_each_step_can_happen(step: str) -> None:
    """Else nothing would have been shown of it; and where it serves a value, also against an invalidation that has returned."""
    assert Small().can_happen(step)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_changed_rule_breaks_the_proof(name: str) -> None:
    """Else the invariants would not say what they are to say."""
    mutant = MUTANTS[name]
    broken = Small(mutant.changed).broken(mutant.step, mutant.claim)
    assert broken is not None
    assert "does not hold" in told(broken, changed=True)[-1]
    assert Small().broken(mutant.step, mutant.claim) is None
