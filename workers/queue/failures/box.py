"""The failed tasks at the broker: a letter for each, under a name of its own.

They are not on the list of the dead letters: a model that is down for a minute fails thousands of tasks, which must not push out
what no worker could take; and of many that are tried again at once, each is found without a walk. What a letter is, how much of a
message it holds and for how long, is the same.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from redis.exceptions import NoScriptError, WatchError

from pipeline.cache.server.scripts import Script
from workers.queue.dead_letters.letter import DEAD_LETTERS_TTL_S, Found, found, to_queue
from workers.queue.errors import QueueUnavailableError
from workers.queue.factory import PersonaApp
from workers.queue.names import PUBLISHED_HEADER, QUEUE
from workers.queue.reach import at_redis

T = TypeVar("T")

FAILURES: Final = "persona.failed"
"""A sorted set at the broker: the ids of the letters, by the time of the failure in µs by the server's clock."""
FAILURES_COUNT: Final = f"{FAILURES}.count"
"""How many tasks have ever failed, another failure of the same task included."""
_LETTER: Final = f"{FAILURES}:"
MAX_FAILURES: Final = 2000
FAILURES_TTL_S: Final = DEAD_LETTERS_TTL_S
BATCH: Final = 100
_TRIES: Final = 100
_ID_CHARS: Final = 12
_KEEP: Final = Script.read(__file__, "keep")


def keep(client: Any, task_id: str, raw: bytes) -> None:
    """Keep a failed task's letter, the only one of that task. Raises RedisError."""
    name = _id_of(task_id)
    words = (3, FAILURES, _LETTER + name, FAILURES_COUNT, name, raw, FAILURES_TTL_S, MAX_FAILURES, _LETTER)
    try:
        client.evalsha(_KEEP.digest, *words)
    except NoScriptError:  # a server that has begun anew
        client.eval(_KEEP.source, *words)


def kept_now() -> tuple[int, str]:
    """The range of scores of those that are kept: what is older was let go of, though the index may still name it."""
    return int((time.time() - FAILURES_TTL_S) * 1e6), "+inf"


class Failures:
    """Methods raise QueueUnavailableError, and NoRedisError where the broker is not Redis."""

    def __init__(self, app: PersonaApp) -> None:
        self._app = app
        self._queues = {queue.name for queue in app.conf.task_queues}

    def all(self, most: int = MAX_FAILURES) -> list[Found]:
        """The latest first, so many at most."""
        return self._do(lambda client: _read(client, most))

    def find(self, task_id: str) -> Found | None:
        """That of this task."""
        name = _id_of(task_id)
        raw = self._do(lambda client: client.get(_LETTER + name))
        one = None if raw is None else found(raw)
        return None if one is None else one._replace(id=name)

    def ever(self) -> int:
        """How many there have been since the broker first counted."""
        return int(self._do(lambda client: client.get(FAILURES_COUNT)) or 0)

    def count(self) -> int:
        """How many are kept, without reading them."""
        return int(self._do(lambda client: client.zcount(FAILURES, *kept_now())))

    def retry(self, letters: Sequence[Found]) -> dict[str, int]:
        """Put these tasks at the end of their queues, with their ids, as if they had never been tried. How many were `queued`;
        `gone`, since somebody else has tried or dropped them, or they have failed anew since they were read; `cut`, as not all of
        a task was kept. Of two that do so at once, one queues a task; a task is a letter or queued at any time, and not both."""
        items = [(one, _again(one)) for one in letters]
        whole = [(one, item) for one, item in items if item is not None]
        queued = 0
        for batch in _batches(whole):
            items_of = {one.id: (self._queue_of(one), item) for one, item in batch}
            queued += self._take([one for one, _ in batch], items_of)
        return {"queued": queued, "gone": len(whole) - queued, "cut": len(items) - len(whole)}

    def drop(self, letters: Sequence[Found]) -> int:
        """Forget these; how many there still were."""
        return sum(self._take(batch, {}) for batch in _batches(letters))

    def _take(self, letters: Sequence[Found], items: dict[str, tuple[str, bytes]]) -> int:
        return self._do(lambda client: _taken(client, letters, items))

    def _queue_of(self, one: Found) -> str:
        """A message may name whatever it likes as its way."""
        return one.letter.queue if one.letter.queue in self._queues else QUEUE

    def _do(self, command: Callable[[Any], T]) -> T:
        return at_redis(self._app, command)


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def _read(client: Any, most: int) -> list[Found]:
    names = [name.decode() if isinstance(name, bytes) else name for name in client.zrange(FAILURES, -most, -1)]
    letters = []
    for batch in _batches(names[::-1]):
        for name, raw in zip(batch, client.mget([_LETTER + name for name in batch]), strict=True):
            one = None if raw is None else found(raw)
            if one is not None:
                letters.append(one._replace(id=name))
    return letters


def _taken(client: Any, letters: Sequence[Found], items: dict[str, tuple[str, bytes]]) -> int:
    """Forget those of these letters that are as they were read, and queue what is to be queued of them, in one step; how many."""
    names = [_LETTER + one.id for one in letters]
    for _ in range(_TRIES):
        with client.pipeline() as pipe:
            pipe.watch(*names)
            there = [one for one, raw in zip(letters, pipe.mget(names), strict=True) if raw == one.raw]
            if not there:
                return 0
            pipe.multi()
            for one in there:
                if one.id in items:
                    pipe.lpush(*items[one.id])
            pipe.delete(*(_LETTER + one.id for one in there))
            pipe.zrem(FAILURES, *(one.id for one in there))
            try:
                pipe.execute()
            except WatchError:
                continue  # another operator, or one of them has failed anew
            return len(there)
    raise QueueUnavailableError("the failed tasks change faster than they can be moved")


def _again(one: Found) -> bytes | None:
    """The task's message as if it had never been tried: its tries, and when it was due or to be given up, are over."""
    item = to_queue(one.letter)
    if item is None:
        return None
    envelope = json.loads(item)
    headers = envelope["headers"]
    headers.update(retries=0, eta=None, expires=None)
    if PUBLISHED_HEADER in headers:
        headers[PUBLISHED_HEADER] = time.time()
    return json.dumps(envelope).encode()


def _id_of(task_id: str) -> str:
    return hashlib.blake2b(task_id.encode(errors="replace"), digest_size=_ID_CHARS // 2).hexdigest()
