"""The doctor over real stacks: each planted fault is named, and ten healthy stacks lead to no finding.

`PYTHONPATH=tests python -m doctor` prints the table.
"""

from __future__ import annotations

import pytest

from doctor.faults.dead import OF_THE_DEAD
from doctor.faults.every import FAULTS
from doctor.healthy import HEALTHY
from doctor.planting import said_of, said_of_the_dead
from doctor.stacks import Stack

PARTS = 4


@pytest.mark.long
@pytest.mark.parametrize("part", range(PARTS))
def test_each_planted_fault_is_named(part: int) -> None:
    """In a stack that is well before, and after all of them."""
    missing = {said.what: said.missing for said in said_of(FAULTS[part::PARTS]) if said.missing}
    assert missing == {}


@pytest.mark.long
def test_what_a_dead_node_leaves_is_named() -> None:
    """Claims, delayed tasks and what waits: no other node is there to see to them."""
    assert said_of_the_dead().missing == ()


@pytest.mark.long
@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_stack_leads_to_no_finding(name: str) -> None:
    """Whatever its pool, its settings and its transport; on a machine that is busy, after a moment."""
    with Stack(**HEALTHY[name]) as stack:
        stack.settled()


def test_there_are_enough_of_them() -> None:
    """The doctor is to name 24 of 25 faults at least, and to be silent of ten stacks."""
    assert len({name for fault in FAULTS for name in fault.names} | {*OF_THE_DEAD}) >= 50
    assert len(HEALTHY) == 10
