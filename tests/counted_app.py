"""A node's app that counts what its processes hold, when it is asked by SIGNAL: `celery -A counted_app worker`."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

from workers.app import app

__all__ = ["DIRECTORY", "SIGNAL", "app"]

SIGNAL: Final = signal.SIGRTMIN + 3
DIRECTORY: Final = "COUNTED_DIRECTORY"


def _count(*_: Any) -> None:
    gc.collect()
    counts = {"objects": len(gc.get_objects()), "blocks": sys.getallocatedblocks()}
    path = Path(os.environ[DIRECTORY]) / f"{os.getpid()}"
    path.with_suffix(".new").write_text(json.dumps(counts))
    path.with_suffix(".new").rename(path)


signal.signal(SIGNAL, _count)  # a child inherits it
