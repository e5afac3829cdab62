"""Tells from the shapes of the pipeline's keys which patterns can match one: no key is looked at, in memory or in Redis."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import lru_cache
from typing import Final, NamedTuple

from pipeline.cache.errors import InvalidPatternError
from pipeline.cache.patterns.pattern import glob_steps, leading_literal
from pipeline.errors import InvalidRequestError
from pipeline.keys import check_pattern
from pipeline.models import INTENTS, PACES, RESONANCES, TONES, ResonanceKey

KINDS: Final = ("routing", "persona", "prompt", "user")
_DIGEST_CHARS: Final = 32
_IN_REDIS: Final = re.compile(r"[^:]+:\d+:e:(?=.)")
"""The beginning of an entry's name in Redis, before the key."""
_GLOB: Final = frozenset("*?[")


class _Words(NamedTuple):
    """One of these texts."""

    words: tuple[str, ...]


class _Run(NamedTuple):
    """`length` characters of this alphabet; any number from 1 if None."""

    alphabet: str
    length: int | None


_Shape = tuple[_Words | _Run, ...]
_RESONANCE: Final[_Shape] = (_Words(TONES), _Words(("-",)), _Words(PACES), _Words(("-",)), _Words(INTENTS))
_DIGEST: Final = _Run("0123456789abcdef", _DIGEST_CHARS)
_ID: Final = _Run(string.ascii_letters + string.digits + "_.-~@+%=", None)


class Unmatched(NamedTuple):
    """A pattern that no key of the pipeline can match, and the nearest one that a key can match, if there is any.

    `foreign`: it may be meant for a key of the program's own, such as a cached function's."""

    pattern: str
    nearest: str | None
    foreign: bool

    @property
    def message(self) -> str:
        known = f"keys begin with {', '.join(kind + ':' for kind in KINDS)}"
        hint = f"the nearest that one can match is {self.nearest!r}" if self.nearest else known
        unless = ", only one that your own code keeps" if self.foreign else ""
        return f"{self.pattern!r} can match no key of the pipeline{unless}; {hint}"


class Shapes:
    """The shapes of the keys of a pipeline with these personas. Immutable."""

    def __init__(self, slugs: Iterable[str]) -> None:
        self._slugs = tuple(slugs)
        persona = _Words(self._slugs)
        self._shapes: dict[str, tuple[_Shape, ...]] = {
            "routing": ((_Words(("routing:",)), *_RESONANCE),),
            "persona": (
                (_Words(("persona:",)), persona, _Words((":info",))),
                (_Words(("persona:",)), persona, _Words((":",)), *_RESONANCE, _Words((":",)), _DIGEST),
            ),
            "prompt": ((_Words(("prompt:",)), persona, _Words((":",)), *_RESONANCE),),
            "user": ((_Words(("user:",)), _ID),),
        }
        self.unmatched = lru_cache(maxsize=1024)(self._unmatched)
        """`Unmatched`, or None for a pattern that a key can match. Takes the same time whatever the cache holds."""

    def can_match(self, pattern: str) -> bool:
        """Whether some key of the pipeline could match it. Raises InvalidPatternError for a malformed pattern."""
        steps = glob_steps(pattern)
        kind, colon, _ = leading_literal(pattern).partition(":")
        kinds = (kind,) if colon else KINDS
        return any(_meets(shape, steps) for kind in kinds for shape in self._shapes.get(kind, ()))

    def _unmatched(self, pattern: str) -> Unmatched | None:
        if self.can_match(pattern):
            return None
        nearest = next((each for each in self._candidates(pattern) if self._is_good(each)), None)
        first, colon, _ = pattern.partition(":")
        ours = first.lower() in KINDS or first.lower() in self._slugs
        return Unmatched(pattern, nearest, foreign=not ours and bool(colon or _GLOB & set(pattern)))

    def _is_good(self, candidate: str) -> bool:
        try:
            return self.can_match(check_pattern(candidate))
        except InvalidPatternError:
            return False

    def _candidates(self, pattern: str) -> Iterator[str]:
        """Patterns that may have been meant, the likelier first."""
        text = _IN_REDIS.sub("", pattern.strip(), count=1)
        kind, colon, rest = text.partition(":")
        plain = _with_resonance(text.lower())
        for base in dict.fromkeys((text, kind.lower() + colon + rest, text.lower(), plain)):
            yield from _widened(base)
        yield from (f"routing:{plain}", *_widened("persona:" + plain))
        yield from _widened(self._corrected(plain))
        yield from _widened(self._corrected("persona:" + plain))
        segments = self._corrected(plain).split(":")
        for count in range(len(segments) - 1, 0, -1):
            yield ":".join((*segments[:count], "*"))

    def _corrected(self, text: str) -> str:
        """The text with each segment replaced by the most similar one that a key has in that place."""
        kind, *segments = text.split(":")
        kind = _closest(kind, KINDS)
        places = {
            "routing": (RESONANCES,),
            "persona": (self._slugs, ("info", *RESONANCES)),
            "prompt": (self._slugs, RESONANCES),
        }.get(kind, ())
        for at, words in enumerate(places[: len(segments)]):
            segments[at] = _closest(segments[at], words)
        return ":".join((kind, *segments))


def _widened(text: str) -> Iterator[str]:
    """The pattern, and those of everything below it."""
    yield text
    yield text.rstrip(":") + ":*"
    yield text.rstrip("-") + "-*"


def _with_resonance(text: str) -> str:
    """The text with each resonance key spelt as in keys."""

    def spelt(segment: str) -> str:
        try:
            return str(ResonanceKey.parse(segment))
        except InvalidRequestError:
            return segment

    return ":".join(map(spelt, text.split(":")))


def _closest(word: str, words: tuple[str, ...]) -> str:
    return next(iter(get_close_matches(word, words, n=1)), word)


# -- whether a pattern and a shape have a text in common

_Steps = tuple["re.Pattern[str] | str | None", ...]
"""The steps of a pattern: a character, a class of them, or None for any number of any."""


def _meets(shape: _Shape, steps: _Steps) -> bool:
    at = _settled({0}, steps)
    for part in shape:
        if isinstance(part, _Words):
            at = set().union(*(_after_word(at, word, steps) for word in part.words))
        else:
            at = _after_run(at, part, steps)
        if not at:
            return False
        if len(steps) - 1 in at and steps[-1] is None:
            return True  # whatever follows
    return len(steps) in at


def _after_word(at: set[int], word: str, steps: _Steps) -> set[int]:
    for char in word:
        at = _after(at, char, steps)
        if not at:
            break
    return at


def _after_run(at: set[int], run: _Run, steps: _Steps) -> set[int]:
    reached: set[int] = set()
    for _ in range(len(steps) + 1 if run.length is None else run.length):  # longer ones reach nothing new
        at = _after(at, run.alphabet, steps)
        reached |= at
        if not at:
            break
    return reached if run.length is None else at


def _after(at: set[int], chars: str, steps: _Steps) -> set[int]:
    """The places in the pattern that one of these characters can lead to."""
    after = set()
    for position in at:
        if position == len(steps):
            continue
        step = steps[position]
        if step is None:
            after.add(position)
        elif step in chars if isinstance(step, str) else any(map(step.match, chars)):
            after.add(position + 1)
    return _settled(after, steps)


def _settled(at: set[int], steps: _Steps) -> set[int]:
    """Adds the places that are reached by letting `*` stand for nothing."""
    for position in tuple(at):
        following = position
        while following < len(steps) and steps[following] is None:
            following += 1
            at.add(following)
    return at
