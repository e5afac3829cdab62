"""Which nodes live, of which version, and how many messages wait: told by each node's main process, and by one that looks on.

What counts up goes another way, by `reporter`. This does not count: told twice it is as told once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.server.commands import Commands, integer
from pipeline.cache.server.connection import RedisConnection
from pipeline.cache.server.scripts import Script
from pipeline.courier import Courier, Occasion
from pipeline.figures.fields import queued_fields
from pipeline.figures.keys import FigureKeys
from pipeline.figures.records import (
    ANEW_MS,
    GAP_MS,
    KEPT_MARKS,
    MARKS_KEEP_MS,
    SILENT_MS,
    STEPS,
    TELL_EVERY_S,
    VERSION_EVERY_MS,
)


class LifeSign:
    """Tells every 20 s that a node lives and of which version it is, and at its end that it leaves: one that does not is marked
    as lost a minute later, by the next that looks. A passenger of the node's courier. Nothing here raises."""

    def __init__(
        self,
        courier: Courier,
        keys: FigureKeys,
        *,
        node: str,
        version: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`node`: its id (see `pipeline.cache.coherence.identity`). `version`: not empty."""
        self._keys, self._node, self._version, self._clock = keys, node, version, clock
        self._told_at_s = -math.inf
        if courier.connects:
            _script("tell")  # read here, as the reporter does
            courier.carry(self._tell)

    def _tell(self, connection: RedisConnection, occasion: Occasion) -> None:
        now_s = self._clock()
        if occasion == "due" and now_s - self._told_at_s < TELL_EVERY_S:
            return
        leaves = occasion == "last"
        names = [self._keys.heard, self._keys.versions, self._keys.marks]
        arguments: list[Any] = [self._node, "" if leaves else self._version, MARKS_KEEP_MS, KEPT_MARKS, VERSION_EVERY_MS, ANEW_MS]
        try:
            connection.call(lambda client: _script("tell").run(client, names, arguments, integer))
        except SharedTierUnavailableError:
            if leaves:
                return  # then it is marked as lost, which it is for all that the others can know
            raise
        self._told_at_s = -math.inf if leaves else now_s


def look_on(connection: RedisConnection, keys: FigureKeys, lengths: Mapping[str, int]) -> None:
    """Keep how many messages wait now, by queue, in the slots of this moment, and mark the nodes that fell silent. Two round
    trips. Raises SharedTierUnavailableError."""

    def command(client: Commands) -> None:
        seconds, _ = client.time()
        names = [keys.heard, keys.marks, keys.watch]
        arguments: list[Any] = [SILENT_MS, GAP_MS, MARKS_KEEP_MS, KEPT_MARKS]
        if lengths:
            names += [keys.slot(seconds // step.slot_s, step.slot_s) for step in STEPS]
            arguments += [step.keep_ms for step in STEPS]
            arguments += [part for field in queued_fields(lengths).items() for part in field]
        _script("look").run(client, names, arguments, integer)

    connection.call(command)


@cache
def _script(name: str) -> Script:
    return Script.read(__file__, name)
