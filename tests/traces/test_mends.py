"""What the model and the proof have found, on the real code and written down: without its mend each is rejected by the row that
knows of it. Random work hardly comes by these."""

from __future__ import annotations

import pytest

from traces.recording.mends import LETTERS
from traces.runs import run_reproduced
from traces.story import story

ROWS = {"i": "filled", "k": "bus left", "m": "as_of", "n": "later log", "o": "met"}


@pytest.mark.parametrize("letter", [each if each in "io" else pytest.param(each, marks=pytest.mark.long) for each in LETTERS])
def test_a_hole_is_rejected_and_its_mend_accepted(letter: str) -> None:
    accepted = run_reproduced(letter, without=False).outcome
    assert accepted.steps.total() > 10
    assert not accepted.rejected, "\n".join(story(accepted.rejected[0]))
    assert ROWS[letter] in {one.row for one in run_reproduced(letter, without=True).outcome.rejected}
