"""A request that is on its way, or was answered at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, Protocol

import celery.exceptions
import msgspec
from celery.result import AsyncResult

from pipeline.cache.flight.in_flight import InFlight
from pipeline.errors import InvalidRequestError, PermanentModelError, PipelineError, TransientModelError
from pipeline.models import PersonaResponse, Source
from workers.queue.backlog import Backlog
from workers.queue.dispatch import Sent
from workers.queue.errors import AnswerExpiredError, AnswerFailedError, AnswerTimeoutError
from workers.queue.reach import reaching
from workers.queue.results import RESULTS, Mailbox, QuietResult

CHECK_S: Final = 2.0
"""How often a ticket that waits for a task makes sure that it is in flight still."""

# A result backend rebuilds errors by name. Only these are taken for what they say: see `_translated`.
_KNOWN = {error.__name__: error for error in (InvalidRequestError, PermanentModelError, TransientModelError)}


class Ticket(Protocol):
    """One request's answer, now or later. For use by one thread, or one asyncio loop, at a time.

    `source`: where the answer comes from as far as it is known at once: `l1`, `l2` or `stale` (it is here), `joined` (another
    caller's task is waited for) or `no` (a task was queued). `task_id`: None when the answer is here.
    """

    @property
    def source(self) -> Source: ...

    @property
    def task_id(self) -> str | None: ...

    @property
    def done(self) -> bool:
        """Whether `result` would return or raise at once. Asks the result backend. Raises QueueUnavailableError."""

    def result(self, timeout_s: float = 60.0) -> PersonaResponse:
        """The answer, waiting for it at most `timeout_s` seconds, and PATIENCE_S more if a server is away.

        Raises AnswerTimeoutError, or its kind AnswerExpiredError when the result was not taken while it was kept;
        InvalidRequestError or a ModelError as the worker met it; AnswerFailedError when the worker gave up for another reason;
        QueueUnavailableError when the result backend cannot be reached.
        """

    async def aresult(self, timeout_s: float = 60.0) -> PersonaResponse:
        """As `result`, for an asyncio program: it does not hold up the loop."""

    def revoke(self) -> None:
        """Ask the workers not to begin the task, unless another caller waits for it, too. One that runs goes on; an answer that
        is here stays. Raises QueueUnavailableError."""

    def arrival(self) -> Future[AsyncResult] | None:
        """Done when `result` would return or raise at once; None when it would now. Raises QueueUnavailableError."""

    def look(self, deadline_s: float, timeout_s: float) -> bool:
        """When there is no answer yet: see to it that there will be one; whether another task is waited for now.

        Raises AnswerTimeoutError after the deadline (of the monotonic clock), and QueueUnavailableError.
        """


class AnsweredTicket:
    """A ticket whose answer was found."""

    task_id = None
    done = True

    def __init__(self, response: PersonaResponse) -> None:
        self._response = response

    @property
    def source(self) -> Source:
        return self._response.source

    def result(self, timeout_s: float = 60.0) -> PersonaResponse:  # noqa: ARG002 - it is here
        return self._response

    async def aresult(self, timeout_s: float = 60.0) -> PersonaResponse:  # noqa: ARG002 - as above
        return self._response

    def revoke(self) -> None:
        """There is no task."""

    def arrival(self) -> None:
        return None

    def look(self, deadline_s: float, timeout_s: float) -> bool:  # noqa: ARG002 - as above
        return False


class WaitingTicket:
    """A ticket that waits for a task."""

    def __init__(
        self,
        sent: Sent,
        queue: str,
        *,
        result_ttl_s: float,
        mailbox: Mailbox,
        revoke: Callable[[str], None],
        in_flight: InFlight | None,
        backlog: Backlog,
        send_again: Callable[[], Sent],
        record: Callable[[str, float], None],
    ) -> None:
        """`send_again`: for when the task was lost. `record` is told, with the time in ms, what became of a request that joined
        another's task: the workers count those that have a task of their own."""
        self.source: Source = "joined" if sent.joined else "no"
        self._sent, self._queue = sent, queue
        self._result_ttl_s = result_ttl_s
        self._mailbox, self._revoke = mailbox, revoke
        self._in_flight, self._backlog, self._send_again = in_flight, backlog, send_again
        self._patience_s = CHECK_S
        self._missed_since_s: float | None = None
        self._record: Callable[[str, float], None] | None = record
        self._began_s = time.monotonic()

    @property
    def task_id(self) -> str:
        return str(self._sent.result.id)

    @property
    def traceparent(self) -> object:
        """Of the trace that computed the answer; None if that is not known."""
        return self._sent.result.traceparent

    @property
    def done(self) -> bool:
        with reaching(RESULTS):
            return bool(self._sent.result.ready())

    def result(self, timeout_s: float = 60.0) -> PersonaResponse:
        deadline_s = time.monotonic() + timeout_s
        while True:
            remaining_s = self._wait_s(deadline_s)
            try:
                with reaching(RESULTS):
                    # Not propagated: a task may have ended with the very error that a lost backend raises.
                    outcome = self._sent.result.outcome(remaining_s)
            except celery.exceptions.TimeoutError:
                self.look(deadline_s, timeout_s)
                continue
            except KeyError:
                # Threads that wait for one task may meet so in the library's buffer of early results. Nothing is lost by it.
                continue
            if not self._lost_to_its_owner(outcome):
                return self._taken(outcome)

    async def aresult(self, timeout_s: float = 60.0) -> PersonaResponse:
        deadline_s = time.monotonic() + timeout_s
        while True:
            sent = self._sent
            arrived = asyncio.wrap_future(await asyncio.to_thread(self._mailbox.expect, sent.result))
            while sent is self._sent:
                await asyncio.wait([arrived], timeout=self._wait_s(deadline_s))
                if arrived.done() or await asyncio.to_thread(_is_ready, sent.result):
                    outcome = _outcome(sent.result)
                    if not await asyncio.to_thread(self._lost_to_its_owner, outcome):
                        return self._taken(outcome)
                else:
                    await asyncio.to_thread(self.look, deadline_s, timeout_s)

    def revoke(self) -> None:
        sent = self._sent
        if sent.joined:
            return
        if sent.key and (self._in_flight is None or not self._in_flight.withdraw(sent.key, str(sent.result.id))):
            return
        self._revoke(str(sent.result.id))

    def send_again_by(self, around: Callable[[Callable[[], Sent]], Callable[[], Sent]]) -> None:
        """Have what sends the task anew done within something else."""
        self._send_again = around(self._send_again)

    def _wait_s(self, deadline_s: float) -> float:
        """Until the next look at what is waited for."""
        remaining_s = max(0.0, deadline_s - time.monotonic())
        if self._sent.key:
            remaining_s = min(CHECK_S, remaining_s)
        return min(1.0, remaining_s) if self._is_past_its_life() else remaining_s

    def _is_past_its_life(self) -> bool:
        return time.monotonic() - self._began_s > self._result_ttl_s

    def arrival(self) -> Future[AsyncResult]:
        return self._mailbox.expect(self._sent.result)

    def look(self, deadline_s: float, timeout_s: float) -> bool:
        sent = self._sent
        if self._is_past_its_life():
            raise AnswerExpiredError(
                f"the result of task {self.task_id} expired: results are kept for {self._result_ttl_s:g} s "
                "(PERSONA_RESULT_TTL_S), and this one was asked for later, or the task is queued still"
            )
        if time.monotonic() >= deadline_s:
            raise AnswerTimeoutError(
                f"no answer to task {self.task_id} within {timeout_s:g} s: does a worker consume the queue {self._queue!r}?"
            )
        if not sent.key or self._in_flight is None:
            return False
        waits_s = self._in_flight.waits_s(sent.key, self.task_id)
        if waits_s is not None and not self._has_vanished(waits_s):
            return False
        if _is_ready(sent.result):
            return False
        if waits_s is not None:
            # Others that wait for it learn by this that it is lost, and join the one that is queued now.
            self._in_flight.leave(sent.key, self.task_id)
        self._sent = self._send_again()  # it was lost, or has waited for too long to be shared
        return True

    def _has_vanished(self, waits_s: float) -> bool:
        """Whether the task, queued for so long, has been neither in its queue nor begun for a while: a purge took it, or the
        broker lost it. Each time that a ticket finds this it looks for twice as long the next time, lest clocks that differ have
        it queue one task after another."""
        now_s = time.monotonic()
        if waits_s < self._patience_s or not self._backlog.has_passed(self._queue, time.time() - waits_s):
            self._missed_since_s = None
        elif self._missed_since_s is None:
            self._missed_since_s = now_s  # a worker may have taken it this moment
        elif now_s - self._missed_since_s >= self._patience_s:
            self._missed_since_s = None
            self._patience_s *= 2
            return True
        return False

    def _lost_to_its_owner(self, outcome: object) -> bool:
        """Whether another caller's task was revoked by its id: then it is not this one's request that was given up."""
        if not self._sent.joined or not isinstance(outcome, celery.exceptions.TaskRevokedError):
            return False
        if self._in_flight is not None:
            self._in_flight.leave(self._sent.key, str(self._sent.result.id))
        self._sent = self._send_again()
        return True

    def _taken(self, outcome: Any) -> PersonaResponse:
        waited_ms = (time.monotonic() - self._began_s) * 1000
        if self._sent.joined and self._record is not None:
            self._record("failed" if isinstance(outcome, BaseException) else "joined", waited_ms)
            self._record = None  # once, however often it is asked for
        if isinstance(outcome, BaseException):
            raise _translated(outcome, self.task_id)
        response = PersonaResponse.from_wire(outcome)
        if self._sent.joined:
            response = msgspec.structs.replace(response, cached="joined", execution_time_ms=waited_ms)
        return response


def _is_ready(result: AsyncResult) -> bool:
    with reaching(RESULTS):
        return bool(result.ready())


def _outcome(result: QuietResult) -> Any:
    with reaching(RESULTS):
        return result.outcome(0)


def _translated(error: BaseException, task_id: str) -> PipelineError | AnswerFailedError:
    known = _KNOWN.get(type(error).__name__)
    if known is not None:
        return known(str(error))
    return AnswerFailedError(f"task {task_id} failed: {type(error).__name__}: {error}")
