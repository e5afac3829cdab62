"""Which keys an invalidation means. The language is Redis's: `*`, `?`, `[abc]`, `[^a]`, `[a-z]`, and `\\` before a literal.

Patterns are anchored and case-sensitive. Three kinds, by the cost of asking "does it match this key?":
*exact* (a dict lookup), *prefix* at a segment boundary, `a:b:*` or `*` (a dict lookup a segment), *glob* (a compiled
expression).
"""

from __future__ import annotations

import fnmatch
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


@lru_cache(maxsize=4096)
def parse(text: object) -> Pattern:
    """Check and classify a pattern. Raises InvalidPatternError."""
    if not isinstance(text, str):
        raise InvalidPatternError(f"pattern: expected text, got {type(text).__name__}")
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
    """The expression of a glob. By way of fnmatch, whose expressions do not backtrack beyond the last `*`: a hostile
    pattern costs time in proportion to the key's length."""
    shell: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char == "\\" and at + 1 < len(text):
            following = text[at + 1]
            shell.append(f"[{following}]" if following in "*?[" else following)
            at += 2
        elif char == "[":
            end = text.find("]", at + 2 if text[at + 1 : at + 2] != "^" else at + 3)
            if end < 0:
                raise InvalidPatternError(f"pattern: has an open '[' at character {at}; write '\\[' for the bracket itself")
            inner = text[at + 1 : end].replace("\\", "")
            shell.append(f"[!{inner[1:]}]" if inner.startswith("^") else f"[{inner}]")
            at = end + 1
        else:
            shell.append(char)
            at += 1
    return re.compile(fnmatch.translate("".join(shell)))
