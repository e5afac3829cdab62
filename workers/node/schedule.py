"""Beat's scheduler, under the name that `celery_settings` gives: RedBeat's, or a sentence that says what to install."""

import sys

from pipeline.errors import MissingExtraError

try:
    from redbeat import RedBeatScheduler
except ModuleNotFoundError as error:
    if error.name != "redbeat":
        raise
    sys.exit(f"error: {MissingExtraError('celery-redbeat', 'beat', 'worker')}")

__all__ = ["RedBeatScheduler"]
