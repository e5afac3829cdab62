"""For programs that ask: requests in, answers out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import msgspec

from pipeline.cache import Invalidation, TwoTierCache
from pipeline.errors import PipelineError
from pipeline.models import ChatContext, PersonaRequest, PersonaResponse
from pipeline.optimized import Equipment, build_cache
from pipeline.settings import Settings, without_password
from workers.broadcast import Announcer
from workers.discovery import discover_settings
from workers.errors import QueueUnavailableError, WorkerError
from workers.factory import make_app
from workers.reach import bound_waits, close_results, reaching
from workers.request import REDACTED
from workers.ticket import QuietResult, Ticket

QUEUE: Final = "persona"
BULK_QUEUE: Final = "persona.bulk"


class Progress(NamedTuple):
    """How far a `map` is. `total` is None when the requests come from an iterator whose length is not known."""

    done: int
    failed: int
    cached: int
    total: int | None


class Answered(msgspec.Struct, frozen=True):
    """One request of a `map` with its outcome: a response or an error, never both. `index` counts from 0."""

    index: int
    request: PersonaRequest
    response: PersonaResponse | None
    error: PipelineError | WorkerError | None


class PersonaClient:
    """Sends requests to the workers. One for a program: connections are pooled. Thread-safe; not for use across a fork.

    Without settings it takes those of the environment, and beneath them those of a stack that runs here (`persona up`).
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """Connects on first use. Raises ConfigurationError naming the variable."""
        self.settings = settings or discover_settings()
        self._app = make_app(self.settings)
        bound_waits(self._app)
        self._cache: TwoTierCache | None = None

    def ask(
        self,
        user_input: str,
        resonance_key: str,
        context: ChatContext | dict[str, Any] | None = None,
        *,
        use_cache: bool = True,
        timeout_s: float = 60.0,
    ) -> PersonaResponse:
        """Send one request and wait for its answer. Raises as `submit` and `Ticket.result` do."""
        return self.submit(user_input, resonance_key, context, use_cache=use_cache).result(timeout_s)

    def submit(
        self,
        user_input: str,
        resonance_key: str,
        context: ChatContext | dict[str, Any] | None = None,
        *,
        use_cache: bool = True,
        queue: str = QUEUE,
    ) -> Ticket:
        """Send one request and return at once.

        Raises InvalidRequestError before anything is sent, and QueueUnavailableError when the broker cannot be reached.
        """
        return self.submit_request(PersonaRequest.create(user_input, resonance_key, context, use_cache), queue=queue)

    def submit_request(self, request: PersonaRequest, *, queue: str = QUEUE) -> Ticket:
        """As `submit`, with a request that is validated already."""
        broker, results = (without_password(url) for url in (self.settings.broker_url, self.settings.result_backend_url))
        with reaching(f"the broker at {broker} or the result backend at {results}"):
            result = self._app.send_task(
                "persona.process",
                args=[request.to_wire()],
                queue=queue,
                argsrepr=REDACTED,
                kwargsrepr=REDACTED,
                result_cls=partial(QuietResult, app=self._app),
            )
        return Ticket(result, queue)

    def map(
        self,
        requests: Iterable[PersonaRequest],
        *,
        concurrency: int = 16,
        timeout_s: float = 60.0,
        queue: str = QUEUE,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Iterator[Answered]:
        """Send many requests, at most `concurrency` of them on their way at once, and yield their outcomes in order.

        Takes from `requests` only as fast as answers come, so that memory stays bounded. A request that fails does not end the
        others: its outcome holds the error. `on_progress` is called after each outcome. Raises QueueUnavailableError when one
        cannot be sent.
        """
        if concurrency < 1:
            raise ValueError(f"concurrency: {concurrency}; expected 1 or more")
        total = len(requests) if isinstance(requests, Sized) else None
        progress = Progress(0, 0, 0, total)
        waiting: deque[tuple[int, PersonaRequest, Ticket]] = deque()
        source = enumerate(requests)
        try:
            while True:
                while len(waiting) < concurrency:
                    following = next(source, None)
                    if following is None:
                        break
                    index, request = following
                    waiting.append((index, request, self.submit_request(request, queue=queue)))
                if not waiting:
                    return
                answered = _answered(*waiting.popleft(), timeout_s)
                response = answered.response
                progress = progress._replace(
                    done=progress.done + 1,
                    failed=progress.failed + (response is None),
                    cached=progress.cached + (response is not None and response.cached != "no"),
                )
                if on_progress is not None:
                    on_progress(progress)
                yield answered
        finally:
            self._take_back([ticket.task_id for _, _, ticket in waiting])

    def _take_back(self, task_ids: list[str]) -> None:
        """What was left early and has not begun need not be done for nobody."""
        if task_ids:
            # If the broker is away, that is what ended the map, or what the caller's next request will tell.
            with suppress(QueueUnavailableError), reaching("the broker"):
                self._app.control.revoke(task_ids)

    def invalidate(self, *patterns: str, wait_s: float = 0.0) -> Invalidation:
        """Make every cached entry that matches, or was computed from a match, a miss in every process.

        With `wait_s` the result tells which nodes have applied it within that time. See TwoTierCache.invalidate. Raises
        InvalidPatternError.
        """
        return self.cache.invalidate(*patterns, wait_s=wait_s)

    @property
    def cache(self) -> TwoTierCache:
        """The fleet's cache as this process sees it."""
        if self._cache is None:
            self._cache = build_cache(self.settings, Equipment(announce=Announcer(self._app)))
        return self._cache

    def close(self) -> None:
        """Close the connections. Tickets that have no answer yet get none."""
        close_results(self._app)
        self._app.close()
        if self._cache is not None:
            self._cache.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _answered(index: int, request: PersonaRequest, ticket: Ticket, timeout_s: float) -> Answered:
    try:
        return Answered(index, request, ticket.result(timeout_s), None)
    except (PipelineError, WorkerError) as error:
        return Answered(index, request, None, error)
