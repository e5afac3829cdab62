"""The start and the end of each worker process."""

from __future__ import annotations

import logging
import threading
from typing import Any, Final

from celery.signals import worker_init, worker_process_init, worker_process_shutdown, worker_ready, worker_shutting_down

from pipeline.assembly import get_optimized_pipeline
from pipeline.preload import warm
from workers.queue.outcomes import haste

logger: Final = logging.getLogger(__name__)


def has_children(pool: Any) -> bool:
    """Whether tasks run in processes of the pool's own."""
    return type(pool).__module__ == "celery.concurrency.prefork"


@worker_init.connect(weak=False)
def share_haste(**_: Any) -> None:
    """Before the pool forks."""
    haste.share()


@worker_shutting_down.connect(weak=False)
def hurry(**_: Any) -> None:
    haste.hurry()


@worker_process_init.connect(weak=False)
def begin(**_: Any) -> None:
    """A pool child makes its own pipeline and connections: those that it inherited by the fork belong to its parent."""
    pipeline = get_optimized_pipeline()
    pipeline.reporter.courier.start()  # so that an idle process is shown, too
    pipeline.cache.refresh()
    warm_up()


@worker_ready.connect(weak=False)
def begin_without_children(sender: Any, **_: Any) -> None:
    """A pool of threads or greenlets has no process but the main one."""
    if not has_children(sender.pool):
        warm_up()


def warm_up() -> None:
    """Fetch the hottest answers, so that a replacement child soon has a warm L1. In a thread of its own, because Celery kills a
    child that takes more than a few seconds to start."""

    def run() -> None:
        logger.info("preload.warmed %d", warm(get_optimized_pipeline()))

    threading.Thread(target=run, name="warm-up", daemon=True).start()


@worker_process_shutdown.connect(weak=False)
def end(**_: Any) -> None:
    get_optimized_pipeline().close()
