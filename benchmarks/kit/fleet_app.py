"""The app of a measured fleet: the product's own, with the tasks that measure."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

from kombu.common import Broadcast

from benchmarks.kit.board import Board
from benchmarks.kit.routes import BUSY_TASK, PROBE_KEY, PROBE_TTL_S, STOCK_EXCHANGE, STOCK_ROUTING_KEY, STOCK_TASK
from pipeline.assembly import get_optimized_pipeline
from workers.app import app

app.conf.task_queues = (
    *app.conf.task_queues,
    Broadcast(name=STOCK_EXCHANGE.name, exchange=STOCK_EXCHANGE, routing_key=STOCK_ROUTING_KEY),
)


@app.task(name=BUSY_TASK, ignore_result=True)
def busy(path: str, child: int, run_s: float, nap_s: float) -> None:
    """Occupy a slot for `run_s`, or until the board says stop, by waiting, as a call of a model does. In between, every
    `nap_s`, ask the cache as the pipeline would, and note which version of the source it gave."""
    cache = get_optimized_pipeline().cache
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


@app.task(name=STOCK_TASK, ignore_result=True)
def stock(path: str) -> None:
    """Celery's own broadcast: an ordinary task that one child of each node runs."""
    now_ns = time.monotonic_ns()
    with closing(Board(Path(path))) as board:
        board.ran_stock(os.getpid(), now_ns)
