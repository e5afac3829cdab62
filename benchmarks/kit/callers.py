"""Callers that know nothing of this project, while nodes and servers die under them: what they send, and what becomes of it.

One thread sends plain tasks by a bare Celery app; another one follows all result channels, so that it sees each outcome that is
published, and each that is published twice.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from hashlib import blake2b
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from uuid import uuid4

import redis
from celery import Celery
from celery.states import READY_STATES, SUCCESS
from kombu.exceptions import OperationalError

from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.model_server import expected_answer
from benchmarks.kit.requests import RESONANCES, spread_over
from benchmarks.kit.routes import PROCESS_TASK
from pipeline.models import PersonaRequest
from pipeline.settings import Settings
from workers.client import QUEUE
from workers.node.consumer import LOST

META: Final = "celery-task-meta-"
KINDS: Final = 20
BEHIND_S: Final = 1.0
"""A sender that was held up for longer does not catch up: what it did not send is no load."""
READ_S: Final = 0.5
LOOK_S: Final = 0.5
LOOK_EVERY_S: Final = 5.0
"""The client subscribes anew after a break and does not say so; what was published meanwhile is stored, until it expires."""
AGAIN_S: Final = 0.05
FILL_S: Final = 60.0
BATCH: Final = 500
JOIN_S: Final = 20.0


class Asked:
    """A task, and what became of it. Moments are of the monotonic clock; 0: not yet. `sent_s` stays 0 if sending it failed:
    whether it arrived is unknown then, and it counts for nothing."""

    __slots__ = ("answered_s", "buried", "content", "digest", "outcomes", "phase", "right", "sent_s", "succeeded")

    def __init__(self, phase: str, content: str) -> None:
        self.phase, self.content = phase, content
        self.sent_s = self.answered_s = 0.0
        self.succeeded = self.right = self.buried = False
        self.outcomes = 0
        self.digest = b""


class Tally(NamedTuple):
    """What became of the tasks of one phase. `failed` includes `buried`: those that were with three nodes that died, which is the
    rule for them. `twice`: tasks with more than one published outcome, or with another one stored than published."""

    sent: int
    lost: int
    failed: int
    buried: int
    wrong: int
    twice: int


class Callers:
    """`with Callers(settings, ...) as callers:` the hits are in the cache then."""

    def __init__(self, settings: Settings, *, hits_per_s: float, slow_per_s: float) -> None:
        self._settings = settings
        self._every_s = (1 / hits_per_s, 1 / slow_per_s)
        self._hits = spread_over(KINDS, KINDS)
        self._contents = [expected_answer(request) for request in self._hits]
        self._number = 0
        self._ended = threading.Event()
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read, name="callers-read", daemon=True)
        self.asked: dict[str, Asked] = {}

    def __enter__(self) -> Self:
        self._app = Celery("foreign", broker=self._settings.broker_url, set_as_current=False)
        self._app.conf.broker_connection_timeout = 2
        self._reader.start()
        try:
            self._fill()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    @contextmanager
    def load(self, phase: str) -> Iterator[None]:
        """Send meanwhile. The tasks count for this phase."""
        stop = threading.Event()
        sender = threading.Thread(target=self._send_all, args=(phase, stop), name="callers-send", daemon=True)
        sender.start()
        try:
            yield
        finally:
            stop.set()
            sender.join(JOIN_S)

    def await_answers(self, phase: str, bound_s: float) -> None:
        """Return when each task of a phase has an outcome, or after that time."""
        deadline_s = time.monotonic() + bound_s
        while self._look(phase) and time.monotonic() < deadline_s:
            time.sleep(LOOK_S)

    def first_answer_s(self, since_s: float, bound_s: float) -> float:
        """How long after that moment the first of the tasks was answered that were sent after it; at most `bound_s`."""
        deadline_s = time.monotonic() + bound_s
        while time.monotonic() < deadline_s:
            newest = [
                asked for asked in list(self.asked.copy().values())[-BATCH:] if asked.answered_s and asked.sent_s >= since_s
            ]
            if newest:
                return min(asked.answered_s for asked in newest) - since_s
            time.sleep(AGAIN_S)
        return bound_s

    def lost(self, phase: str) -> list[tuple[str, Asked]]:
        """The tasks of that phase that were accepted and have no outcome, with their ids."""
        return [
            (task_id, asked)
            for task_id, asked in self.asked.copy().items()
            if asked.phase == phase and asked.sent_s and not asked.answered_s
        ]

    def tally(self, phase: str) -> Tally:
        """Reads every outcome that is stored."""
        all_asked = {task_id: asked for task_id, asked in self.asked.copy().items() if asked.phase == phase and asked.sent_s}
        twice = {task_id for task_id, asked in all_asked.items() if asked.outcomes > 1}
        for task_id, stored in self._stored(list(all_asked)):
            if stored is not None and all_asked[task_id].digest not in (b"", _digest(stored)):
                twice.add(task_id)
        answered = [asked for asked in all_asked.values() if asked.answered_s]
        return Tally(
            len(all_asked),
            len(all_asked) - len(answered),
            sum(not asked.succeeded for asked in answered),
            sum(asked.buried for asked in answered),
            sum(asked.succeeded and not asked.right for asked in answered),
            len(twice),
        )

    # -- sending

    def _fill(self) -> None:
        if not self._listening.wait(FILL_S):
            raise BenchmarkFailedError(["the result server does not answer"])
        for request, content in zip(self._hits, self._contents, strict=True):
            self._send("fill", request, content)
        self.await_answers("fill", FILL_S)
        if any(not asked.right for asked in self.asked.values()):
            raise BenchmarkFailedError(["the first requests were not answered right"])

    def _send_all(self, phase: str, stop: threading.Event) -> None:
        due = [time.monotonic()] * 2
        while not stop.is_set():
            what = due.index(min(due))
            now_s = time.monotonic()
            if due[what] > now_s:
                stop.wait(due[what] - now_s)
            elif now_s - due[what] > BEHIND_S:
                due[what] = now_s
            due[what] += self._every_s[what]
            self._number += 1
            if what == 0:
                kind = self._number % KINDS
                self._send(phase, self._hits[kind], self._contents[kind])
            else:
                request = PersonaRequest.create(f"{phase}, question {self._number}: and then?", RESONANCES[self._number % 4])
                self._send(phase, request, expected_answer(request))

    def _send(self, phase: str, request: PersonaRequest, content: str) -> None:
        task_id = str(uuid4())
        asked = self.asked[task_id] = Asked(phase, content)  # before it is sent: its answer may come first
        now_s = time.monotonic()
        try:
            self._app.send_task(PROCESS_TASK, args=[request.to_wire()], queue=QUEUE, task_id=task_id)
        except (OperationalError, redis.RedisError, OSError, AttributeError):
            # The broker is away, or refuses, and its caller knows. The last is kombu's: it has closed a channel after a refusal.
            return
        asked.sent_s = now_s

    # -- reading

    def _read(self) -> None:
        while not self._ended.is_set():
            with closing(self._client()) as client, closing(_channels(client)) as channels:
                try:
                    channels.psubscribe(f"{META}*")
                    channels.get_message(timeout=READ_S)
                    self._listening.set()
                    looked_s = time.monotonic()
                    while not self._ended.is_set():
                        message = channels.get_message(timeout=READ_S)
                        if message is not None:
                            self._heard(message["channel"].decode()[len(META) :], message["data"], published=True)
                        if time.monotonic() > looked_s + LOOK_EVERY_S:
                            looked_s = time.monotonic()
                            self._look(None)
                except (redis.RedisError, OSError):
                    self._ended.wait(AGAIN_S)  # it is restarted: what it publishes meanwhile, `_look` finds

    def _heard(self, task_id: str, payload: bytes, *, published: bool) -> None:
        asked = self.asked.get(task_id)
        outcome = json.loads(payload)
        if asked is None or outcome["status"] not in READY_STATES:
            return
        if published:
            asked.outcomes += 1
        elif asked.answered_s:
            return
        if asked.answered_s:
            return
        result: Any = outcome["result"]
        asked.succeeded = outcome["status"] == SUCCESS
        asked.right = asked.succeeded and result["content"] == asked.content
        asked.buried = not asked.succeeded and LOST in result.get("exc_message", ())
        asked.digest = _digest(payload)
        asked.answered_s = time.monotonic()

    def _look(self, phase: str | None) -> bool:
        """Look for outcomes that were not heard of, of every phase if none is named; whether some are still not there."""
        waiting = [
            task_id
            for task_id, asked in self.asked.copy().items()
            if phase in (None, asked.phase) and asked.sent_s and not asked.answered_s
        ]
        try:
            for task_id, stored in self._stored(waiting):
                if stored is not None:
                    self._heard(task_id, stored, published=False)
        except (redis.RedisError, OSError):
            return True
        return any(not self.asked[task_id].answered_s for task_id in waiting)

    def _stored(self, task_ids: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
        with closing(self._client()) as client:
            for start in range(0, len(task_ids), BATCH):
                batch = task_ids[start : start + BATCH]
                yield from zip(batch, client.mget([f"{META}{task_id}" for task_id in batch]), strict=True)

    def _client(self) -> redis.Redis:
        return redis.Redis.from_url(self._settings.result_backend_url, socket_timeout=5, socket_connect_timeout=2)

    def _close(self) -> None:
        self._ended.set()
        self._reader.join(JOIN_S)
        self._app.close()


def _digest(payload: bytes) -> bytes:
    return blake2b(payload, digest_size=12).digest()


def _channels(client: redis.Redis) -> Any:
    return client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
