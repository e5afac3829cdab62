"""The tasks. Thin: a JSON object in, the pipeline's answer out."""

from __future__ import annotations

import random
from typing import Any, Final

from celery import Task

from pipeline.cache import InvalidPatternError
from pipeline.errors import InvalidRequestError, ModelError, TransientModelError
from pipeline.models import PersonaRequest
from pipeline.optimized import get_optimized_pipeline
from workers.app import app

RETRY_PAUSE_S: Final = (2, 10)


@app.task(name="cache.invalidate", ignore_result=False, throws=(InvalidPatternError, ValueError))
def invalidate(*patterns: str) -> dict[str, Any]:
    """Invalidate in every process, for a producer in any language: `send_task("cache.invalidate", args=["persona:lua:*"])`.

    Returns `{"patterns", "epoch", "seq", "durable"}`. Fails with InvalidPatternError. The broadcast that follows bears the same
    name, and goes to the nodes' main processes only (workers.node).
    """
    done = get_optimized_pipeline().invalidate(*patterns)
    return {"patterns": list(done.patterns), "epoch": done.epoch, "seq": done.seq, "durable": done.durable}


@app.task(
    name="persona.process",
    bind=True,
    max_retries=len(RETRY_PAUSE_S),
    default_retry_delay=5,
    # Expected outcomes: told to the caller, not logged as the worker's own failure.
    throws=(InvalidRequestError, ModelError),
)
def process(self: Task, request: Any = None) -> dict[str, Any]:
    """Answer a request: `{"user_input", "resonance_key", "context"?, "use_cache"?}` to a PersonaResponse as an object.

    Fails at once with InvalidRequestError (the request) or PermanentModelError (the model's endpoint); after two more tries
    with TransientModelError.
    """
    parsed = PersonaRequest.from_wire(request)  # also when there was no argument: the caller is told what is expected
    try:
        return get_optimized_pipeline().process_request(parsed).to_wire()
    except TransientModelError as error:
        if self.request.retries >= self.max_retries:
            raise
        pause_s = RETRY_PAUSE_S[self.request.retries] * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, guards nothing
        raise self.retry(exc=error, countdown=pause_s) from None
