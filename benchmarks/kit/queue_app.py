"""The app of a node whose queue is measured: the product's own, with a task that does nothing."""

from __future__ import annotations

from typing import Any

import msgspec

from benchmarks.kit.model_server import expected_response
from benchmarks.kit.requests import spread_over
from benchmarks.kit.routes import BARE_TASK
from workers.app import app

# As large as a hit's answer to such a request.
RESULT = msgspec.structs.replace(expected_response(spread_over(1, 1)[0]), cached="l1", execution_time_ms=0.0123).to_wire()


@app.task(name=BARE_TASK)
def bare(request: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - it is sent, and that is all
    """The cost of Celery itself."""
    return RESULT
