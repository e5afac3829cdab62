"""The account of a task: its outcome, the worker that has it, its place in a queue, or among what has failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec

from workers.explain.unknown import NothingKnownError
from workers.queue.errors import NoRedisError, QueueUnavailableError
from workers.queue.factory import PersonaApp
from workers.queue.failures.box import Failures
from workers.queue.names import PUBLISHED_HEADER
from workers.queue.reach import at_redis, reaching
from workers.queue.results import RESULTS

T = TypeVar("T")

PATIENCE_S: Final = 0.5
"""How long workers are waited for."""
SEARCHED: Final = 1000
"""So many of each queue's next items are looked at."""


def account_of_task(app: PersonaApp, task_id: str) -> dict[str, Any]:
    """`app`: one whose waits end. Raises NothingKnownError; what could not be asked stands in its text, or in the document's
    notes."""
    notes: list[str] = []
    document: dict[str, Any] = {
        "task": task_id,
        "state": None,
        "worker": None,
        "queue": None,
        "queued_at": None,
        "begun_at": None,
        "ended_at": None,
        "queue_s": None,
        "wait_s": None,
        "model_s": None,
        "why": None,
        "persona": None,
        "model": None,
        "source": None,
    }
    found = [
        _told(notes, "the results' server", lambda: _outcome(app, task_id)),
        _told(notes, "the broker's failed tasks", lambda: _failure(app, task_id)),
        _told(notes, "the broker's queues", lambda: _queued(app, task_id)),
        _told(notes, "the workers", lambda: _at_work(app, task_id, notes)),
    ]
    known = [each for each in found if each]
    for each in known:
        document |= each
    if not known:
        words = f"; {'; '.join(notes)}" if notes else ""
        raise NothingKnownError(
            "task",
            f"nothing is known of it: no outcome, no failure, no worker, nor is it among the next {SEARCHED} of a queue{words}",
        )
    if document["queued_at"] is not None and document["begun_at"] is not None:
        document["queue_s"] = max(0.0, document["begun_at"] - document["queued_at"])
    elif document["queued_at"] is not None and document["state"] == "queued":
        document["queue_s"] = max(0.0, time.time() - document["queued_at"])
    return {**document, "notes": notes}


def _told(notes: list[str], whom: str, ask: Callable[[], T]) -> T | None:
    """What one of them says; a note where it refuses, or has none of it."""
    try:
        return ask()
    except QueueUnavailableError as error:
        notes.append(f"{whom} could not be asked ({error})")
    except NoRedisError as error:
        notes.append(f"{whom} could not be asked: {error}")
    return None


def _outcome(app: PersonaApp, task_id: str) -> dict[str, Any] | None:
    with reaching(RESULTS):
        meta = app.backend.get_task_meta(task_id)
    if meta["status"] == "PENDING":
        return None
    found: dict[str, Any] = {"state": str(meta["status"]).lower(), "ended_at": _seconds(meta.get("date_done"))}
    answer = meta.get("result")
    if isinstance(answer, BaseException):
        found["why"] = type(answer).__name__
    elif isinstance(answer, dict) and isinstance(answer.get("cached"), str):
        spent = answer.get("execution_time_ms")
        if isinstance(spent, int | float):  # one computed with all that this takes, or waited for another that did
            found["model_s" if answer["cached"] == "no" else "wait_s"] = spent / 1000
        found |= {"source": answer["cached"], "persona": answer.get("persona"), "model": answer.get("model")}
    return found


def _failure(app: PersonaApp, task_id: str) -> dict[str, Any] | None:
    one = Failures(app).find(task_id)
    if one is None:
        return None
    letter = one.letter
    return {"state": "failed", "why": letter.why, "queue": letter.queue, "ended_at": letter.at} | _published(letter.item.encode())


def _queued(app: PersonaApp, task_id: str) -> dict[str, Any] | None:
    def search(client: Any) -> dict[str, Any] | None:
        for queue in (queue.name for queue in app.conf.task_queues):
            for item in _next(client, queue):
                if task_id.encode() in item and (headers := _headers(item)).get("id") == task_id:
                    return {"state": "queued", "queue": queue} | _published_in(headers)
        return None

    return at_redis(app, search)


def _at_work(app: PersonaApp, task_id: str, notes: list[str]) -> dict[str, Any] | None:
    with reaching("the broker"):
        nodes = app.control.inspect(timeout=PATIENCE_S).query_task(task_id) or {}
    if not nodes:
        notes.append(f"no worker has answered within {PATIENCE_S:g} s")
    for node, tasks in nodes.items():
        for state, info in tasks.values():
            begun = info.get("time_start")
            running = state == "active"
            return {
                "state": "running" if running else str(state),
                "worker": node,
                "begun_at": begun if running and isinstance(begun, int | float) else None,
            }
    return None


def _next(client: Any, queue: str) -> Iterator[bytes]:
    yield from client.lrange(queue, -SEARCHED, -1)


def _headers(item: bytes) -> dict[str, Any]:
    try:
        envelope = msgspec.json.decode(item)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    headers = envelope.get("headers") if isinstance(envelope, dict) else None
    return headers if isinstance(headers, dict) else {}


def _published(item: bytes) -> dict[str, Any]:
    return _published_in(_headers(item))


def _published_in(headers: dict[str, Any]) -> dict[str, Any]:
    at = headers.get(PUBLISHED_HEADER)
    return {"queued_at": float(at)} if isinstance(at, int | float) else {}


def _seconds(date_done: object) -> float | None:
    if isinstance(date_done, datetime):
        return date_done.timestamp()
    try:
        return datetime.fromisoformat(str(date_done)).timestamp()
    except ValueError:
        return None
