"""The type of a function's values, read from its return annotation; and whether the cache can carry it."""

from __future__ import annotations

import functools
import operator
import types
import typing
from collections.abc import Mapping
from typing import Any, Final

from msgspec import inspect as msgspec_inspect

from pipeline.cache.encoding.decoders import decoder_for
from pipeline.cache.errors import UncacheableFunctionError

UNSAID: Final[Any] = object()
"""In place of `type=`: the type is the one that the function is annotated with."""
LATER: Final[Any] = object()
"""The annotation names what is not defined yet."""

_NOTHING: Final = "return"
_KEYS: Final = (
    msgspec_inspect.AnyType,
    msgspec_inspect.StrType,
    msgspec_inspect.IntType,
    msgspec_inspect.FloatType,
    msgspec_inspect.EnumType,
    msgspec_inspect.LiteralType,
    msgspec_inspect.DateType,
    msgspec_inspect.DateTimeType,
    msgspec_inspect.TimeType,
    msgspec_inspect.TimeDeltaType,
    msgspec_inspect.UUIDType,
    msgspec_inspect.DecimalType,
    msgspec_inspect.BytesType,
)


def value_type_of(function: object, name: str, names: Mapping[str, Any]) -> Any:
    """The type that the function is annotated to return; Any without an annotation, LATER where it names what is not defined yet.
    `names`: those known where the function is decorated, beside its module's.

    Raises UncacheableFunctionError for a type that the cache cannot carry, with what to write instead.
    """
    plain = _function_within(function)
    try:
        annotation = getattr(plain, "__annotations__", {}).get(_NOTHING, Any)
    except NameError:  # where Python evaluates them only when they are asked for
        return LATER
    known = dict(names) | _closed_over(plain)
    # Of one annotation alone: the parameters' may name what is there for type checkers only.
    stand_in = types.SimpleNamespace(__annotations__={_NOTHING: annotation})
    try:
        hints = typing.get_type_hints(stand_in, getattr(plain, "__globals__", {}), known, include_extras=True)
    except NameError:
        return LATER
    except (TypeError, SyntaxError, AttributeError) as error:
        raise UncacheableFunctionError(f"{name}: its return annotation {annotation!r} is not a type: {error}") from None
    return carried_type(hints[_NOTHING], name)


def carried_type(annotated: Any, name: str) -> Any:
    """The type for a codec. Raises UncacheableFunctionError for one that the cache cannot carry; LATER as above."""
    wanted = _as_meant(annotated)
    if wanted is Any:
        return Any
    try:
        decoder_for(wanted)
        info = msgspec_inspect.type_info(wanted)
    except NameError:
        return LATER
    except (TypeError, ValueError) as error:
        raise UncacheableFunctionError(_refusal(name, annotated, str(error).partition(" - type `")[0])) from None
    if (part := _foreign(info, set())) is not None:
        raise UncacheableFunctionError(_refusal(name, annotated, part))
    return wanted


def _refusal(name: str, annotated: Any, why: str) -> str:
    return (
        f"{name}: its return annotation {_shown(annotated)} cannot be carried by the cache: {why}. Return a dataclass, a struct "
        "or JSON values, or name with type= what the values are (type=Any: JSON)"
    )


def _function_within(function: object) -> object:
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, types.MethodType):
        return function.__func__
    if callable(function) and not isinstance(function, types.FunctionType | types.BuiltinFunctionType | type):
        return getattr(type(function), "__call__", None)  # noqa: B004 - that of an object's class is what is called
    return None if isinstance(function, type) else function


def _closed_over(function: object) -> dict[str, Any]:
    if not isinstance(function, types.FunctionType):
        return {}
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue
    return found


def _as_meant(annotated: Any) -> Any:
    """The type as Python's typing means it: `object` is any value, where a codec would look for a class of its own; and a whole
    number is a float, too, and comes back as the whole number that it is. Fields of classes stay as they are written."""
    if annotated is object:
        return Any
    if annotated is float:
        return int | float
    origin, parts = typing.get_origin(annotated), typing.get_args(annotated)
    if origin in (typing.Literal, typing.Annotated) or not any(_is_meant_otherwise(part) for part in parts):
        return annotated
    inner = tuple(map(_as_meant, parts))
    if origin in (types.UnionType, typing.Union):
        return Any if Any in inner else functools.reduce(operator.or_, inner)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        inner = (parts[0], *inner[1:])  # a key is a text: whether it was whole cannot be seen
    return origin[inner] if origin is not None else annotated


def _is_meant_otherwise(annotated: Any) -> bool:
    return annotated in (object, float) or any(map(_is_meant_otherwise, typing.get_args(annotated)))


def _foreign(info: msgspec_inspect.Type, seen: set[Any]) -> str | None:
    """What in the type the cache cannot carry; None if it can carry all."""
    if isinstance(info, msgspec_inspect.CustomType):
        return f"{_shown(info.cls)} is no value that JSON can be made of, and again be made from"
    if isinstance(info, msgspec_inspect.RawType | msgspec_inspect.ExtType | msgspec_inspect.MemoryViewType):
        return f"{type(info).__name__.removesuffix('Type')} is no value of its own"
    if isinstance(info, msgspec_inspect.DictType) and not _may_be_key(info.key_type):
        return "keys of that type cannot be written as text"
    if (of := getattr(info, "cls", None)) is not None:
        if of in seen:
            return None
        seen.add(of)
    for part in _parts(info):
        if (found := _foreign(part, seen)) is not None:
            return found
    return None


def _may_be_key(info: msgspec_inspect.Type) -> bool:
    if isinstance(info, msgspec_inspect.UnionType):
        return all(_may_be_key(part) for part in info.types)
    return isinstance(info, _KEYS)


def _parts(info: msgspec_inspect.Type) -> list[msgspec_inspect.Type]:
    parts = [field.type for field in getattr(info, "fields", ())]
    for name in ("item_type", "key_type", "value_type"):
        if isinstance(part := getattr(info, name, None), msgspec_inspect.Type):
            parts = [*parts, part]
    return [*parts, *getattr(info, "item_types", ()), *getattr(info, "types", ())]


def _shown(annotated: Any) -> str:
    return annotated.__qualname__ if type(annotated) is type else str(annotated)
