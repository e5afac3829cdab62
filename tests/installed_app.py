"""An app of somebody else that has installed the cache: `celery -A installed_app worker` with `tests` in PYTHONPATH.

It has what such apps have: a queue, a compression and transport options of its own; and of this project no settings but two.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from celery import Celery

from benchmarks.kit.board import Board
from persona_worker import install

QUEUE: Final = "shop"
KEY: Final = "price:apple"

app = Celery("shop", broker=os.environ["SHOP_BROKER_URL"], backend=os.environ["SHOP_RESULT_URL"])
app.conf.update(
    task_default_queue=QUEUE,
    task_compression="gzip",
    broker_transport_options={"visibility_timeout": 600, "global_keyprefix": "shop-"},
    task_acks_late=True,  # no node takes more than it has slots
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    task_protocol=2,
)
installed = install(app, cache_url=os.environ["SHOP_CACHE_URL"], staleness_bound_s=float(os.environ.get("SHOP_BOUND_S", "60")))


@app.task(name="shop.who")
def who() -> dict[str, object]:
    """What this process has of the node."""
    cache = installed.cache
    cache.get_or_compute("who", lambda: 1)
    names = [thread.name for thread in threading.enumerate()]
    return {"pid": os.getpid(), "listens": "cache-listener" in names, "follows": installed.node.bus.tail is not None}


@app.task(name="shop.busy", ignore_result=True)
def busy(path: str, child: int, run_s: float) -> None:
    """Occupy a slot, read all the while, and note on the board which version was served."""
    cache = installed.cache
    with closing(Board(Path(path))) as board:

        def compute() -> int:
            return board.source

        board.enter(child, os.getpid())
        ends_s = time.monotonic() + run_s
        try:
            while time.monotonic() < ends_s and not board.stopped:
                asked_ns = time.monotonic_ns()
                version = cache.get_or_compute(KEY, compute, ttl=600)
                board.served(child, version, asked_ns, time.monotonic_ns())
                time.sleep(0.001)
        finally:
            board.leave(child)
