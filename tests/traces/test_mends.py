"""The holes that the proof found, on the real code and written down: without its mend each is rejected by the row that knows of
it. No run of the random workload comes by them."""

from __future__ import annotations

from pathlib import Path

import pytest

from traces.recording.mends import LETTERS, run_mend
from traces.runs import replay_directory
from traces.story import story

ROWS = {"m": "as_of", "n": "later log", "o": "met"}


@pytest.mark.parametrize("letter", LETTERS)
def test_a_hole_is_rejected_and_its_mend_accepted(letter: str, tmp_path: Path) -> None:
    with_it, without = tmp_path / "with", tmp_path / "without"
    for directory in (with_it, without):
        directory.mkdir()
        run_mend(directory, letter, without=directory == without)
    accepted = replay_directory(with_it)
    assert accepted.steps.total() > 10
    assert not accepted.rejected, "\n".join(story(accepted.rejected[0]))
    assert ROWS[letter] in {one.row for one in replay_directory(without).rejected}
