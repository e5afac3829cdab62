"""An app whose tasks use the cache until their soft time limit ends them: `celery -A soft_limits worker`."""

from __future__ import annotations

import os
import random
from functools import cache
from typing import Any

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from interruptions.paths import Paths

BROKER, CACHE = os.environ.get("SOFT_LIMITS_BROKER", ""), os.environ.get("SOFT_LIMITS_CACHE", "")

app = Celery("soft_limits", broker=BROKER, backend=BROKER, set_as_current=False)
app.conf.update(broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)


@cache
def paths() -> Paths:
    """Of this process."""
    return Paths(CACHE, "soft-limits", random.Random(os.getpid()))


@app.task
def use_the_cache(name: str) -> bool:
    """Use that path until the limit; whether it came."""
    call = paths().disturbed[name]
    try:
        while True:
            call()
    except SoftTimeLimitExceeded:
        return True


@app.task
def read() -> dict[str, Any]:
    """What ordinary calls of this process get wrong, and how many of them hit."""
    here = paths()
    wrong = [what for _ in range(3) for what in here.wrong_reads()]
    return {"wrong": wrong, "reads": here.reads, "hits": here.hits, "pid": os.getpid()}


@app.task
def names() -> list[str]:
    return sorted(paths().disturbed)
