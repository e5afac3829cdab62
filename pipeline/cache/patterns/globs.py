"""Matches a key against many globs at once. Globs are kept in places by their literal segments, so that few are tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from pipeline.cache.patterns.pattern import glob_matcher

MAX_IN_A_PLACE: Final = 1_000
"""The most globs that one place remembers: this bounds the cost of a judgement."""

_SPECIAL: Final = frozenset("*?[]\\")
_Place = tuple[str | None, str | None]


class _Glob:
    """`matches` is made when it is first needed: most globs are never tried."""

    __slots__ = ("_matches", "seq", "text")

    def __init__(self, text: str, seq: int) -> None:
        self.text = text
        self.seq = seq
        self._matches: Callable[[str], bool] | None = None

    def matches(self, key: str) -> bool:
        matches = self._matches
        if matches is None:
            matches = self._matches = glob_matcher(self.text)
        return matches(key)


class Globs:
    """The newest seq of each glob. A glob whose first or last segment is literal is tried on keys with that segment only.

    Readers take no lock; one writer at a time.
    """

    __slots__ = ("_crowded", "_places")

    def __init__(self) -> None:
        self._places: dict[_Place, dict[str, _Glob]] = {}
        self._crowded = False

    def __bool__(self) -> bool:
        return bool(self._places)

    def note(self, text: str, seq: int) -> None:
        place = self._places.setdefault(_place_of(text), {})
        known = place.get(text)
        if known is None:
            place[text] = _Glob(text, seq)
            self._crowded = self._crowded or len(place) > MAX_IN_A_PLACE
        else:
            known.seq = max(seq, known.seq)

    def excess(self) -> int:
        """The seq up to which globs must be forgotten so that no place has too many; 0 if none need be."""
        if not self._crowded:
            return 0
        crowded = [place for place in self._places.values() if len(place) > MAX_IN_A_PLACE]
        # A tenth more than necessary, so that the next glob does not crowd the place again.
        kept = MAX_IN_A_PLACE - MAX_IN_A_PLACE // 10
        return max((sorted(glob.seq for glob in place.values())[-kept - 1] for place in crowded), default=0)

    def newer_than(self, floor: int) -> Globs:
        kept = Globs()
        for key, place in self._places.items():
            globs = {text: glob for text, glob in place.items() if glob.seq > floor}
            if globs:
                kept._places[key] = globs
        return kept

    def mean(self, key: str, since: int) -> bool:
        """Whether a glob with a seq above `since` matches `key`."""
        return any(glob.seq > since and glob.matches(key) for place in self._around(key) for glob in tuple(place.values()))

    def _around(self, key: str) -> Iterator[dict[str, _Glob]]:
        places = self._places
        loose = places.get((None, None))
        if loose:
            yield loose
        at = key.find(":")
        if at >= 0:
            first, last = key[:at], key[key.rfind(":") + 1 :]
            for name in ((first, last), (first, None), (None, last)):
                place = places.get(name)
                if place:
                    yield place


def _place_of(text: str) -> _Place:
    """The first and the last segment of every key that the glob can match, each None where the glob does not fix it."""
    at = text.find(":")
    if at < 0:
        return None, None
    first, last = text[:at], text[text.rfind(":") + 1 :]
    return (first if _SPECIAL.isdisjoint(first) else None), (last if _SPECIAL.isdisjoint(last) else None)
