"""The list of dead letters at the broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar

from pipeline.cache.server.scripts import Script
from pipeline.settings import without_password
from workers.queue.dead_letters.letter import (
    DEAD_LETTERS,
    DEAD_LETTERS_COUNT,
    DEAD_LETTERS_TTL_S,
    MAX_DEAD_LETTERS,
    Found,
    found,
    to_queue,
)
from workers.queue.factory import PersonaApp
from workers.queue.reach import reaching

T = TypeVar("T")

Requeued = Literal["queued", "gone", "cut"]

_REQUEUE: Final = Script.read(__file__, "requeue")


class NoDeadLettersError(Exception):
    """The broker is not Redis: its own policy says where refused messages go."""


def keep(client: Any, raw: bytes) -> None:
    """Put a letter on its list. Raises RedisError."""
    with client.pipeline() as pipe:
        pipe.incr(DEAD_LETTERS_COUNT)
        pipe.lpush(DEAD_LETTERS, raw)
        pipe.ltrim(DEAD_LETTERS, 0, MAX_DEAD_LETTERS - 1)
        pipe.expire(DEAD_LETTERS, DEAD_LETTERS_TTL_S)
        pipe.execute()


class DeadLetters:
    """Methods raise QueueUnavailableError, and NoDeadLettersError."""

    def __init__(self, app: PersonaApp) -> None:
        self._app = app

    def all(self) -> list[Found]:
        """The latest first; at most MAX_DEAD_LETTERS."""
        return [each for each in map(found, self._do(lambda client: client.lrange(DEAD_LETTERS, 0, -1))) if each is not None]

    def ever(self) -> int:
        """How many there have been since the broker first counted."""
        return int(self._do(lambda client: client.get(DEAD_LETTERS_COUNT)) or 0)

    def requeue(self, one: Found) -> Requeued:
        """Put its item at the end of its queue. `gone`: somebody else has queued or dropped it. `cut`: not all of it was kept."""
        item = to_queue(one.letter)
        if item is None:
            return "cut"
        arguments = (2, DEAD_LETTERS, one.letter.queue, one.raw, item)
        return "queued" if self._do(lambda client: client.eval(_REQUEUE.source, *arguments)) else "gone"

    def drop(self, one: Found) -> bool:
        """False if it is gone."""
        return bool(self._do(lambda client: client.lrem(DEAD_LETTERS, 1, one.raw)))

    def _do(self, command: Callable[[Any], T]) -> T:
        with (
            reaching(f"the broker at {without_password(self._app.settings.broker_url)}"),
            self._app.producer_or_acquire() as producer,
        ):
            connected = getattr(producer.channel, "conn_or_acquire", None)
            if connected is None:
                raise NoDeadLettersError
            with connected() as client:
                return command(client)
