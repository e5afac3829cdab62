"""Keys and patterns composed from data, spelt the same on the way in and on the way out.

A key is a prefix, which a programmer has chosen, and segments, which are data. Data is written without any character that a
pattern reads as a wildcard, and without the `:` between segments: a key made here, read as a pattern, matches itself alone.
"""

from __future__ import annotations

import hashlib
import re
from types import EllipsisType
from typing import Final
from urllib.parse import quote, unquote

from pipeline.cache.errors import InvalidPatternError
from pipeline.cache.keys import check_key
from pipeline.cache.patterns.pattern import escape, parse

MAX_ALONE_CHARS: Final = 200
MAX_CHARS: Final = 48
"""For each of several parts, so that five of them, and a prefix, make a key."""
_DIGEST: Final = re.compile(r"=[0-9a-f]{32}")


def key_of(prefix: str, *parts: str) -> str:
    """The key of these parts: `prefix:part:part`. Different parts have different keys, whatever they hold.

    A part that would take more than 48 characters, or 200 where it is the only one, is replaced by `=` and its digest; no other
    part is written with a `=`. Raises InvalidPatternError: for a part that is not text (7 and "7" would be one key), for a prefix
    with a wildcard, and for a key of more than 256 bytes.
    """
    return check_key(_joined(prefix, parts, wild=False))


def pattern_for(prefix: str, *parts: str | EllipsisType) -> str:
    """The pattern of the keys that `key_of` makes of these parts, where `...` stands for any part.

    `pattern_for("advice", user, ...)` matches all of that user's, and costs no more than one key. `...` before the last part
    makes a glob, and may stand for several parts. Raises InvalidPatternError.
    """
    return parse(_joined(prefix, parts, wild=True)).text


def check_prefix(prefix: object, field: str = "prefix") -> str:
    """Returns `prefix`. Raises InvalidPatternError, naming the field, when it is not text, is empty, or holds a wildcard of
    patterns: its keys could not be invalidated one by one."""
    if not isinstance(prefix, str):
        raise InvalidPatternError(f"{field}: expected text, got {type(prefix).__name__}")
    if not prefix:
        raise InvalidPatternError(f"{field}: is empty")
    if escape(prefix) != prefix:
        raise InvalidPatternError(f"{field}: {prefix!r} holds a wildcard; expected a text without * ? [ ] \\")
    try:
        check_key(prefix)
    except InvalidPatternError as error:
        raise InvalidPatternError(f"{field}: {str(error).removeprefix('key: ')}") from None
    return prefix


def data_of(segment: str) -> str | None:
    """The data of a key's only segment; None if no data is written that way. For a digest: the segment itself."""
    if _DIGEST.fullmatch(segment):
        return segment
    try:
        data = unquote(segment, errors="strict")
    except UnicodeDecodeError:
        return None
    return data if written(data, MAX_ALONE_CHARS) == segment else None


def _joined(prefix: object, parts: tuple[object, ...], *, wild: bool) -> str:
    # A `...` stands for at least one part: in every key that the pattern can match, a part beside it is not alone.
    most = MAX_ALONE_CHARS if len(parts) == 1 else MAX_CHARS
    texts = ("*" if part is ... and wild else _segment(part, number, most) for number, part in enumerate(parts, 1))
    return ":".join((check_prefix(prefix), *texts))


def _segment(part: object, number: int, most: int) -> str:
    if not isinstance(part, str):
        raise InvalidPatternError(f"part {number}: expected text, got {type(part).__name__}; write a number as text")
    try:
        return written(part, most)
    except UnicodeEncodeError:
        raise InvalidPatternError(f"part {number}: is not valid Unicode") from None


def written(data: str, most: int) -> str:
    """The segment of that data: of `most` characters, or a digest."""
    quoted = quote(data, safe="@+")
    if len(quoted) > most:
        return "=" + hashlib.blake2b(data.encode(), digest_size=16).hexdigest()
    return quoted
