"""The judgement, over what was written down: pure, so that a changed history shows that each checker can fail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class Task(NamedTuple):
    """A task that its broker has accepted. `answered_s`: 0 if it has no outcome. `starts`: how often it began, where known."""

    id: str
    sent_s: float
    answered_s: float
    outcomes: int = 1
    right: bool = True
    starts: int = 1


class Version(NamedTuple):
    """A version of what answers are made from. `durable_s`: when the call that invalidated the earlier ones returned as durable;
    0 if it did not."""

    number: int
    durable_s: float


class Served(NamedTuple):
    """An answer, and the version it was made from. `asked_s`: when it was asked for."""

    number: int
    asked_s: float


class Told(NamedTuple):
    """A user's answer."""

    owner: str
    text: str


def lost(tasks: Iterable[Task]) -> list[Task]:
    """Those that nobody was told of, neither an answer nor a failure."""
    return [task for task in tasks if not task.answered_s]


def wrong(tasks: Iterable[Task]) -> list[Task]:
    return [task for task in tasks if task.answered_s and not task.right]


def twice(tasks: Iterable[Task]) -> list[Task]:
    """Those with a second outcome."""
    return [task for task in tasks if task.outcomes > 1]


def begun_too_often(tasks: Iterable[Task], most: int) -> list[Task]:
    return [task for task in tasks if task.starts > most]


def stale(served: Iterable[Served], versions: Sequence[Version], bound_s: float) -> list[Served]:
    """The answers that were asked for later than `bound_s` after an invalidation of what they were made from was durable."""
    found = []
    for answer in served:
        newest = max(
            (each.number for each in versions if each.durable_s and each.durable_s + bound_s <= answer.asked_s), default=0
        )
        if answer.number < newest:
            found.append(answer)
    return found


def leaked(told: Iterable[Told], canaries: Mapping[str, str]) -> list[Told]:
    """The answers without their owner's canary, or with another's. A canary is no part of another one."""
    return [
        each
        for each in told
        if canaries[each.owner] not in each.text
        or any(canary in each.text for owner, canary in canaries.items() if owner != each.owner)
    ]


def too_late(back_s: Iterable[float], bound_s: float) -> list[float]:
    return [seconds for seconds in back_s if seconds > bound_s]
