"""Which keys an invalidation means. The language is Redis's: `*`, `?`, `[abc]`, `[^a]`, `[a-z]`, and `\\` before a literal.

Patterns are anchored and case-sensitive; `?` and a class stand for one character (in Redis's own `SCAN MATCH`, which only removes
bytes, for one byte). Three kinds, by the cost of asking "does it match this key?":
*exact* (a dict lookup), *prefix* at a segment boundary, `a:b:*` or `*` (a dict lookup a segment), *glob* (a compiled
expression).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from pipeline.cache.errors import InvalidPatternError

MAX_PATTERN_BYTES: Final = 512
_SPECIAL: Final = frozenset("*?[\\")
_ESCAPED: Final = re.compile(r"([*?\[\]\\])")


class Pattern(NamedTuple):
    """A checked pattern. `subject` is what to look up: the key, the prefix with its last `:`, or the pattern itself."""

    text: str
    kind: Literal["exact", "prefix", "glob"]
    subject: str

    def matcher(self) -> Callable[[str], bool]:
        """Whether a key matches, for a walk over many keys."""
        if self.kind == "exact":
            return self.subject.__eq__
        if self.kind == "prefix":
            prefix = self.subject
            return lambda key: key.startswith(prefix)
        match = glob_expression(self.text).match
        return lambda key: match(key) is not None


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
    glob_expression(text)  # refuse it here rather than in the process that receives it
    return Pattern(text, "glob", text)


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


@lru_cache(maxsize=4096)
def glob_expression(text: str) -> re.Pattern[str]:
    """The expression of a glob, for `match`. Raises InvalidPatternError for an open bracket.

    Each `*` but the last takes the nearest place where what follows it fits, and never another one: the method of Python's
    fnmatch. So a hostile pattern costs time in proportion to the key's length, and cannot be made to backtrack.
    """
    fixed: list[str] = [""]
    at = 0
    while at < len(text):
        char = text[at]
        if char == "*":
            fixed.append("")
            at += 1
            continue
        if char == "?":
            piece, at = ".", at + 1
        elif char == "[":
            piece, at = _character_class(text, at)
        elif char == "\\" and at + 1 < len(text):
            piece, at = re.escape(text[at + 1]), at + 2
        else:
            piece, at = re.escape(char), at + 1
        fixed[-1] += piece
    first, *others = fixed
    expression = first
    if others:
        *middle, last = others
        expression += "".join(f"(?>.*?{piece})" for piece in middle if piece) + ".*" + last
    return re.compile(expression + r"\Z", re.DOTALL)


def _character_class(text: str, start: int) -> tuple[str, int]:
    """The expression of the class that opens at `start`, and the place after it. As Redis reads it: `^` negates, `\\` takes the
    next character as it is, a range may be written either way round, an empty class matches nothing."""
    at = start + 1
    negated = text[at : at + 1] == "^"
    at += negated
    members: list[str] = []
    while at < len(text) and text[at] != "]":
        if text[at] == "\\" and at + 1 < len(text):
            members.append(re.escape(text[at + 1]))
            at += 2
        elif text[at + 1 : at + 2] == "-" and at + 2 < len(text):
            low, high = sorted((text[at], text[at + 2]))
            members.append(f"{re.escape(low)}-{re.escape(high)}")
            at += 3
        else:
            members.append(re.escape(text[at]))
            at += 1
    if at >= len(text):
        raise InvalidPatternError(f"pattern: has an open '[' at character {start}; write '\\[' for the bracket itself")
    if not members:
        return ("." if negated else "(?!)"), at + 1
    return f"[{'^' if negated else ''}{''.join(members)}]", at + 1
