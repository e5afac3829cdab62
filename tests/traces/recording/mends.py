"""The tests that reproduce what the model and the proof have found (`tests/integration/cache/test_found_by_*.py`), with a
recorder: `python -m traces.recording.mends DIRECTORY LETTER`. With `--without` the mend is taken out, and the trace shows the
hole."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

TIMEOUT_S: Final = 60
LETTERS: Final = "ikmno"
_TESTS: Final = Path(__file__).parents[2]

Reproduced = tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]]


def reproduced(directory: Path, letter: str, *, without: bool) -> None:
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
    """0: a stale value was served if, and only if, the mend was taken out."""
    from servers import ValkeyServer

    from traces.recording.hooks import install
    from traces.recording.recorder import Recorder

    directory, letter, *without = sys.argv[1:]
    with ValkeyServer() as server, pytest.MonkeyPatch.context() as patch:
        take_out, run = _found(server)[letter]
        if without:
            take_out(patch)
        recorder = Recorder(Path(directory), letter)
        install(recorder)  # after the change, as for a mutant
        try:
            run()
            stale = False
        except AssertionError:
            stale = True
        recorder.flush()
    return int(stale != bool(without))


def _found(server: Any) -> dict[str, Reproduced]:
    """By letter: what takes the mend out, and the test."""
    from coherence.mutants import broken_off_taken_for_no_news, deps_of_deps_looked_for_afterwards
    from integration.cache import test_found_by_the_model as model
    from integration.cache import test_found_by_the_proof as proof

    vars(proof)["Clock"] = _RealClock
    return {
        "i": (
            lambda _: deps_of_deps_looked_for_afterwards(),
            lambda: model.test_an_invalidation_while_the_dep_is_computed_within(server.url, "i"),
        ),
        "k": (
            lambda _: broken_off_taken_for_no_news(),
            lambda: model.test_a_main_process_that_is_broken_off_in_the_middle_of_a_write(server.url, "k"),
        ),
        "m": (
            proof.takes_as_of_from_a_half_published_state,
            lambda: proof.test_a_computation_begins_between_two_steps_of_a_publication(server.url, "m"),
        ),
        "n": (
            proof.goes_back_to_a_former_log,
            lambda: proof.test_a_late_page_of_a_former_log_while_a_value_is_computed(server, "n"),
        ),
        "o": (
            proof.counts_a_refused_page_as_a_reading,
            lambda: proof.test_a_page_that_came_too_late_is_no_reading_of_the_log("o"),
        ),
    }


if __name__ == "__main__":
    sys.exit(main())
