"""Values to JSON and back. What JSON carried is the value, in both tiers alike.

A codec is made for a type. `Any` takes what JSON has (null, booleans, numbers, text, lists, objects with text keys; a tuple
comes back as a list). A frozen msgspec struct comes back as that struct, checked.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar, get_origin

import msgspec
from msgspec import inspect as msgspec_inspect

from pipeline.cache.errors import UncacheableValueError

T = TypeVar("T")

_SCALARS: Final = (str, int, float, bool, type(None))
_SCALAR_TYPES: Final = (
    msgspec_inspect.NoneType,
    msgspec_inspect.BoolType,
    msgspec_inspect.IntType,
    msgspec_inspect.FloatType,
    msgspec_inspect.StrType,
    msgspec_inspect.LiteralType,
)


class Codec(Generic[T]):
    """Encodes and decodes values of one type. Stateless after construction; shared by threads."""

    def __init__(self, value_type: type[T] | Any) -> None:
        self.type = value_type
        self._any = value_type is Any
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(value_type).decode
        self.frozen = not self._any and _is_frozen(msgspec_inspect.type_info(value_type), set())
        """Whether every value of the type is immutable to its leaves, and so may be handed out without a copy."""

    def decode(self, payload: bytes | msgspec.Raw) -> T:
        """The value of a payload. Raises msgspec.DecodeError (msgspec.ValidationError is one) when it is not of the type."""
        try:
            value: T = self._decode(payload)
        except (UnicodeDecodeError, RecursionError) as error:
            raise msgspec.DecodeError(f"not a payload: {type(error).__name__}") from None
        return value

    def encode(self, value: T) -> tuple[bytes, T]:
        """The payload, and the value as it will come back from it.

        Raises UncacheableValueError naming the place of what JSON cannot carry.
        """
        try:
            payload = self._encode(value)
            carried: T = self._decode(payload)
            unchanged = carried == value
        except RecursionError:
            raise UncacheableValueError("value: is nested too deeply, or contains itself") from None
        except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
            if self._any or not isinstance(value, msgspec.Struct):
                _explain(value, "value")
            raise UncacheableValueError(f"value: {error}") from error
        if self._any and not unchanged:
            # Equal is the common case and costs one comparison in C. Unequal: tuples, which JSON carries as lists, or
            # something that msgspec would turn into text or null in silence.
            _explain(value, "value")
        return payload, carried

    def shareable(self, value: T) -> bool:
        """Whether this value, as returned by `encode` or `decode`, may be handed to several callers."""
        return self.frozen or isinstance(value, _SCALARS)


@lru_cache(maxsize=256)
def codec_for(value_type: Any) -> Codec[Any]:
    """The codec of a type, made once."""
    return Codec(value_type)


ANY: Final[Codec[Any]] = codec_for(Any)


def _explain(value: object, place: str) -> None:
    """Raise for the first part of `value` that JSON does not have. Returns when there is none."""
    # Exact types: an enumeration's member or a text of a class of its own would come back as something else.
    if value is None or type(value) in (bool, int):
        return
    if type(value) is str:
        _explain_text(value, place)
    elif type(value) is float:
        if not math.isfinite(value):
            raise UncacheableValueError(f"{place}: {value}, which JSON does not have")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _explain(item, f"{place}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise UncacheableValueError(f"{place}: key {key!r} is {type(key).__name__}; JSON's keys are text")
            _explain_text(key, f"{place}: key {key!r}")
            _explain(item, f"{place}[{key!r}]")
    elif isinstance(value, msgspec.Struct):
        raise UncacheableValueError(f"{place}: {type(value).__name__} is a struct; name it with `type=`")
    else:
        raise UncacheableValueError(f"{place}: {type(value).__name__} is not a JSON value")


def _explain_text(text: str, place: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UncacheableValueError(f"{place}: text with a lone surrogate, which JSON cannot carry") from None


def _is_frozen(info: msgspec_inspect.Type, seen: set[type]) -> bool:
    if isinstance(info, _SCALAR_TYPES):
        return True
    if isinstance(info, msgspec_inspect.StructType):
        if info.cls in seen:
            return True
        seen.add(info.cls)
        struct = get_origin(info.cls) or info.cls  # of a generic struct, the alias is what differs by parameter
        return struct.__struct_config__.frozen and all(_is_frozen(field.type, seen) for field in info.fields)
    if isinstance(info, msgspec_inspect.VarTupleType | msgspec_inspect.FrozenSetType):
        return _is_frozen(info.item_type, seen)
    if isinstance(info, msgspec_inspect.TupleType):
        return all(_is_frozen(item, seen) for item in info.item_types)
    if isinstance(info, msgspec_inspect.UnionType):
        return all(_is_frozen(item, seen) for item in info.types)
    return False
