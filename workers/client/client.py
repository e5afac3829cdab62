"""The client: one request or many, an answer from the cache or from a worker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Self, Unpack

from pipeline.assembly import Equipment, build_optimized_pipeline
from pipeline.cache import Invalidation, TwoTierCache
from pipeline.figures.fields import MISSED
from pipeline.models import ChatContext, PersonaRequest, PersonaResponse, RequestOptions
from pipeline.optimized import OptimizedPipeline, Sought
from pipeline.persona_pipeline import PersonaPipeline
from pipeline.personas import catalog_from
from pipeline.responders import responder_from
from pipeline.settings import Settings, discover_settings, without_password
from pipeline.tracing import tracer_of
from workers.client.mapping import Answered, Progress, map_requests
from workers.client.ticket import AnsweredTicket, Ticket, WaitingTicket
from workers.queue.backlog import Backlog
from workers.queue.broadcast import Announcer, note_in
from workers.queue.dispatch import Dispatcher, Sent, refresher
from workers.queue.factory import make_app
from workers.queue.names import QUEUE
from workers.queue.outbox import Outbox
from workers.queue.reach import bound_waits, close_results, reaching
from workers.queue.results import Mailbox


class PersonaClient:
    """Sends requests to the workers. One for a program: connections are pooled. Thread-safe; not for use across a fork.

    Without settings it takes those of the environment, and below them those of a stack that runs here (`persona up`).
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """Connects on first use. Raises ConfigurationError naming the variable."""
        self.settings = settings or discover_settings()
        self._app = make_app(self.settings)
        bound_waits(self._app)
        self._mailbox = Mailbox(self._app)
        self._outbox = Outbox(self._app)
        self._backlog = Backlog(self._app)
        self._lock = threading.Lock()
        self._pipeline: OptimizedPipeline | None = None
        self._dispatcher: Dispatcher | None = None
        if (tracer := tracer_of(self.settings)) is not None:
            from workers.client.tracing import traced_submit

            self.submit_request = traced_submit(tracer, self.submit_request)  # type: ignore[method-assign]

    # -- one request

    def ask(
        self,
        user_input: str,
        resonance_key: str,
        context: ChatContext | dict[str, Any] | None = None,
        *,
        timeout_s: float = 60.0,
        **options: Unpack[RequestOptions],
    ) -> PersonaResponse:
        """The answer to one request, from the cache or awaited from a worker. Raises as `submit` and `Ticket.result` do."""
        return self.submit(user_input, resonance_key, context, **options).result(timeout_s)

    def submit(
        self,
        user_input: str,
        resonance_key: str,
        context: ChatContext | dict[str, Any] | None = None,
        *,
        queue: str = QUEUE,
        **options: Unpack[RequestOptions],
    ) -> Ticket:
        """A ticket for one request's answer. The answer is in this process or in Redis; or a task for an equal request is queued
        or running; or a task is queued now. `options`: see RequestOptions.

        The cache helps here if this program has the workers' PERSONA_CACHE_URL and PERSONA_LLM_ settings (not the key).
        Without `use_cache` a task is queued. Raises InvalidRequestError before anything is sent, and QueueUnavailableError
        when the broker cannot be reached.
        """
        return self.submit_request(PersonaRequest.create(user_input, resonance_key, context, **options), queue=queue)

    def submit_request(self, request: PersonaRequest, *, queue: str = QUEUE) -> Ticket:
        """As `submit`, for a request that is already validated."""
        sought = None
        if request.use_cache:
            sought = self.pipeline.seek(request)
            if sought.response is not None:
                return AnsweredTicket(sought.response)
        send = partial(self._send, request, queue, sought)
        sent = None
        try:
            sent = send()
        finally:
            if sought is not None and (sent is None or not sent.joined):
                self.pipeline.reporter.tally.count(MISSED)
        return self._ticket(sent, queue, send)

    async def aask(
        self,
        user_input: str,
        resonance_key: str,
        context: ChatContext | dict[str, Any] | None = None,
        *,
        timeout_s: float = 60.0,
        **options: Unpack[RequestOptions],
    ) -> PersonaResponse:
        """As `ask`, for an asyncio program: an answer in this process comes at once, and the loop is not blocked for others."""
        ticket = await self.asubmit(user_input, resonance_key, context, **options)
        return await ticket.aresult(timeout_s)

    async def asubmit(
        self,
        user_input: str,
        resonance_key: str,
        context: ChatContext | dict[str, Any] | None = None,
        *,
        queue: str = QUEUE,
        **options: Unpack[RequestOptions],
    ) -> Ticket:
        """As `submit`, for an asyncio program. Await the ticket's `aresult`."""
        request = PersonaRequest.create(user_input, resonance_key, context, **options)
        if request.use_cache:
            sought = self.pipeline.seek(request, wait=False)
            if sought.response is not None:
                return AnsweredTicket(sought.response)
        return await asyncio.to_thread(self.submit_request, request, queue=queue)

    def _send(self, request: PersonaRequest, queue: str, sought: Sought | None) -> Sent:
        broker, results = (without_password(url) for url in (self.settings.broker_url, self.settings.result_backend_url))
        with reaching(f"the broker at {broker} or the result backend at {results}"):
            return self._dispatch.send(request, queue, sought)

    def _ticket(self, sent: Sent, queue: str, send: Callable[[], Sent]) -> Ticket:
        return WaitingTicket(
            sent,
            queue,
            result_ttl_s=self.settings.result_ttl_s,
            mailbox=self._mailbox,
            revoke=self._revoke,
            in_flight=self.cache.in_flight,
            backlog=self._backlog,
            send_again=send,
            record=self.pipeline.reporter.tally.record,
        )

    def _revoke(self, task_id: str) -> None:
        with reaching("the broker"):
            self._app.control.revoke(task_id)

    # -- many requests

    def map(
        self,
        requests: Iterable[PersonaRequest],
        *,
        concurrency: int = 16,
        timeout_s: float = 60.0,
        queue: str = QUEUE,
        ordered: bool = True,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Iterator[Answered]:
        """Send many requests, with at most `concurrency` of them on their way at once, and yield their outcomes: in order, or as
        they come.

        Takes from `requests` only as fast as answers come, so that memory stays bounded. A request that fails does not end the
        others: its outcome holds the error. `on_progress` is called after each outcome. Raises QueueUnavailableError when a
        request cannot be sent.
        """
        return map_requests(
            partial(self.submit_request, queue=queue),
            requests,
            concurrency=concurrency,
            timeout_s=timeout_s,
            ordered=ordered,
            on_progress=on_progress,
        )

    # -- the cache

    def invalidate(self, *patterns: str, wait_s: float = 0.0) -> Invalidation:
        """Make every cached entry that matches, or was computed from a match, a miss in every process.

        With `wait_s` the result tells which nodes have applied it within that time. A broker that takes no message costs a
        quarter of a second: the result is then not `announced`. See OptimizedPipeline.invalidate. Raises InvalidPatternError.
        """
        return self.pipeline.invalidate(*patterns, wait_s=wait_s)

    def invalidate_user(self, *user_ids: str, wait_s: float = 0.0) -> Invalidation:
        """Invalidate the answers that were made for these users, whatever characters their ids hold. See OptimizedPipeline."""
        return self.pipeline.invalidate_user(*user_ids, wait_s=wait_s)

    def invalidate_persona(self, *names: str, wait_s: float = 0.0) -> Invalidation:
        """Invalidate everything of these personas, by their names as answers show them. See OptimizedPipeline."""
        return self.pipeline.invalidate_persona(*names, wait_s=wait_s)

    @property
    def cache(self) -> TwoTierCache:
        """The fleet's cache as this process sees it."""
        return self.pipeline.cache

    @property
    def pipeline(self) -> OptimizedPipeline:
        """The pipeline that computes the keys of requests. It computes no answer here."""
        if self._pipeline is None:
            with self._lock:
                if self._pipeline is None:
                    announcer = Announcer(self._app, self.settings, self._outbox, note_in(lambda: self.pipeline.reporter))
                    equipment = Equipment(announce=announcer, refresh=refresher(self._app, self._outbox))
                    stages = PersonaPipeline(catalog_from(self.settings), responder_from(self.settings))
                    self._pipeline = build_optimized_pipeline(self.settings, stages, equipment)
        return self._pipeline

    @property
    def _dispatch(self) -> Dispatcher:
        if self._dispatcher is None:
            self._dispatcher = Dispatcher(self._app, self.cache)  # of two that race, either will do
        return self._dispatcher

    def close(self) -> None:
        """Send what is in the outbox, report the counts and close the connections. Tickets without an answer will get none."""
        self._outbox.close()
        self._mailbox.close()
        close_results(self._app)
        self._app.close()
        if self._pipeline is not None:
            self._pipeline.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
