"""The holes that the proof found (`tests/integration/cache/test_found_by_the_proof.py`), with a recorder: `python -m
traces.recording.mends DIRECTORY LETTER`. With `--without` the mend is taken out, and what is written down shows the hole."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_S = 60
LETTERS = "mno"
_TESTS = Path(__file__).parents[2]


def run_mend(directory: Path, letter: str, *, without: bool) -> None:
    """Run one in a process of its own, which leaves its trace in the directory."""
    command = [sys.executable, "-m", "traces.recording.mends", str(directory), letter, *(["--without"] if without else [])]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join((str(_TESTS.parent), str(_TESTS)))}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise AssertionError(f"{letter} ended with {done.returncode}:\n{done.stderr[-4000:]}")


class _RealClock:
    """A clock that a trace's moments can be compared with. It passes by itself."""

    def __call__(self) -> float:
        return time.monotonic()

    def tick(self, _: float) -> None:
        """Some time has passed by now."""


def main() -> int:
    from integration.cache import test_found_by_the_proof as found
    from servers import ValkeyServer

    from traces.recording.hooks import install
    from traces.recording.recorder import Recorder

    directory, letter, *without = sys.argv[1:]
    parts: dict[str, Any] = vars(found)
    parts["Clock"] = _RealClock
    recorder = Recorder(Path(directory), letter)
    with ValkeyServer() as server, pytest.MonkeyPatch.context() as patch:
        runs: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]]] = {
            "m": (
                found.takes_as_of_from_a_half_published_state,
                lambda: found.test_a_computation_begins_between_two_steps_of_a_publication(server.url, letter),
            ),
            "n": (
                found.goes_back_to_a_former_log,
                lambda: found.test_a_late_page_of_a_former_log_while_a_value_is_computed(server, letter),
            ),
            "o": (
                found.counts_a_refused_page_as_a_reading,
                lambda: found.test_a_page_that_came_too_late_is_no_reading_of_the_log(letter),
            ),
        }
        take_out, run = runs[letter]
        if without:
            take_out(patch)
        install(recorder)
        try:
            run()
            served_stale = False
        except AssertionError:
            served_stale = True
        recorder.flush()
    return int(served_stale != bool(without))


if __name__ == "__main__":
    sys.exit(main())
