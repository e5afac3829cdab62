"""Worker and beat end at their start, with the variable's name, if a certificate is not accepted."""

from __future__ import annotations

import sys
from typing import Any

from celery.signals import celeryd_init

from pipeline.errors import ConfigurationError
from pipeline.settings import Settings
from workers.queue.tls.refusals import check_certificates


def check_workers(settings: Settings) -> None:
    """From now on, each worker that starts in this process. (Beat's scheduler looks by itself, and so does Flower.)"""

    def check(**_: Any) -> None:
        end_if_refused(settings)

    celeryd_init.connect(check, weak=False, dispatch_uid="workers.queue.tls")


def end_if_refused(settings: Settings) -> None:
    """End this process with a sentence for each variable whose server is not believed, or does not believe it."""
    try:
        check_certificates(settings)
    except ConfigurationError as error:
        sys.exit("\n".join(f"error: {problem}" for problem in str(error).splitlines()))
