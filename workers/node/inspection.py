"""What a worker tells of its settings by remote control, which Flower shows: without its secrets.

Celery hides a setting by its name, and knows the names of its own alone: the URL of beat's schedule is not among them.
"""

from __future__ import annotations

from typing import Any

from celery.utils.serialization import strtobool
from celery.worker.control import conf as _conf
from celery.worker.control import inspect_command

from pipeline.settings import get_settings
from workers.queue.censor import Censor


@inspect_command(alias="dump_conf", signature="[include_defaults=False]", args=[("with_defaults", strtobool)])
def conf(state: Any, with_defaults: bool = False, **options: Any) -> Any:
    """List configuration. In the place of Celery's own."""
    return Censor(get_settings())(_conf(state, with_defaults, **options))
