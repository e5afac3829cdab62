"""The tasks. Thin: a JSON object in, the pipeline's answer out."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from celery import Task
from celery.exceptions import Retry

from pipeline.assembly import get_optimized_pipeline
from pipeline.cache import InvalidPatternError, TwoTierCache
from pipeline.errors import InvalidRequestError, ModelError, TransientModelError
from pipeline.figures import Tally
from pipeline.figures.fields import FAILED, QUEUE_WAIT
from pipeline.figures.tally import delay_ms
from pipeline.keys import user_key_to_invalidate
from pipeline.models import PersonaRequest
from pipeline.preload import maintain as maintained
from pipeline.preload import report_of
from workers.app import app
from workers.node.preload import checked_budget, checked_round, preloader_of, takes_slot
from workers.queue.names import (
    IN_FLIGHT_HEADER,
    INVALIDATE_TASK,
    MAINTAIN_TASK,
    PRELOAD_TASK,
    PROCESS_TASK,
    PUBLISHED_HEADER,
    RENEW_TASK,
    RENEWAL_HEADER,
)

RETRY_PAUSE_S: Final = (2, 10)


@app.task(name=INVALIDATE_TASK, ignore_result=False, throws=(InvalidPatternError, InvalidRequestError, ValueError))
def invalidate(*patterns: str, users: Any = ()) -> dict[str, Any]:
    """Invalidate in every process, for a producer in any language: `send_task("cache.invalidate", args=["persona:lua:*"])`.
    `users`: ids as requests have them, whose answers are invalidated.

    Returns `{"patterns", "epoch", "seq", "durable"}`. Fails with InvalidPatternError or InvalidRequestError. The broadcast that
    follows bears the same name, and goes to the nodes' main processes only (workers.node.invalidation).
    """
    if not isinstance(users, list | tuple):
        raise InvalidRequestError("users", "expected a list of ids")
    done = get_optimized_pipeline().invalidate(*patterns, *map(user_key_to_invalidate, users))
    return {"patterns": list(done.patterns), "epoch": done.epoch, "seq": done.seq, "durable": done.durable}


@app.task(name=PRELOAD_TASK, bind=True, throws=(ValueError,))
def preload(self: Task, budget: Any = None, every_s: Any = None, round_id: Any = None) -> dict[str, Any]:
    """Warm the caches: persona infos, routes, prompt templates, and the answers that are asked for most, before they end.

    At most `budget` answers are computed anew (PERSONA_PRELOAD_BUDGET). Returns `{"personas", "routes", "templates",
    "hot_considered", "due", "renewed", "failed", "skipped"}`, and `stopped_because` if it ended early. `every_s`: the interval at
    which beat sends it; `round_id`: the name of its progress in the cache's Redis.
    """
    calls = checked_budget(budget)
    round_id = checked_round(round_id, self.request.id)
    pipeline = get_optimized_pipeline()
    refused = takes_slot(pipeline, self.name, self.request.id, every_s)
    if refused is not None:
        return {"stopped_because": refused}
    return report_of(preloader_of(app, pipeline).run(round_id, calls))


@app.task(name=RENEW_TASK, ignore_result=True, throws=(ValueError,))
def renew(round_id: Any) -> None:
    """Compute one hot answer anew, for the preload of that id, which has sent this."""
    preloader_of(app, get_optimized_pipeline()).help(checked_round(round_id, ""))


@app.task(name=MAINTAIN_TASK, bind=True, throws=(ValueError,))
def maintain(self: Task, every_s: Any = None) -> dict[str, Any]:
    """Remove bytes of invalidated entries, a little at a time, and let the hot set decay: see `pipeline.preload.maintain`."""
    pipeline = get_optimized_pipeline()
    refused = takes_slot(pipeline, self.name, self.request.id, every_s)
    return {"stopped_because": refused} if refused is not None else maintained(pipeline)


@app.task(
    name=PROCESS_TASK,
    bind=True,
    max_retries=len(RETRY_PAUSE_S),
    default_retry_delay=1,  # after its pool child died: before that child's lease has run out, so that no caller waits longer
    # Expected outcomes: told to the caller, not logged as the worker's own failure.
    throws=(InvalidRequestError, ModelError),
)
def process(self: Task, request: Any = None) -> dict[str, Any]:
    """Answer a request: `{"user_input", "resonance_key", "context"?, "use_cache"?}` to a PersonaResponse as an object.

    Fails at once with InvalidRequestError (the request) or PermanentModelError (the model's endpoint); after two more tries
    with TransientModelError.
    """
    pipeline = get_optimized_pipeline()
    tally = pipeline.reporter.tally
    try:
        parsed = PersonaRequest.from_wire(request)  # also when there was no argument: the caller is told what is expected
    except InvalidRequestError:
        tally.record(FAILED, 0.0)
        raise
    last = self.request.retries >= self.max_retries
    renewal = getattr(self.request, RENEWAL_HEADER, False) is True
    _record_queue_wait(self, tally)
    with _in_flight(self, pipeline.cache):
        try:
            return pipeline.process_request(parsed, counted=not renewal, tried_again=not last).to_wire()
        except TransientModelError as error:
            if last:
                raise
            pause_s = RETRY_PAUSE_S[self.request.retries] * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries
            raise self.retry(exc=error, countdown=pause_s) from None


def _record_queue_wait(task: Task, tally: Tally) -> None:
    """From queued to begun, if the sender said when it was queued. Not of another try, which waits on purpose."""
    waited_ms = delay_ms(getattr(task.request, PUBLISHED_HEADER, None), time.time())
    if waited_ms is not None and task.request.retries == 0:
        tally.record(QUEUE_WAIT, waited_ms)


@contextmanager
def _in_flight(task: Task, cache: TwoTierCache) -> Iterator[None]:
    """While the task runs, or waits for another try, equal requests may join it, if its sender has entered it as in flight."""
    key = getattr(task.request, IN_FLIGHT_HEADER, None)
    if not isinstance(key, str) or cache.in_flight is None:
        yield
        return
    try:
        with cache.in_flight.running(key, task.request.id):
            yield
    except Retry as retry:
        cache.in_flight.renew(key, task.request.id, begins_in_s=retry.when if isinstance(retry.when, int | float) else 0.0)
        raise
    except BaseException:
        cache.in_flight.leave(key, task.request.id)
        raise
    cache.in_flight.leave(key, task.request.id)
