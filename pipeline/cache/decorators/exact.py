"""Whether a value comes back from JSON as it went in, to the leaves and in type; and where it would not."""

from __future__ import annotations

import dataclasses
import marshal
import math
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from pipeline.cache.errors import UncacheableValueError

_NONE: Final = type(None)
_SCALARS: Final = frozenset((str, int, float, bool, _NONE))
_DEEP: Final = 100
_encode: Final = msgspec.json.Encoder().encode


class Difference(NamedTuple):
    """`place` continues the name of the whole (`['a'][1]`, `.field`); `what` says how the part would come back."""

    place: str
    what: str


def is_plain(value: Any) -> bool:
    """Whether all of the value, to the leaves, is of Python's own types and not of classes derived from them. Such a value, if it
    comes back equal, comes back as it is.

    marshal refuses any other value, at a tenth of the cost of a walk; its output is thrown away.
    """
    if type(value) in _SCALARS:
        return True
    try:
        marshal.dumps(value)
    except ValueError:
        return False
    return True


def is_deep(value: object) -> bool:
    """Whether the value is nested beyond measure, or contains itself: it is then to blame for a RecursionError, rather than the
    caller's own depth."""
    level: dict[int, object] = {id(value): value}
    for _ in range(_DEEP):
        level = {id(inner): inner for outer in level.values() for _, inner in _parts(outer)}
        if not level:
            return False
    return True


def explain(value: Any, place: str) -> None:
    """Raise UncacheableValueError for the first part of `value` that JSON does not have. Returns when there is none."""
    kind = type(value)
    if kind is str:
        _explain_text(value, place)
    elif kind is int:
        _explain_whole(value, place)
    elif kind is float:
        _explain_number(value, place)
    elif kind is list:
        for index, item in enumerate(value):
            explain(item, f"{place}[{index}]")
    elif kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise UncacheableValueError(f"{place}: key {_shown(key)} is {type(key).__name__}; JSON's keys are text")
            _explain_text(key, f"{place}: key {_shown(key)}")
            explain(item, f"{place}[{_shown(key)}]")
    elif kind not in _SCALARS:
        _explain_foreign(value, place)


