"""What a node lends the channel that its tasks come by."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from workers.node.poison import place

logger: Final = logging.getLogger(__name__)


class Door(Protocol):
    """Answers what needs no slot. Raises nothing, and waits for nothing long."""

    def judge(self, items: Sequence[bytes]) -> Sequence[Any]:
        """An answer to each of these, or None. Nobody is told."""

    def tell(self, answers: Sequence[Any]) -> bool:
        """Tell the callers, finally; whether that was possible."""


@dataclass
class Hooks:
    """What a node lends its channel.

    `is_ours`: whether a task of that name is ours: what else lies in a shared list stays there, and until this is known all of
    it does. `tasks`: those that it knows. `later`: calls something in so many seconds, in the channel's loop, if that has a
    timer.
    """

    door: Door | None = None
    is_ours: Callable[[Any], bool] | None = None
    tasks: Callable[[], Sequence[str]] | None = None
    later: Callable[[float, Callable[[], None]], object] | None = None


def judged(door: Door, items: Sequence[bytes]) -> Sequence[Any]:
    """The door's answers; none if it fails."""
    try:
        return door.judge(items)
    except Exception as error:  # noqa: BLE001 - a fault of the door must cost these items their short way, and not the node
        logger.error("fetch.door_failed: %s", place(error))  # noqa: TRY400 - its text may quote an item
        return [None] * len(items)
