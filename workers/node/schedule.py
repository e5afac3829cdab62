"""Beat's scheduler, under the name that `celery_settings` gives: RedBeat's, or a sentence that says what to install."""

import sys
from typing import Any

from pipeline.errors import MissingExtraError
from workers.queue.tls.starting import end_if_refused

try:
    import redbeat
except ModuleNotFoundError as error:
    if error.name != "redbeat":
        raise
    sys.exit(f"error: {MissingExtraError('celery-redbeat', 'beat', 'worker')}")


class RedBeatScheduler(redbeat.RedBeatScheduler):
    """Looks at the certificates first: RedBeat would try for half a minute, and then say nothing of a setting."""

    def __init__(self, app: Any, *arguments: Any, **options: Any) -> None:
        end_if_refused(app.settings)
        super().__init__(app, *arguments, **options)


__all__ = ["RedBeatScheduler"]
