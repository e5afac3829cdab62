"""What each worker process does when it begins and ends."""

from __future__ import annotations

from typing import Any

from celery.signals import worker_process_init, worker_process_shutdown

from pipeline.optimized import get_optimized_pipeline


@worker_process_init.connect(weak=False)
def begin(**_: Any) -> None:
    """A pool child makes its own pipeline and connections: what it inherited by the fork belongs to its parent."""
    get_optimized_pipeline().cache.refresh()


@worker_process_shutdown.connect(weak=False)
def end(**_: Any) -> None:
    get_optimized_pipeline().close()
