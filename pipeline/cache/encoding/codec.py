"""Values to JSON and back. A value comes back equal, to the leaves and in type; one that would not is refused.

A codec is made for a type. `Any` takes the JSON values, each of Python's own type, and nothing that only looks like one: null,
booleans, numbers, text, lists, objects with text keys. Frozen msgspec structs, and the other types that msgspec writes and reads
(tuples, sets, dates, enumerations), come back as themselves, checked.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar, cast, get_origin

import msgspec
from msgspec import inspect as msgspec_inspect

from pipeline.cache.decorators.exact import difference, explain, is_deep, is_plain, unwritable
from pipeline.cache.encoding.decoders import decoder_for
from pipeline.cache.entry import Entry, decode_entry, encode_entry
from pipeline.cache.errors import UncacheableValueError

T = TypeVar("T")

_AT: Final = re.compile(r" - at `\$(.*)`$")
_SCALARS: Final = (str, int, float, bool, type(None))
_SCALAR_TYPES: Final = (
    msgspec_inspect.NoneType,
    msgspec_inspect.BoolType,
    msgspec_inspect.IntType,
    msgspec_inspect.FloatType,
    msgspec_inspect.StrType,
    msgspec_inspect.LiteralType,
)


LARGE_BYTES: Final = 4_096
"""Entries of that size are worth `Codec.open`; smaller ones are opened in two passes, in less."""
_PLAIN_HEAD: Final = re.compile(rb'\["[^"]*","[^"]*",[0-9]+,\[(?:"[^"]*"(?:,"[^"]*")*)?\],[0-9]+,[0-9]+,"')
"""The beginning of an entry whose value is a text, where no text has an escape."""


class _Head(msgspec.Struct, array_like=True):
    """An entry before its value."""

    key: str
    epoch: str
    seq: int
    deps: tuple[str, ...]
    created_ms: int
    ttl_ms: int


class _Whole(msgspec.Struct, Generic[T], array_like=True):
    """An entry with its value decoded."""

    key: str
    epoch: str
    seq: int
    deps: tuple[str, ...]
    created_ms: int
    ttl_ms: int
    value: T
    grace_ms: int = 0


class Codec(Generic[T]):
    """Encodes and decodes values of one type. Stateless after construction; shared by threads."""

    def __init__(self, value_type: type[T] | Any) -> None:
        self.type = value_type
        self._any = value_type is Any
        self._encode = msgspec.json.Encoder().encode
        self._decode = decoder_for(value_type).decode
        self._open = decoder_for(_Whole[value_type]).decode  # type: ignore[valid-type]  # made of a type at hand
        self._takes_texts = value_type is Any or value_type is str
        self.frozen = not self._any and _is_frozen(msgspec_inspect.type_info(value_type), set())
        """Whether every value of the type is immutable to its leaves, so that one object may serve all callers."""

    def decode(self, payload: bytes | msgspec.Raw) -> T:
        """The value of a payload. Raises msgspec.DecodeError (msgspec.ValidationError is one) when it is not of the type."""
        try:
            value: T = self._decode(payload)
        except (UnicodeDecodeError, RecursionError) as error:
            raise msgspec.DecodeError(f"not a payload: {type(error).__name__}") from None
        return value

    def open(self, raw: bytes) -> tuple[Entry, T]:
        """The entry of these bytes, and its value, in one pass over them. Raises msgspec.DecodeError as `decode`.

        The payload of a text is not in the entry: see `beside`.
        """
        try:
            if self._takes_texts and (text := _plain_text(raw)) is not None:
                entry, found = text
                return entry, cast("T", found)
            whole = self._open(raw)
        except (UnicodeDecodeError, RecursionError) as error:
            raise msgspec.DecodeError(f"not an entry: {type(error).__name__}") from None
        head = encode_entry(_Head(whole.key, whole.epoch, whole.seq, whole.deps, whole.created_ms, whole.ttl_ms))[:-1] + b","
        tail = b",%d]" % whole.grace_ms
        if not raw.startswith(head) or not raw.endswith(tail):  # written by another program: in two passes
            entry = decode_entry(raw)
            return entry, self.decode(entry.value)
        entry = Entry(
            whole.key, whole.epoch, whole.seq, whole.deps, whole.created_ms, whole.ttl_ms,
            msgspec.Raw(raw[len(head) : -len(tail)]), whole.grace_ms,
        )  # fmt: skip
        return entry, whole.value

    def encode(self, value: T) -> tuple[bytes, T]:
        """The payload, and the value as it will come back from it: equal, to the leaves and in type.

        Raises UncacheableValueError, naming the place, for a part that JSON cannot carry or would carry as something else.
        """
        try:
            payload = self._encode(value)
            carried: T = self._decode(payload)
            self._check(value, carried)
        except RecursionError:
            if not is_deep(value):
                raise  # the caller's own depth is to blame
            raise UncacheableValueError("value: is nested too deeply, or contains itself") from None
        except UncacheableValueError:
            raise
        except msgspec.DecodeError as error:
            if self._any:
                explain(value, "value")
            raise UncacheableValueError(_placed(str(error))) from error
        except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
            if self._any:
                explain(value, "value")
            raise UncacheableValueError(unwritable(value, self._encode)) from error
        return payload, carried

    def _check(self, value: T, carried: T) -> None:
        if self._any:
            # One comparison in C, and a look at every type: an enumeration's member, too, is equal to a number.
            if carried != value or not is_plain(value):
                explain(value, "value")
                raise UncacheableValueError("value: does not come back equal")
        elif (found := difference(value, carried)) is not None:
            raise UncacheableValueError(f"value{found.place}: {found.what}")

    def shareable(self, value: T) -> bool:
        """Whether this value, as returned by `encode` or `decode`, may be handed to several callers."""
        return self.frozen or isinstance(value, _SCALARS)

    def beside(self, value: T, payload: bytes | msgspec.Raw) -> bytes:
        """The bytes to keep beside a decoded value so that it can be read as another type; none for a text, which loses nothing.
        A payload from elsewhere may have fields that the type does not know, or lack those that have defaults."""
        return b"" if type(value) is str else bytes(payload)


@lru_cache(maxsize=256)
def codec_for(value_type: Any) -> Codec[Any]:
    """The codec of a type, made once."""
    return Codec(value_type)


ANY: Final[Codec[Any]] = codec_for(Any)


def _placed(message: str) -> str:
    """msgspec's message about a value that is not of the type, with the place as this module writes it."""
    found = _AT.search(message)
    return f"value{found[1]}: {message[: found.start()]}" if found else f"value: {message}"


