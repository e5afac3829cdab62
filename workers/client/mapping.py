"""Many requests: a bounded number on their way at once, their outcomes in order or as they come."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from typing import Any, Final, NamedTuple

import msgspec

from pipeline.errors import PipelineError
from pipeline.models import PersonaRequest, PersonaResponse
from workers.client.ticket import Ticket
from workers.queue.errors import QueueUnavailableError, WorkerError

LOOK_S: Final = 1.0
TAKE_S: Final = 5.0


class Progress(NamedTuple):
    """The progress of a `map`. `total` is None when the requests come from an iterator of unknown length."""

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


class _Sent(NamedTuple):
    place: int
    request: PersonaRequest
    ticket: Ticket
    deadline_s: float

    def answered(self, timeout_s: float) -> Answered:
        try:
            return Answered(self.place, self.request, self.ticket.result(timeout_s), None)
        except (PipelineError, WorkerError) as error:
            return Answered(self.place, self.request, None, error)


def map_requests(
    submit: Callable[[PersonaRequest], Ticket],
    requests: Iterable[PersonaRequest],
    *,
    concurrency: int,
    timeout_s: float,
    ordered: bool,
    on_progress: Callable[[Progress], None] | None,
) -> Iterator[Answered]:
    """The work of `PersonaClient.map`. Raises ValueError, and the errors of `submit`."""
    if concurrency < 1:
        raise ValueError(f"concurrency: {concurrency}; expected 1 or more")
    progress = Progress(0, 0, 0, len(requests) if isinstance(requests, Sized) else None)
    sent: deque[_Sent] = deque()

    def following() -> Iterator[_Sent]:
        for index, request in enumerate(requests):
            yield _Sent(index, request, submit(request), time.monotonic() + timeout_s)

    outcomes = (
        _in_order(following(), sent, concurrency, timeout_s)
        if ordered
        else _as_completed(following(), sent, concurrency, timeout_s)
    )
    try:
        for answered in outcomes:
            response = answered.response
            progress = progress._replace(
                done=progress.done + 1,
                failed=progress.failed + (response is None),
                cached=progress.cached + (response is not None and response.hit),
            )
            if on_progress is not None:
                on_progress(progress)
            yield answered
    finally:
        _take_back(each.ticket for each in sent)


def _in_order(following: Iterator[_Sent], sent: deque[_Sent], concurrency: int, timeout_s: float) -> Iterator[Answered]:
    while True:
        while len(sent) < concurrency:
            each = next(following, None)
            if each is None:
                break
            sent.append(each)
        if not sent:
            return
        yield sent.popleft().answered(timeout_s)


def _as_completed(following: Iterator[_Sent], sent: deque[_Sent], concurrency: int, timeout_s: float) -> Iterator[Answered]:
    awaited: dict[Future[Any], _Sent] = {}
    while True:
        while len(awaited) < concurrency:
            each = next(following, None)
            if each is None:
                break
            arrival = each.ticket.arrival()
            if arrival is None:
                yield each.answered(TAKE_S)
            else:
                awaited[arrival] = each
                sent.append(each)
        if not awaited:
            return
        done, still_out = wait(awaited, timeout=LOOK_S, return_when=FIRST_COMPLETED)
        for arrival in done:
            each = awaited.pop(arrival)
            sent.remove(each)
            yield each.answered(TAKE_S)
        if done:
            continue
        for arrival in still_out:
            each = awaited[arrival]
            try:
                moved = each.ticket.look(each.deadline_s, timeout_s)
            except WorkerError as error:
                del awaited[arrival]
                sent.remove(each)
                yield Answered(each.place, each.request, None, error)
                continue
            if moved:
                del awaited[arrival]
                again = each.ticket.arrival()
                if again is not None:
                    awaited[again] = each


def _take_back(tickets: Iterable[Ticket]) -> None:
    """Revoke the tasks that no caller waits for any more, so that those that have not begun need not be done."""
    # A broker that is away is what ended the map, or the caller's next request will report it.
    with suppress(QueueUnavailableError):
        for ticket in tickets:
            ticket.revoke()
