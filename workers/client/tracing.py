"""A client's requests as traces. Bound when a client is made: one that tells of nothing looks nothing up."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future

from celery.result import AsyncResult

from pipeline.models import PersonaRequest, PersonaResponse, Source
from pipeline.tracing.context import Place, derived, place_in
from pipeline.tracing.spans import Span, Tracer, current
from workers.client.ticket import Ticket, WaitingTicket
from workers.queue.dispatch import Sent
from workers.queue.errors import AnswerTimeoutError
from workers.queue.names import QUEUE

Submit = Callable[..., Ticket]


def traced_submit(tracer: Tracer, submit: Submit) -> Submit:
    """`submit_request` with a span for the sending and, when its answer is taken, one for the wait.

    The sending's is over, and told, when the task is queued: all that workers tell hangs there, and none of it waits for a
    caller that never takes its answer. An answer that this process had at once is told of only within a span of the program's.
    """

    def submit_request(request: PersonaRequest, *, queue: str = QUEUE) -> Ticket:
        alone = current() is None and tracer.caller() is None
        with tracer.unit("persona.submit", tracer.here(), "producer") as step:
            ticket = submit(request, queue=queue)
            step.note("persona.source", ticket.source)
            if alone and ticket.source == "l1":
                step.forget()
        return TracedTicket(ticket, tracer, step.place) if isinstance(ticket, WaitingTicket) and step.place.sampled else ticket

    return submit_request


class TracedTicket:
    """A ticket whose wait is told of, once, when its answer or error is taken."""

    def __init__(self, ticket: WaitingTicket, tracer: Tracer, place: Place) -> None:
        self._ticket, self._tracer, self._place = ticket, tracer, place
        self._span: Span | None = Span("persona.wait", place.span_id)
        ticket.send_again_by(self._in_this_trace)

    @property
    def source(self) -> Source:
        return self._ticket.source

    @property
    def task_id(self) -> str:
        return self._ticket.task_id

    @property
    def done(self) -> bool:
        return self._ticket.done

    def result(self, timeout_s: float = 60.0) -> PersonaResponse:
        try:
            response = self._ticket.result(timeout_s)
        except Exception as error:
            self._tell(error)
            raise
        self._tell(None, response)
        return response

    async def aresult(self, timeout_s: float = 60.0) -> PersonaResponse:
        try:
            response = await self._ticket.aresult(timeout_s)
        except Exception as error:
            self._tell(error)
            raise
        self._tell(None, response)
        return response

    def revoke(self) -> None:
        self._ticket.revoke()

    def arrival(self) -> Future[AsyncResult]:
        return self._ticket.arrival()

    def look(self, deadline_s: float, timeout_s: float) -> bool:
        return self._ticket.look(deadline_s, timeout_s)

    def _in_this_trace(self, send: Callable[[], Sent]) -> Callable[[], Sent]:
        """A task that is sent in the place of one that was lost is a part of the same trace."""

        def again() -> Sent:
            with self._tracer.unit("persona.submit again", self._place, "producer"):
                return send()

        return again

    def _tell(self, error: Exception | None, response: PersonaResponse | None = None) -> None:
        span = self._span
        if span is None or isinstance(error, AnswerTimeoutError):  # it may be asked for again
            return
        self._span = None
        span.end_ns = time.time_ns()
        if error is not None:
            span.error = type(error).__name__
        if response is not None:
            span.attributes["persona.source"] = response.cached
        if self._ticket.source == "joined":
            other = place_in(self._ticket.traceparent) or derived(self._ticket.task_id)
            span.links.append(other)
        self._tracer.send(self._place.trace_id, [span])
