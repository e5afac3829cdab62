"""Which keys an invalidation matches. The language is Redis's: `*`, `?`, `[abc]`, `[^a]`, `[a-z]`, and `\\` before a literal.

Patterns are anchored and case-sensitive; `?` and a class stand for one character (in Redis's own `SCAN MATCH`, which only removes
bytes, for one byte). There are three kinds, by the cost of a match: *exact* (a dict lookup), *prefix* at a segment boundary,
`a:b:*` or `*` (a dict lookup a segment), *glob* (a compiled expression).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from pipeline.cache.errors import InvalidPatternError

MAX_PATTERN_BYTES: Final = 512
_SPECIAL: Final = frozenset("*?[\\")
_ANY_CHARACTER: Final = re.compile(".", re.DOTALL)
_ESCAPED: Final = re.compile(r"([*?\[\]\\])")
_NEEDS_EXPRESSION: Final = re.compile(r"[?\[\\]")


class Pattern(NamedTuple):
    """A checked pattern. `subject` is looked up: the key, the prefix with its last `:`, or the pattern itself."""

    text: str
    kind: Literal["exact", "prefix", "glob"]
    subject: str

    def matcher(self) -> Callable[[str], bool]:
        """A function that tells whether a key matches, for a walk over many keys."""
        if self.kind == "exact":
            return self.subject.__eq__
        if self.kind == "prefix":
            prefix = self.subject
            return lambda key: key.startswith(prefix)
        return glob_matcher(self.text)


def escape(key: str) -> str:
    """The pattern that matches `key` and nothing else."""
    return _ESCAPED.sub(r"\\\1", key)


def parse(text: object) -> Pattern:
    """Check and classify a pattern. Raises InvalidPatternError."""
    if not isinstance(text, str):
        raise InvalidPatternError(f"pattern: expected text, got {type(text).__name__}")
    return _parse(text)


@lru_cache(maxsize=4096)
def _parse(text: str) -> Pattern:
    if not text:
        raise InvalidPatternError("pattern: is empty; '*' means every key")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidPatternError("pattern: is not valid Unicode") from None
    if size > MAX_PATTERN_BYTES:
        raise InvalidPatternError(f"pattern: has {size} bytes; allowed are up to {MAX_PATTERN_BYTES}")
    if _SPECIAL.isdisjoint(text):
        return Pattern(text, "exact", text)
    literal, wild = _leading_literal(text)
    if not wild:
        return Pattern(text, "exact", literal)
    if wild == "*" and (not literal or literal.endswith(":")):
        return Pattern(text, "prefix", literal)
    _expression_parts(text)  # refuse it here rather than in the process that receives it
    return Pattern(text, "glob", text)


def leading_literal(text: str) -> str:
    """The beginning of every match of the pattern: the text before the first wildcard, unescaped."""
    return _leading_literal(text)[0]


def _leading_literal(text: str) -> tuple[str, str]:
    """The literal text before the first wildcard, unescaped, and the rest from that wildcard on."""
    literal: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char == "\\" and at + 1 < len(text):
            literal.append(text[at + 1])
            at += 2
        elif char in "*?[":
            return "".join(literal), text[at:]
        else:
            literal.append(char)
            at += 1
    return "".join(literal), ""


def glob_matcher(text: str) -> Callable[[str], bool]:
    """A function that tells whether a key matches a glob, which was parsed before. For literals between `*` it is made in a few
    microseconds; compiling an expression, which classes and `?` need, takes a hundred."""
    if _NEEDS_EXPRESSION.search(text):
        match = glob_expression(text).match
        return lambda key: match(key) is not None
    first, *between, last = text.split("*")
    shortest = len(text) - text.count("*")

    def matches(key: str) -> bool:
        if len(key) < shortest or not key.startswith(first) or not key.endswith(last):
            return False
        at, end = len(first), len(key) - len(last)
        for part in between:  # each at its first place: if any way fits, that one does
            at = key.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True

    return matches


def glob_expression(text: str) -> re.Pattern[str]:
    """The expression of a glob, for `match`. Raises InvalidPatternError for a class that is open, is empty or ends with `-`.

    Each part between two `*` is found at its first place and never given back (an atomic group), so that a hostile pattern costs
    time in proportion to the key's length times the pattern's.
    """
    first, *rest = _expression_parts(text)
    if not rest:
        return re.compile(first + r"\Z", re.DOTALL)
    middle = "".join(f"(?>.*?{part})" for part in rest[:-1] if part)
    return re.compile(rf"{first}{middle}.*{rest[-1]}\Z", re.DOTALL)


def _expression_parts(text: str) -> list[str]:
    """The expressions of the parts between the glob's `*`."""
    parts: list[str] = [""]
    at = 0
    while at < len(text):
        char = text[at]
        if char == "*":
            parts.append("")
        elif char == "?":
            parts[-1] += "."
        elif char == "[":
            members, at = _character_class(text, at)
            parts[-1] += members
        else:
            if char == "\\" and at + 1 < len(text):
                at += 1
            parts[-1] += re.escape(text[at])
        at += 1
    return parts


def glob_steps(text: str) -> tuple[re.Pattern[str] | str | None, ...]:
    """The pattern step by step: a character, an expression for one of several, None for any number of any characters. Raises
    InvalidPatternError."""
    pattern = parse(text).text
    steps: list[re.Pattern[str] | str | None] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "*":
            steps.append(None)
        elif char == "?":
            steps.append(_ANY_CHARACTER)
        elif char == "[":
            members, at = _character_class(pattern, at)
            steps.append(re.compile(members))
        else:
            if char == "\\" and at + 1 < len(pattern):
                at += 1
            steps.append(pattern[at])
        at += 1
    return tuple(steps)


def _character_class(text: str, start: int) -> tuple[str, int]:
    """The expression of the class that begins at `start`, and the index of its `]`. Raises InvalidPatternError."""
    at = start + 1
    negated = text[at : at + 1] == "^"
    at += negated
    members: list[str] = []
    while at < len(text) and text[at] != "]":
        if text[at] == "\\" and at + 1 < len(text):
            members.append(re.escape(text[at + 1]))
            at += 2
        elif text[at + 1 : at + 2] == "-":
            if text[at + 2 : at + 3] in ("", "]"):
                raise InvalidPatternError(f"pattern: has a class that ends with '-' at character {at + 1}; write '\\-'")
            low, high = sorted((text[at], text[at + 2]))
            members.append(f"{re.escape(low)}-{re.escape(high)}")
            at += 3
        else:
            members.append(re.escape(text[at]))
            at += 1
    if at >= len(text):
        raise InvalidPatternError(f"pattern: has an open '[' at character {start}; write '\\[' for the bracket itself")
    if not members:
        raise InvalidPatternError(f"pattern: has an empty class at character {start}; write '\\[' for the bracket itself")
    return f"[{'^' * negated}{''.join(members)}]", at