def _explain_text(text: str, place: str) -> None:
    """Raise UncacheableValueError for a text that JSON cannot carry."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UncacheableValueError(f"{place}: text with a lone surrogate, which JSON cannot carry") from None


def _explain_whole(number: int, place: str) -> None:
    """As `_explain_text`, for a whole number."""
    try:
        _encode(number)
    except ValueError:  # Python limits how many digits are written
        raise UncacheableValueError(f"{place}: a whole number of too many digits") from None


def _explain_number(number: float, place: str) -> None:
    """As `_explain_text`, for a float."""
    if not math.isfinite(number):
        raise UncacheableValueError(f"{place}: {number}, which JSON does not have")


def _explain_foreign(value: Any, place: str) -> None:
    """Raise for a value of no JSON type; for a tuple, first for such a part within it."""
    name = type(value).__name__
    if type(value) is tuple:
        for index, item in enumerate(value):
            explain(item, f"{place}[{index}]")
        raise UncacheableValueError(f"{place}: tuple, which comes back as a list; write a list, or name the type with `type=`")
    if isinstance(value, msgspec.Struct):
        raise UncacheableValueError(f"{place}: {name} is a struct; name it with `type=`")
    for base in (dict, list, tuple, str, bool, int, float):
        if isinstance(value, base):
            other = "list" if base is tuple else base.__name__
            raise UncacheableValueError(f"{place}: {name} comes back as {other}; write that, or name the type with `type=`")
    raise UncacheableValueError(f"{place}: {name} is not a JSON value")


def _is_same(value: object, carried: object) -> bool:
    """Whether the two are equal scalars: checked for every leaf, and most often true."""
    kind = type(value)
    if kind is not type(carried) or kind not in _SCALARS or value != carried:
        return False
    return kind is not float or bool(value) or str(value) == str(carried)  # -0.0 == 0.0


def difference(value: Any, carried: Any) -> Difference | None:
    """Where the value that came back differs from the one that went in; None if nowhere."""
    if _is_same(value, carried):
        return None
    kind = type(value)
    if kind is not type(carried):
        return Difference("", f"{kind.__name__} comes back as {type(carried).__name__}")
    if isinstance(value, msgspec.Struct):
        return _difference_of_fields(kind.__struct_fields__, value, carried)
    if isinstance(value, list | tuple):
        return _difference_of_items(value, carried)
    if isinstance(value, dict):
        return _difference_of_tables(value, carried)
    if isinstance(value, set | frozenset):
        return _difference_of_sets(value, carried)
    names = _names(value)
    if names is not None:
        return _difference_of_fields(names, value, carried)
    # A member of an enumeration is one object. Dates, numbers of other kinds, bytes: equal, and written alike, which tells two
    # zones of one moment apart.
    if value is carried or (kind not in _SCALARS and value == carried and repr(value) == repr(carried)):
        return None
    return Difference("", f"{kind.__name__} comes back as another one")


def _difference_of_fields(names: tuple[str, ...], value: object, carried: object) -> Difference | None:
    for name in names:
        mine, theirs = getattr(value, name), getattr(carried, name)
        if not _is_same(mine, theirs) and (found := difference(mine, theirs)) is not None:
            return Difference(f".{name}{found.place}", found.what)
    mine, theirs = getattr(value, "__dict__", None), getattr(carried, "__dict__", {})
    lost = next((name for name in mine if name not in theirs), None) if mine else None
    return None if lost is None else Difference(f".{lost}", "is not a field, and does not come back")


def _difference_of_items(value: Any, carried: Any) -> Difference | None:
    if len(value) != len(carried):
        return Difference("", f"{type(value).__name__} of {len(value)} comes back with {len(carried)}")
    for index, (mine, theirs) in enumerate(zip(value, carried, strict=True)):
        if not _is_same(mine, theirs) and (found := difference(mine, theirs)) is not None:
            return Difference(f"[{index}]{found.place}", found.what)
    return None


def _difference_of_tables(mine: dict[Any, Any], carried: Any) -> Difference | None:
    keys = {key: key for key in carried}
    for key in mine:
        if key not in keys or difference(key, keys[key]) is not None:
            return Difference("", f"key {_shown(key)} does not come back")
    if len(keys) != len(mine):
        return Difference("", "comes back with more keys")
    for key, item in mine.items():
        if not _is_same(item, carried[key]) and (found := difference(item, carried[key])) is not None:
            return Difference(f"[{_shown(key)}]{found.place}", found.what)
    return None


def _difference_of_sets(mine: set[Any] | frozenset[Any], carried: Any) -> Difference | None:
    members = {member: member for member in carried}
    for member in mine:
        if member not in members or difference(member, members[member]) is not None:
            return Difference("", f"a member of type {type(member).__name__} does not come back as it is")
    return None if len(members) == len(mine) else Difference("", "comes back with more members")


def unwritable(value: object, encode: Callable[[Any], bytes]) -> str:
    """The place that `encode` cannot write, and the reason: the innermost such part."""
    place, part = "value", value
    error: Exception | None = None
    while True:
        for step, inner in _parts(part):
            try:
                encode(inner)
            except Exception as inner_error:  # noqa: BLE001 - every objection of the encoder is wanted
                place, part, error = place + step, inner, inner_error
                break
        else:
            break
    if isinstance(part, str):
        return f"{place}: text with a lone surrogate, which JSON cannot carry"
    if isinstance(part, int):
        return f"{place}: a whole number of too many digits"
    return f"{place}: {error or f'{type(part).__name__} cannot be written as JSON'}"


def _parts(value: object) -> Iterator[tuple[str, object]]:
    names = _names(value)
    if names is not None:
        yield from ((f".{name}", getattr(value, name, None)) for name in names)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield f": key {_shown(key)}", key
            yield f"[{_shown(key)}]", item
    elif isinstance(value, list | tuple):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    elif isinstance(value, set | frozenset):
        yield from ((f": member {_shown(member)}", member) for member in value)


def _names(value: object) -> tuple[str, ...] | None:
    """The fields of a struct or dataclass."""
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    if dataclasses.is_dataclass(value):
        return tuple(field.name for field in dataclasses.fields(value))
    return None


def _shown(value: object) -> str:
    """A key, shortened for a message."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        return "a number too long to show"
    return text if len(text) <= 60 else text[:57] + "..."
