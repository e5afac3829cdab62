"""Requests that a node's main process answers itself, since it may serve the answer: no slot of the pool, no trip to a child.

Only a message that is a plain request goes this way: of the Celery protocol 2, its first delivery, for Celery's own results,
without anything that is to happen before, after or instead. All others take the long way, and so does every miss.
"""

from __future__ import annotations

import base64
import binascii
import logging
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from celery.worker import state

from pipeline.errors import InvalidRequestError
from pipeline.figures.fields import NOT_SHOWN, QUEUE_WAIT
from pipeline.figures.tally import delay_ms
from pipeline.models import PersonaRequest, PersonaResponse
from pipeline.optimized import Hit, OptimizedPipeline
from workers.node.guard.bounds import MAX_BYTES
from workers.queue.names import PROCESS_TASK
from workers.queue.redaction import REDACTED

logger: Final = logging.getLogger(__name__)

KNOWN_REQUESTS: Final = 1024
"""Bodies whose request is remembered: equal requests of one producer have equal bodies."""
KNOWN_CHARS: Final = 8192
"""A longer body is read anew each time: so many of the longest that are allowed would be gigabytes."""

Store = Callable[[Sequence[tuple[str, bytes]]], bool]
"""Keeps and publishes results, by task, each the JSON of an answer; whether it could."""


class _Embedded(msgspec.Struct, forbid_unknown_fields=True):
    callbacks: tuple[()] | None = None
    errbacks: tuple[()] | None = None
    chain: tuple[()] | None = None
    chord: None = None


class _Headers(msgspec.Struct, forbid_unknown_fields=True):
    """All that a plain request may have."""

    task: Literal["persona.process"]
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    lang: str = ""
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    origin: str | None = None
    shadow: None = None
    root_id: str | None = None
    parent_id: None = None
    group: None = None
    group_index: None = None
    eta: None = None
    expires: None = None
    retries: Literal[0] | None = 0
    timelimit: tuple[None, None] | None = None
    ignore_result: Literal[False] | None = False
    replaced_task_nesting: Literal[0] | None = 0
    stamped_headers: tuple[()] | None = None
    stamps: dict[str, Any] | None = None
    persona_published_at: Any = None
    # How a caller's trace goes on. Whatever stands there is judged where it is used.
    traceparent: Any = None
    tracestate: Any = None
    baggage: Any = None


class _Properties(msgspec.Struct):
    body_encoding: Literal["base64"]


class _Envelope(msgspec.Struct, rename={"content_type": "content-type", "content_encoding": "content-encoding"}):
    body: str
    headers: _Headers
    properties: _Properties
    content_type: Literal["application/json"]
    content_encoding: Literal["utf-8"]


_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_BODY: Final = msgspec.json.Decoder(tuple[tuple[dict[str, Any]], dict[str, Any], _Embedded | None])
_ENCODE: Final = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """A request that can be answered here."""

    task_id: str
    published_at: Any
    hit: Hit
    traceparent: Any = None


class Door:
    """See the module. Used by one thread."""

    def __init__(self, pipeline: OptimizedPipeline, store: Store, dispatcher: Callable[[], Any], events_per_s: float) -> None:
        """`dispatcher`: Celery's, for events; of hits, so many a second are told."""
        self._pipeline = pipeline
        self._store = store
        self._dispatcher = dispatcher
        self._events = Allowance(events_per_s)
        self._requests: dict[str, PersonaRequest] = {}

    def judge(self, items: Sequence[bytes]) -> list[Answer | None]:
        """See `workers.node.fetch.hooks.Door`."""
        asked = [self._plain(item) for item in items]
        requests = [request for _, request in asked if request is not None]
        if not requests:
            return [None] * len(items)
        hits = iter(self._pipeline.seek_many(requests))
        answers: list[Answer | None] = []
        for headers, request in asked:
            hit = None if request is None else next(hits)
            told = hit is not None and headers is not None
            answers.append(
                Answer(headers.id, headers.persona_published_at, hit, headers.traceparent) if told and headers and hit else None
            )
        return answers

    def tell(self, answers: Sequence[Answer]) -> bool:
        """See `workers.node.fetch.hooks.Door`."""
        responses = [self._pipeline.response(answer.hit) for answer in answers]
        if not self._store([(answer.task_id, _ENCODE(response)) for answer, response in zip(answers, responses, strict=True)]):
            return False
        self._count(answers, responses)
        self._show(answers, responses)
        return True

    def _plain(self, item: bytes) -> tuple[_Headers | None, PersonaRequest | None]:
        """The headers and the request of a plain message."""
        if len(item) > MAX_BYTES:
            return None, None
        try:
            envelope = _ENVELOPE.decode(item)
            request = self._requests.get(envelope.body) or self._read(envelope.body)
        except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, InvalidRequestError, RecursionError):
            return None, None
        headers = envelope.headers
        if headers.stamps or headers.id in state.revoked or state.revoked_stamps or not request.use_cache:
            return None, None
        return headers, request

    def _read(self, body: str) -> PersonaRequest:
        (wire,), named, _ = _BODY.decode(base64.b64decode(body, validate=True))
        if named:
            raise InvalidRequestError("request", "has arguments by name")
        request = PersonaRequest.from_wire(wire)
        if len(body) <= KNOWN_CHARS:
            if len(self._requests) >= KNOWN_REQUESTS:
                self._requests.clear()
            self._requests[body] = request
        return request

    def _count(self, answers: Sequence[Answer], responses: Sequence[PersonaResponse]) -> None:
        now_s = time.time()
        tally = self._pipeline.reporter.tally
        for answer, response in zip(answers, responses, strict=True):
            self._pipeline.served(answer.hit, response)
            waited_ms = delay_ms(answer.published_at, now_s)
            if waited_ms is not None:
                tally.record(QUEUE_WAIT, waited_ms)
        state.total_count[PROCESS_TASK] += len(answers)
        state.all_total_count[0] += len(answers)

    def _show(self, answers: Sequence[Answer], responses: Sequence[PersonaResponse]) -> None:
        """To monitors as tasks, and in the log."""
        dispatcher = self._dispatcher()
        shown = 0
        if dispatcher is not None and dispatcher.enabled:
            shown = self._events.take(len(answers))
            if shown < len(answers):
                self._pipeline.reporter.tally.count(NOT_SHOWN, len(answers) - shown)
        named = logger.isEnabledFor(logging.INFO)
        for number, (answer, response) in enumerate(zip(answers, responses, strict=True)):
            runtime_s = response.execution_time_ms / 1000
            if number < shown:
                uuid = answer.task_id
                dispatcher.send(
                    "task-received", uuid=uuid, name=PROCESS_TASK, args=REDACTED, kwargs=REDACTED, root_id=uuid, parent_id=None,
                    retries=0, eta=None, expires=None,
                )  # fmt: skip
                dispatcher.send("task-started", uuid=uuid)
                dispatcher.send("task-succeeded", uuid=uuid, result=response.cached, runtime=runtime_s)
            if named:
                logger.info("door.answered: task %s (%s, %.3f ms)", answer.task_id, response.cached, runtime_s * 1000)


class Allowance:
    """So much a second, and no more than a second's at once."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._left = per_s
        self._at_s = clock()

    def take(self, wanted: int) -> int:
        """How many of these are allowed now."""
        now_s = self._clock()
        self._left = min(self._per_s, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        taken = min(wanted, int(self._left))
        self._left -= taken
        return taken
