"""Worker nodes and other programs as tests and benchmarks start them: a node's command, and an environment without the user's own
settings."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from pipeline.settings import PREFIX
from workers.stack.plan import FOREIGN_PREFIXES

_FOREIGN: Final = (PREFIX, *FOREIGN_PREFIXES)
_ROOT: Final = str(Path(__file__).parents[2])


def own_environment() -> dict[str, str]:
    """This process's variables but for the settings of the project, Celery and Flower: theirs may name a real broker.

    A program in another folder finds `benchmarks` by its PYTHONPATH: the package is not installed.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, (_ROOT, kept.get("PYTHONPATH"))))}


def node_command(name: str, *, pool: str, concurrency: int, app: str = "workers", log_level: str = "WARNING") -> list[str]:
    """A worker by that host name, which neither waits for other nodes at its start nor hears of them afterwards."""
    command = [sys.executable, "-m", "celery", "-A", app, "worker", f"--pool={pool}", f"--concurrency={concurrency}"]
    return [*command, f"--hostname={name}", "--without-gossip", "--without-mingle", f"--loglevel={log_level}"]
