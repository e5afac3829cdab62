"""The list of dead letters at the broker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeVar

from redis.exceptions import WatchError

from workers.queue.dead_letters.letter import (
    DEAD_LETTERS,
    DEAD_LETTERS_COUNT,
    DEAD_LETTERS_TTL_S,
    MAX_DEAD_LETTERS,
    Found,
    found,
    to_queue,
)
from workers.queue.errors import QueueUnavailableError
from workers.queue.factory import PersonaApp
from workers.queue.reach import at_redis

T = TypeVar("T")

_TRIES: Final = 100
"""The list may change between a look and the step that follows from it: workers add to it."""


def keep(client: Any, raw: bytes) -> None:
    """Put a letter on its list. Raises RedisError."""
    with client.pipeline() as pipe:
        pipe.incr(DEAD_LETTERS_COUNT)
        pipe.lpush(DEAD_LETTERS, raw)
        pipe.ltrim(DEAD_LETTERS, 0, MAX_DEAD_LETTERS - 1)
        pipe.expire(DEAD_LETTERS, DEAD_LETTERS_TTL_S)
        pipe.execute()


class DeadLetters:
    """Methods raise QueueUnavailableError, and NoRedisError where the broker is not Redis."""

    def __init__(self, app: PersonaApp) -> None:
        self._app = app

    def all(self, most: int = MAX_DEAD_LETTERS) -> list[Found]:
        """The latest first, so many at most."""
        raws = self._do(lambda client: client.lrange(DEAD_LETTERS, 0, most - 1))
        return [each for each in map(found, raws) if each is not None]

    def count(self) -> int:
        """How many are kept, without reading them."""
        return int(self._do(lambda client: client.llen(DEAD_LETTERS)))

    def ever(self) -> int:
        """How many there have been since the broker first counted."""
        return int(self._do(lambda client: client.get(DEAD_LETTERS_COUNT)) or 0)

    def retry(self, letters: Sequence[Found]) -> dict[str, int]:
        """Put their items at the end of their queues: how many were `queued`; `gone`, since somebody else has queued or dropped
        them; `cut`, as not all of them was kept."""
        counts = {"queued": 0, "gone": 0, "cut": 0}
        for one in letters:
            counts[self._queued(one)] += 1
        return counts

    def drop(self, letters: Sequence[Found]) -> int:
        """Forget these; how many there still were."""
        return self._do(lambda client: sum(int(client.lrem(DEAD_LETTERS, 1, one.raw)) for one in letters))

    def _queued(self, one: Found) -> Literal["queued", "gone", "cut"]:
        item = to_queue(one.letter)
        if item is None:
            return "cut"
        return "queued" if self._do(lambda client: _moved(client, one, item)) else "gone"

    def _do(self, command: Callable[[Any], T]) -> T:
        return at_redis(self._app, command)


def _moved(client: Any, one: Found, item: bytes) -> bool:
    """Take a letter off its list and queue its item, in one step: it is in one of them at any time, and is queued once. False if
    it is gone. No script: that would need the right to read the queue."""
    for _ in range(_TRIES):
        with client.pipeline() as pipe:
            pipe.watch(DEAD_LETTERS)
            if pipe.lpos(DEAD_LETTERS, one.raw) is None:
                return False
            pipe.multi()
            pipe.lrem(DEAD_LETTERS, 1, one.raw)
            pipe.lpush(one.letter.queue, item)
            try:
                pipe.execute()
            except WatchError:
                continue
            return True
    raise QueueUnavailableError("the list of dead letters changes faster than one of them can be moved")
