"""Programs that a test tells in text, each in an interpreter of its own: what they do to it, a fork or a signal, stays there."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Final

import pipeline

ROOT: Final = Path(pipeline.__file__).parents[1]
BOUND_S: Final = 60.0


def run_program(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the text, indented as it may be, in the folder of the packages under test. Its exit code is the test's to judge."""
    return subprocess.run(
        # Since Python 3.12 a fork beside threads warns, and here it is meant.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(text), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
