"""What each worker process does when it begins and ends."""

from __future__ import annotations

import logging
import threading
from typing import Any, Final

from celery.signals import worker_process_init, worker_process_shutdown, worker_ready

from pipeline.assembly import get_optimized_pipeline
from pipeline.preload import warm

logger: Final = logging.getLogger(__name__)


@worker_process_init.connect(weak=False)
def begin(**_: Any) -> None:
    """A pool child makes its own pipeline and connections: what it inherited by the fork belongs to its parent."""
    pipeline = get_optimized_pipeline()
    pipeline.reporter.courier.start()  # an idle process is shown, too
    pipeline.cache.refresh()
    warm_up()


@worker_ready.connect(weak=False)
def begin_without_children(sender: Any, **_: Any) -> None:
    """A pool of threads or greenlets has no other process than the main one."""
    if type(sender.pool).__module__ != "celery.concurrency.prefork":
        warm_up()


def warm_up() -> None:
    """Fetch the hottest answers, beside the work: who came in another's place has his L1 soon. Celery gives a child a few seconds
    to begin, of which this takes none."""

    def run() -> None:
        logger.info("preload.warmed %d", warm(get_optimized_pipeline()))

    threading.Thread(target=run, name="warm-up", daemon=True).start()


@worker_process_shutdown.connect(weak=False)
def end(**_: Any) -> None:
    get_optimized_pipeline().close()
