"""What the values that a process has seen of late were computed from."""

from __future__ import annotations

from typing import Final

MOST_DEPS: Final = 10_000
"""What depends on more keys is not kept: each of its judgements would cost milliseconds, and each note of it megabytes."""
TOO_MANY: Final[tuple[str, ...]] = tuple(["(too many)"])  # noqa: C409 - an object of its own, equal to none
"""Stands for the deps of a value that has more; known by its identity. What was computed from such a value has them, too."""
KEPT: Final = 10_000
"""So many keys at least are remembered, and twice as many at most."""
WIDEST: Final = 256
"""A key whose deps are others at each computation is remembered by the last of them once they are more than this."""
NARROW: Final = 16
MOST_SHARED: Final = 1_000
"""So many tuples of so many deps are kept to be shared, also of keys that have others by now."""


class Lineage:
    """The deps of keys that this process has computed or read, also of those whose entries are gone from both tiers by now: what
    is computed from such a value depends on them all the same. Takes no lock: a step is one of the interpreter's.

    A key that was computed from one set of deps and then from another is remembered by both: a value computed from either may
    still be on its way. Keys without deps are not remembered. One is forgotten when KEPT others have been noted since. Keys with
    few and equal deps, such as the answers under one routing, share one tuple: what a key takes is its own name and a place.
    """

    def __init__(self) -> None:
        self._newer: dict[str, tuple[str, ...]] = {}
        self._older: dict[str, tuple[str, ...]] = {}
        self._equal: dict[tuple[str, ...], tuple[str, ...]] = {}

    def note(self, key: str, deps: tuple[str, ...]) -> None:
        """Note that a value of the key depends on these, theirs included."""
        if not deps:
            return
        known = self.of(key)
        if known and known != deps and TOO_MANY is not known and TOO_MANY is not deps:
            both = tuple(dict.fromkeys(known + deps))
            deps = both if len(both) <= WIDEST else deps
        self._newer[key] = self._shared(deps)
        if len(self._newer) > KEPT:
            self._older, self._newer = self._newer, {}

    def _shared(self, deps: tuple[str, ...]) -> tuple[str, ...]:
        """An equal tuple that is remembered already, or this one. TOO_MANY is known by its identity, and equal to none."""
        if deps is TOO_MANY or len(deps) > NARROW:
            return deps
        if len(self._equal) >= MOST_SHARED:
            self._equal = {}
        return self._equal.setdefault(deps, deps)

    def of(self, key: str) -> tuple[str, ...]:
        """What the values of the key depend on that this process has seen of late; nothing if it has seen none with deps."""
        return self._newer.get(key) or self._older.get(key, ())