def _is_frozen(info: msgspec_inspect.Type, seen: set[type]) -> bool:
    if isinstance(info, _SCALAR_TYPES):
        return True
    if isinstance(info, msgspec_inspect.StructType):
        if info.cls in seen:
            return True
        seen.add(info.cls)
        struct = get_origin(info.cls) or info.cls  # a generic struct's aliases differ by parameter
        return struct.__struct_config__.frozen and all(_is_frozen(field.type, seen) for field in info.fields)
    if isinstance(info, msgspec_inspect.VarTupleType | msgspec_inspect.FrozenSetType):
        return _is_frozen(info.item_type, seen)
    if isinstance(info, msgspec_inspect.TupleType):
        return all(_is_frozen(item, seen) for item in info.item_types)
    if isinstance(info, msgspec_inspect.UnionType):
        return all(_is_frozen(item, seen) for item in info.types)
    return False


def _plain_text(raw: bytes) -> tuple[Entry, str] | None:
    """The entry, and its value, if that is a text and no text in the entry has an escape: then each quotation mark is an end of
    one, and the value ends at the next. Finding them costs a tenth of what a JSON decoder takes.
    (A raw control character, which JSON does not allow and no cache writes, is taken as it stands.)"""
    head = _PLAIN_HEAD.match(raw) if b"\\" not in raw else None
    if head is None:
        return None
    begins = head.end()
    ends = raw.find(b'"', begins)
    if ends < 0:
        return None
    return decode_entry(raw[: begins - 1] + b'""' + raw[ends + 1 :]), raw[begins:ends].decode()
