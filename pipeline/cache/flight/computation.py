"""Computations that run, and what each of them has read so far.

A computation is known to the code that it calls by a context variable. So nested calls of its thread find it, and asyncio's
tasks, which begin with a copy of the context; a thread finds it if it was begun with a copy (`contextvars.copy_context().run`,
which `asyncio.to_thread` does by itself). A bare thread of a pool begins with no context: what it reads is not noted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from typing import Final

from pipeline.cache.lineage import MOST_DEPS, TOO_MANY


class _Nowhere:
    """Where reads are noted that are no computation's: it has ended, and what it has begun goes on."""

    def setdefault(self, _key: str, deps: tuple[str, ...]) -> tuple[str, ...]:
        return deps

    def __len__(self) -> int:
        return 0


_NOWHERE: Final = _Nowhere()


class Computation:
    """The keys that a computation has read, each with what its value depends on. Any thread may note; none waits for another.

    Beyond MOST_DEPS keys nothing more is noted: what it depends on is then TOO_MANY.
    """

    __slots__ = ("_others", "_too_many", "key", "parent", "read", "reads")

    def __init__(self, key: str, parent: Computation | None) -> None:
        """`parent`: the computation that needs this one."""
        self.key = key
        self.parent = parent
        self.read: dict[str, tuple[str, ...]] = {}
        """What was read so far."""
        self.reads: dict[str, tuple[str, ...]] | _Nowhere = self.read
        """Where it is noted, by `setdefault` alone; a hit of L1 does so without a call of `note`."""
        self._others: set[tuple[str, ...]] = set()
        self._too_many = False

    def begin(self) -> None:
        """From here on reads are noted; again, for one that is computed a second time."""
        self.reads = _NOWHERE if self._too_many else self.read

    def end(self) -> None:
        """From here on none is: a task that goes on may read for ever."""
        self.reads = _NOWHERE

    def note(self, key: str, deps: tuple[str, ...]) -> None:
        """Note that a value of the key was read, which depends on these; or that there was none."""
        reads = self.reads
        if reads.setdefault(key, deps) is not deps or len(reads) > MOST_DEPS:
            self.note_again(key, deps)

    def note_again(self, key: str, deps: tuple[str, ...]) -> None:
        """What is left of `note` where the key was read before, since its value may depend on other keys by now; or where there
        are too many."""
        if self.read.get(key, deps) != deps:
            self._others.add(deps)
        if len(self.read) > MOST_DEPS or len(self._others) > MOST_DEPS:
            self._too_many = True
            self.reads = _NOWHERE

    def note_all_of(self, other: Computation) -> None:
        """Note what another computation has read so far."""
        if other._too_many:
            self.note(other.key, TOO_MANY)
        for key, deps in other.read.copy().items():
            self.note(key, deps)

    def deps(self) -> tuple[str, ...]:
        """All that was read so far, and all that this depends on; without the computation's own key. Or TOO_MANY."""
        if self._too_many:
            return TOO_MANY
        reads, others = self.read.copy(), self._others.copy()
        whole = dict.fromkeys(reads)
        for deps in (*reads.values(), *others):
            if deps is TOO_MANY or len(whole) > MOST_DEPS + 1:
                return TOO_MANY
            whole |= dict.fromkeys(deps)
        whole.pop(self.key, None)
        return tuple(whole) if len(whole) <= MOST_DEPS else TOO_MANY

    def line(self) -> Iterator[Computation]:
        """This computation, the one that needs it, the one that needs that, and so on."""
        each: Computation | None = self
        while each is not None:
            yield each
            each = each.parent


COMPUTING: Final[ContextVar[Computation | None]] = ContextVar("computing", default=None)
"""The innermost computation that the running code belongs to."""
computing: Final = COMPUTING.get
LIVE: Final[set[Computation]] = set()
"""The computations that run in this process, so that a read outside of any asks no context: that would be an eighth of its cost.
One that is left here by mistake costs that much, and nothing else."""


def note(key: str, deps: tuple[str, ...]) -> None:
    """Note a read in the computation that the caller belongs to, if there is one."""
    if LIVE and (running := computing()) is not None:
        running.note(key, deps)
