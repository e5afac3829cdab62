"""Lists that other programs use, too: what is ours is claimed, and all else stays where it lies, in order."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from workers.node.fetch.claims import PORTION, Claim, Claims
from workers.node.guard.bounds import MAX_BYTES, is_cut, is_readable

logger: Final = logging.getLogger(__name__)

FOREIGN_S: Final = 0.25
"""So often a list is looked at while what lies there is not ours."""
_NAME_IN_HEADERS: Final = re.compile(rb'"headers"\s*:\s*\{[^{}]{0,16384}?"task"\s*:\s*"([^"\\]{1,255})"')
"""Of an item that is too large to be read."""
AGAIN_S: Final = 60.0
"""So often a long list is looked through from its beginning."""
MOST_NAMES: Final = 5
MAX_NAME_CHARS: Final = 100

_named: Final[set[str]] = set()
"""Tasks of others that this process's log has named. A few are enough to say whose they are."""


class Shared:
    """Used by the thread of the channel's loop. Methods raise RedisError."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._due_s: dict[str, float] = {}
        self._seen: dict[str, tuple[bytes, float]] = {}
        """Up to where a list is looked through, and when that was begun."""

    def __iter__(self) -> Any:
        return iter(list(self._due_s))

    def __contains__(self, source: str) -> bool:
        return source in self._due_s

    def __bool__(self) -> bool:
        return bool(self._due_s)

    def add(self, source: str) -> None:
        self._due_s[source] = 0.0

    def remove(self, source: str) -> None:
        self._due_s.pop(source, None)
        self._seen.pop(source, None)

    def due(self, source: str, now_s: float) -> bool:
        return now_s >= self._due_s[source]

    def look_at(self, source: str, at_s: float) -> None:
        """Look at it then, and not before."""
        self._due_s[source] = at_s

    def look_later(self, sources: Iterable[str], at_s: float) -> None:
        """None of these has anything: look at them then."""
        for source in sources:
            self._due_s[source] = at_s

    def claim(self, source: str, is_ours: Callable[[Any], bool], limit: int, now_s: float) -> tuple[list[Claim], bool]:
        """Up to so many that are ours, the oldest first; and whether anything lies there."""
        items = self._claims.oldest(source, PORTION)[::-1]
        claims = self._claims.pick(source, _ours(source, items, is_ours)[:limit])
        if claims or (len(items) < PORTION and sum(map(len, items)) < MAX_BYTES):
            return claims, bool(items)
        # Ours may lie behind many of others. What goes back lies before them: it was found above.
        seen, since_s = self._seen.get(source, (b"", now_s))
        if now_s - since_s > AGAIN_S:
            seen, since_s = b"", now_s
        further = self._claims.look({source: seen}, PORTION, deep=True)[source][::-1]
        ours = _ours(source, further, is_ours)[:limit]
        if further:
            last = ours[-1] if len(ours) == limit else further[-1]
            # The last is about to be claimed, or is not ours. One before it that is claimed cannot be found again, nor one by
            # its short form.
            rest = [item for item in further[: further.index(last) + 1] if item not in ours and not is_cut(item)]
            self._seen[source] = (rest[-1] if rest else seen, since_s)
        return self._claims.pick(source, ours), True


def _ours(source: str, items: Sequence[bytes], is_ours: Callable[[Any], bool]) -> list[bytes]:
    ours = []
    for item in items:
        name = _task(item)
        if is_ours(name):
            ours.append(item)
        elif isinstance(name, str) and len(_named) < MOST_NAMES and name not in _named:
            _name(source, name)
    return ours


def _task(item: bytes) -> Any:
    if not is_readable(item):
        found = _NAME_IN_HEADERS.search(item)
        return found.group(1).decode(errors="replace") if found else None
    try:
        name = json.loads(item)["headers"]["task"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return name if isinstance(name, str) else None


def _name(source: str, name: str) -> None:
    _named.add(name)
    shown = name if name.isprintable() and len(name) <= MAX_NAME_CHARS else "(not printable)"
    logger.warning(
        "fetch.foreign: queue %s has tasks that this worker does not know (%s): it leaves them to others", source, shown
    )
