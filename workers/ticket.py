"""A request that is on its way."""

from __future__ import annotations

from contextlib import suppress

import celery.exceptions
from celery.result import AsyncResult

from pipeline.errors import InvalidRequestError, PermanentModelError, PipelineError, TransientModelError
from pipeline.models import PersonaResponse
from workers.errors import AnswerFailedError, AnswerTimeoutError
from workers.reach import reaching

RESULTS = "the result backend"

# A result backend rebuilds errors by name. Only these are taken for what they say: see `_translated`.
_KNOWN = {error.__name__: error for error in (InvalidRequestError, PermanentModelError, TransientModelError)}


class QuietResult(AsyncResult):
    """A result that can be dropped after its backend has gone."""

    def __del__(self) -> None:
        # The library unsubscribes here, and raises when the server is away: with nobody to catch it, it would be printed.
        with suppress(Exception):
            super().__del__()


class Ticket:
    """One request's answer, now or later. For use by one thread at a time."""

    def __init__(self, result: AsyncResult, queue: str) -> None:
        self._result = result
        self._queue = queue

    @property
    def task_id(self) -> str:
        task_id: str = self._result.id
        return task_id

    @property
    def done(self) -> bool:
        """Whether `result` would return or raise at once. Asks the result backend. Raises QueueUnavailableError."""
        with reaching(RESULTS):
            return bool(self._result.ready())

    def result(self, timeout_s: float = 60.0) -> PersonaResponse:
        """The answer, waiting for it at most `timeout_s` seconds, and PATIENCE_S more if a server is away.

        Raises AnswerTimeoutError; InvalidRequestError or a ModelError as the worker met it; AnswerFailedError when the worker
        gave up for another reason; QueueUnavailableError when the result backend cannot be reached.
        """
        try:
            with reaching(RESULTS):
                # Not propagated: a task may have ended with the very error that a lost backend raises.
                outcome = self._result.get(timeout=timeout_s, interval=0.02, propagate=False)
        except celery.exceptions.TimeoutError:
            raise AnswerTimeoutError(
                f"no answer to task {self.task_id} within {timeout_s:g} s: does a worker consume the queue {self._queue!r}?"
            ) from None
        if isinstance(outcome, BaseException):
            raise _translated(outcome, self.task_id)
        return PersonaResponse.from_wire(outcome)

    def revoke(self) -> None:
        """Ask the workers not to begin the task. One that runs goes on. Raises QueueUnavailableError."""
        with reaching("the broker"):
            self._result.revoke()


def _translated(error: BaseException, task_id: str) -> PipelineError | AnswerFailedError:
    known = _KNOWN.get(type(error).__name__)
    if known is not None:
        return known(str(error))
    return AnswerFailedError(f"task {task_id} failed: {type(error).__name__}: {error}")
