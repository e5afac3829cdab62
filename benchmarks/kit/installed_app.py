"""An app that is not the product's, and has installed the cache: no personas, Celery's own transport, a queue of its own."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

from celery import Celery

from benchmarks.kit.board import Board
from benchmarks.kit.routes import BUSY_TASK, INSTALLED_QUEUE, PROBE_KEY, PROBE_TTL_S
from persona_worker import install

app = Celery("installed", broker=os.environ["PERSONA_BROKER_URL"], backend="disabled://")
app.conf.task_default_queue = INSTALLED_QUEUE
app.conf.task_acks_late = True  # no node takes more than it has slots
app.conf.worker_prefetch_multiplier = 1
app.conf.broker_connection_retry_on_startup = True
installed = install(app)


@app.task(name=BUSY_TASK, ignore_result=True)
def busy(path: str, child: int, run_s: float, nap_s: float) -> None:
    """As that of `fleet_app`, with the installed cache."""
    cache = installed.cache
    with closing(Board(Path(path))) as board:

        def compute() -> int:
            return board.source

        board.enter(child, os.getpid())
        ends_ns = time.monotonic_ns() + int(run_s * 1e9)
        try:
            while (asked_ns := time.monotonic_ns()) < ends_ns and not board.stopped:
                version = cache.get_or_compute(PROBE_KEY, compute, ttl=PROBE_TTL_S)
                board.served(child, version, asked_ns, time.monotonic_ns())
                time.sleep(nap_s)
        finally:
            board.leave(child)
