"""The app of the measured fleet, whose nodes and children write down what they do."""

from __future__ import annotations

import os
from pathlib import Path

from traces.recording.bench import DIRECTORY
from traces.recording.hooks import install
from traces.recording.recorder import Recorder

PORTION_S = 0.2
"""A node that has been measured is killed: what it has done by then is on the disk, but for this last while."""

RECORDER = Recorder(Path(os.environ[DIRECTORY]), "fleet", portion_s=PORTION_S)
install(RECORDER)

from benchmarks.kit.fleet_app import app  # noqa: E402 - after the hooks

__all__ = ["DIRECTORY", "RECORDER", "app"]
