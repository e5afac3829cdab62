"""A round: the renewals of one preload, shared by the workers that take part in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import msgspec

from pipeline.cache.server.commands import Commands, Pipeline
from pipeline.cache.server.connection import RedisConnection
from pipeline.hot.keys import HotKeys

ROUND_S: Final = 600.0
"""How long Redis remembers a round."""

Outcome = Literal["renewed", "failed", "skipped"]
"""Of one key: its answer was computed anew; the model failed; there was nothing to do any more."""


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a preload has come, and at its end its report.

    `personas`, `routes` and `templates` are in both tiers. Of `hot_considered` hot answers, `due` were near their end or not
    there, and within the budget of model calls. Of these so many were `renewed`, `failed`, and `skipped`: another process had
    renewed them, or their request is not known any more. `stopped_because`: why it ended before it was done.
    """

    personas: int = 0
    routes: int = 0
    templates: int = 0
    hot_considered: int = 0
    due: int = 0
    renewed: int = 0
    failed: int = 0
    skipped: int = 0
    stopped_because: str | None = None
    ended: bool = False

    @property
    def handled(self) -> int:
        return self.renewed + self.failed + self.skipped


_NUMBERS: Final = frozenset({"personas", "routes", "templates", "hot_considered", "due", "renewed", "failed", "skipped"})


class Round:
    """One round, by its id, in Redis. All methods raise SharedTierUnavailableError."""

    def __init__(self, connection: RedisConnection, keys: HotKeys, round_id: str) -> None:
        self.round_id = round_id
        self._connection = connection
        self._round = keys.round(round_id)
        self._due = keys.due(round_id)

    def tell(self, **figures: int) -> None:
        """Set these fields of the progress."""
        self._commands(lambda pipe: pipe.hset(self._round, mapping=figures))

    def begin(self, due: Sequence[str], hot_considered: int) -> None:
        """Give out these keys, in this order."""

        def commands(pipe: Pipeline) -> None:
            pipe.hset(self._round, mapping={"hot_considered": hot_considered, "due": len(due)})
            if due:
                pipe.rpush(self._due, *due)
                pipe.expire(self._due, round(ROUND_S))

        self._commands(commands)

    def take(self) -> str | None:
        """A key that is the caller's to renew; None when there is none left, or the round was stopped."""
        raw = self._connection.call(lambda client: client.lpop(self._due))
        return raw.decode() if raw is not None else None

    def left(self) -> int:
        """How many keys are not taken yet."""
        return self._connection.call(lambda client: client.llen(self._due))

    def note(self, outcome: Outcome) -> int:
        """One key has been handled so; how many were."""
        count: int = self._commands(lambda pipe: pipe.hincrby(self._round, outcome, 1))[0]
        return count

    def stop(self, because: str) -> None:
        """Give out no more keys. The first reason stays."""

        def commands(pipe: Pipeline) -> None:
            pipe.unlink(self._due)
            pipe.hsetnx(self._round, "stopped_because", because)

        self._commands(commands)

    def end(self) -> Progress:
        """All is said and done; the report."""

        def commands(pipe: Pipeline) -> None:
            pipe.unlink(self._due)
            pipe.hset(self._round, "ended", 1)

        self._commands(commands)
        return self.read()

    def read(self) -> Progress:
        raw = self._connection.call(lambda client: client.hgetall(self._round))
        fields = {name.decode(): value.decode() for name, value in raw.items()}
        numbers = {name: int(value) for name, value in fields.items() if name in _NUMBERS}
        return Progress(**numbers, stopped_because=fields.get("stopped_because"), ended="ended" in fields)

    def _commands(self, add: Callable[[Pipeline], object]) -> list[Any]:
        def command(client: Commands) -> list[Any]:
            with client.pipeline(transaction=True) as pipe:
                add(pipe)
                pipe.expire(self._round, round(ROUND_S))
                return pipe.execute()

        return self._connection.call(command)


def report_of(progress: Progress) -> dict[str, Any]:
    """As a task's result and a document have it."""
    figures = {name: getattr(progress, name) for name in Progress.__struct_fields__ if name != "ended"}
    if figures["stopped_because"] is None:
        del figures["stopped_because"]
    return figures
