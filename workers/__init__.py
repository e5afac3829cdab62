"""Everything that knows Celery. `celery -A workers worker|beat|flower|inspect` finds the app here.

The answers come from `pipeline`, which never imports this.
"""

from typing import Any

from persona_worker import check_ours

check_ours("pipeline")


def __getattr__(name: str) -> Any:
    # Made on request: a client, or `persona up`, decides on its settings before an app reads them.
    if name == "celery":
        from workers.app import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
