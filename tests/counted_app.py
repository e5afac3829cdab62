"""A node's app that counts what its processes hold, when it is asked by SIGNAL: `celery -A counted_app worker`."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

from workers.app import app

__all__ = ["DIRECTORY", "SIGNAL", "app"]

SIGNAL: Final = signal.SIGRTMIN + 3
DIRECTORY: Final = "COUNTED_DIRECTORY"


def _count(*_: Any) -> None:
    gc.collect()
    objects = gc.get_objects()
    types = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in objects)
    counts = {"objects": len(objects), "blocks": sys.getallocatedblocks(), "types": types}
    path = Path(os.environ[DIRECTORY]) / f"{os.getpid()}"
    path.with_suffix(".new").write_text(json.dumps(counts))
    path.with_suffix(".new").rename(path)


signal.signal(SIGNAL, _count)  # a child inherits it
