"""A node's app that counts what its processes hold, when it is asked by SIGNAL: `celery -A counted_app worker`.

With LINES set, also which lines of code hold what was made since the process was ready.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any, Final

from celery.signals import worker_process_init, worker_ready

from workers.app import app

__all__ = ["DIRECTORY", "LINES", "SIGNAL", "app"]

SIGNAL: Final = signal.SIGRTMIN + 3
DIRECTORY: Final = "COUNTED_DIRECTORY"
LINES: Final = "COUNTED_LINES"


def _count(*_: Any) -> None:
    gc.collect()
    path = Path(os.environ[DIRECTORY]) / f"{os.getpid()}"
    if tracemalloc.is_tracing():
        tracemalloc.take_snapshot().dump(path.with_suffix(".lines"))
    objects = gc.get_objects()
    types = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in objects)
    counts = {"objects": len(objects), "blocks": sys.getallocatedblocks(), "types": types}
    path.with_suffix(".new").write_text(json.dumps(counts))
    path.with_suffix(".new").rename(path)


def _trace(**_: Any) -> None:
    tracemalloc.start()


if os.environ.get(LINES):
    worker_process_init.connect(_trace, weak=False)
    worker_ready.connect(_trace, weak=False)
signal.signal(SIGNAL, _count)  # a child inherits it
