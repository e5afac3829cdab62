"""The app of our workers with one fault, which AILING names: `celery -A ailing_app worker` with `tests` in PYTHONPATH.

Such as a `celeryconfig` of another project, a host whose clock is wrong, or a node that has stopped following.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

from celery.signals import worker_ready

from pipeline.cache.coherence.node import NodeFollower
from workers.app import app
from workers.install import standing
from workers.queue.names import PROCESS_TASK

SKEW_S: Final = 60.0


def _configured() -> None:
    """As a careless `celeryconfig`."""
    app.conf.update(
        accept_content=["json", "pickle"],
        result_expires=None,
        worker_prefetch_multiplier=4,
        task_time_limit=None,
        task_acks_late=False,
    )
    app.tasks[PROCESS_TASK].acks_late = False


def _drops() -> None:
    app.conf.update(task_reject_on_worker_lost=False)
    app.tasks[PROCESS_TASK].reject_on_worker_lost = False


def _skewed() -> None:
    standing.time = SimpleNamespace(time=lambda: time.time() + SKEW_S)  # type: ignore[assignment]


def _deaf() -> None:
    """From when it is ready."""

    def nothing(*_: Any, **__: Any) -> bool:
        return False

    def stop(**_: Any) -> None:
        for name in ("beat", "beat_if_due", "hear", "receive", "catch_up"):
            setattr(NodeFollower, name, nothing)

    worker_ready.connect(stop, weak=False)


def _older() -> None:
    standing.version = lambda _: "0.0.9"


FAULTS: Final[dict[str, Callable[[], None]]] = {
    "configured": _configured,
    "drops": _drops,
    "skewed": _skewed,
    "deaf": _deaf,
    "older": _older,
}
app.finalize()
app.loader.import_default_modules()
FAULTS[os.environ["AILING"]]()
