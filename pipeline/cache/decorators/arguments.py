"""A digest of the values that a result was computed from: 128 bits, equal only for equal values, to the leaves and in type."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from pipeline.cache.decorators.exact import is_deep
from pipeline.cache.errors import UncacheableValueError

_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_WORD: Final = range(-(2**63), 2**64)
"""Whole numbers that can always be written."""
_LIST: Final = 0
_TUPLE: Final = 1


def digest_of(name: str, arguments: dict[str, Any]) -> str:
    """The digest of a call's arguments. Raises UncacheableValueError naming the function, the argument and the place in it."""
    exact = {}
    for parameter, value in arguments.items():
        # The common arguments: no call is made and no object built for them.
        if value is None or type(value) is bool or (type(value) is str and value.isascii()):
            exact[parameter] = value
        else:
            exact[parameter] = _exact_or_refused(value, f"{name}({parameter})")
    return _digest(exact)


def digest_of_value(value: object, place: str) -> str:
    """The digest of one value. Raises UncacheableValueError naming the place."""
    return _digest(_exact_or_refused(value, place))


def _digest(exact: object) -> str:
    return hashlib.blake2b(_encode(exact), digest_size=16).hexdigest()


def _exact_or_refused(value: object, place: str) -> Any:
    try:
        return _exact(value, place)
    except RecursionError:
        if not is_deep(value):
            raise  # the caller's own depth is to blame
        raise UncacheableValueError(f"{place}: is nested too deeply, or contains itself") from None


def _exact(value: Any, place: str) -> Any:
    """The JSON form of the value, in which a list and a tuple each begin with a mark of their own.

    Exact types only: msgspec would write a set, a date and a text that look alike as one key.
    """
    kind = type(value)
    if kind is str:
        _refuse_surrogate(value, place)
        return value
    if kind is int:
        if value not in _WORD:
            _refuse_endless(value, place)
        return value
    if value is None or kind is bool:
        return value
    if kind is float:
        if value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124 - only NaN differs from itself
            raise UncacheableValueError(f"{place}: {value} cannot be part of a key")
        return value
    if kind is list or kind is tuple:
        mark = _LIST if kind is list else _TUPLE
        return [mark, *(_exact(item, f"{place}[{index}]") for index, item in enumerate(value))]
    if kind is dict:
        for key in value:
            if type(key) is not str:
                raise UncacheableValueError(f"{place}: a key of type {type(key).__name__} is not text")
            _refuse_surrogate(key, place)
        return {key: _exact(item, f"{place}[{key!r}]") for key, item in value.items()}
    raise UncacheableValueError(f"{place}: {kind.__name__} is not a JSON value and cannot be part of a key")


def _refuse_surrogate(text: str, place: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UncacheableValueError(f"{place}: text with a lone surrogate cannot be part of a key") from None


def _refuse_endless(number: int, place: str) -> None:
    try:
        _encode(number)
    except ValueError:  # Python limits how many digits are written
        raise UncacheableValueError(f"{place}: a whole number of too many digits cannot be part of a key") from None
