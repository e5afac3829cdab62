"""A node's app whose pool children end by themselves as they start: `celery -A failing_children worker`."""

from __future__ import annotations

import os
from typing import Any, Final

from celery.signals import worker_process_init

from workers.app import app

__all__ = ["EXIT_CODE", "app"]

EXIT_CODE: Final = 3


@worker_process_init.connect(weak=False)
def _fail(**_: Any) -> None:
    os._exit(EXIT_CODE)
