"""The recorder of a process of the benchmark. To be imported before its app is: the hooks change the classes."""

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
