"""A digest of the values that a result was computed from: 128 bits, equal only for equal values, to the leaves and in type."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import hashlib
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgspec

from pipeline.cache.decorators.exact import is_deep
from pipeline.cache.errors import UncacheableValueError

_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_WORD: Final = range(-(2**63), 2**64)
"""Whole numbers that can always be written."""
_LIST: Final = 0
_TUPLE: Final = 1
_OTHER: Final = 2
"""The marks with which an array begins. After the last one comes the name of a type."""


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
    """The JSON form of the value, in which an array begins with the mark of what it stands for.

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
    if kind is dict and all(type(key) is str for key in value):
        for key in value:
            _refuse_surrogate(key, place)
        return {key: _exact(item, f"{place}[{key!r}]") for key, item in value.items()}
    return _exact_other(value, place)


def _exact_other(value: Any, place: str) -> Any:
    """As `_exact`, of what JSON has no form for."""
    kind = type(value)
    if kind is dict:
        pairs = [[_exact(key, f"{place}: key"), _exact(item, f"{place}[{key!r}]")] for key, item in value.items()]
        return [_OTHER, "dict", sorted(pairs, key=_encode)]
    if kind is set or kind is frozenset:  # in whatever order
        return [_OTHER, kind.__name__, sorted((_exact(member, f"{place}: member") for member in value), key=_encode)]
    if kind in _AS_TEXT:
        return [_OTHER, kind.__name__, _AS_TEXT[kind](value)]
    if kind is Decimal:
        if value.is_nan():
            raise UncacheableValueError(f"{place}: {value} cannot be part of a key")
        return [_OTHER, kind.__name__, str(value)]
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, enum.Enum):
        return [_OTHER, name, value.name, _exact(value.value, place)]
    fields = _fields_of(value)
    if fields is None:
        raise UncacheableValueError(f"{place}: {kind.__name__} cannot be part of a key")
    if more := [each for each in getattr(value, "__dict__", ()) if each not in fields]:
        raise UncacheableValueError(f"{place}.{more[0]}: is not a field, and cannot be part of a key")
    return [_OTHER, name, {each: _exact(getattr(value, each), f"{place}.{each}") for each in fields}]


def _moment(value: datetime.datetime | datetime.time) -> list[Any]:
    # One moment has several forms, and a function may tell them apart: an hour that comes twice, zones that agree at the time.
    return [value.isoformat(), value.fold, None if value.tzinfo is None else str(value.tzinfo)]


_AS_TEXT: Final[dict[Any, Any]] = {
    bytes: bytes.hex,
    UUID: str,
    datetime.date: datetime.date.isoformat,
    datetime.datetime: _moment,
    datetime.time: _moment,
    datetime.timedelta: lambda value: [value.days, value.seconds, value.microseconds],
}


def _fields_of(value: Any) -> tuple[str, ...] | None:
    """The fields of a struct, a dataclass or a named tuple; None for anything else."""
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return tuple(field.name for field in dataclasses.fields(value))
    if isinstance(value, tuple):
        names = getattr(type(value), "_fields", None)
        return names if isinstance(names, tuple) and len(names) == len(value) else None
    return None


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
