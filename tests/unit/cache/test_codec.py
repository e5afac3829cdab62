"""A value that JSON can carry comes back equal; any other is refused with its place; a shared value cannot be changed."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cache import MISS, UncacheableValueError
from pipeline.cache.encoding.codec import ANY, Codec, codec_for
from pipeline.cache.entry import Entry, decode_entry, encode_entry

T = TypeVar("T")


class Tone(enum.Enum):
    CALM = "calm"


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


@dataclasses.dataclass
class Plain:
    a: int = 1


class Frozen(msgspec.Struct, frozen=True):
    a: int
    b: tuple[str, ...] = ()


class Thawed(msgspec.Struct):
    a: int


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Number(float):
    pass


class Rows(list[int]):
    pass


class Table(dict[str, int]):
    pass


class Place(NamedTuple):
    x: int
    y: float


class Row(TypedDict):
    a: int


class Measured(msgspec.Struct, frozen=True):
    level: int
    share: float | None = None
    words: tuple[str, ...] = ()
    inner: Any = None


class Larger(Measured, frozen=True):
    more: int = 0


def with_attribute() -> Plain:
    plain = Plain()
    plain.__dict__["b"] = 2
    return plain


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=25,
)


@given(value=JSON)
def test_a_json_value_comes_back_equal_to_the_type_of_every_leaf(value: Any) -> None:
    """By way of the payload, and by way of the value that `encode` hands out beside it."""
    payload, carried = ANY.encode(value)
    assert repr(carried) == repr(value)
    assert repr(ANY.decode(payload)) == repr(value)


@given(value=JSON)
def test_an_entry_carries_its_payload_to_the_byte(value: Any) -> None:
    """Whatever JSON stands in it, and whatever else is in the envelope."""
    payload, _ = ANY.encode(value)
    entry = decode_entry(encode_entry(Entry("k", "e", 3, ("a:b", '"'), 1, 2, msgspec.Raw(payload))))
    assert bytes(entry.value) == payload
    assert (entry.key, entry.epoch, entry.seq, entry.deps) == ("k", "e", 3, ("a:b", '"'))
    assert (entry.created_ms, entry.ttl_ms) == (1, 2)


def test_a_value_whose_caller_is_deep_in_a_recursion_is_not_blamed_for_it() -> None:
    """The RecursionError is the caller's own: the value is as flat as can be."""

    def descend() -> None:
        try:
            descend()
        finally:
            ANY.encode([1])

    with pytest.raises(RecursionError):
        descend()


def nested(bad: object) -> dict[str, Any]:
    return {"a": [1, bad]}


REFUSED: list[Any] = [
    {1, 2},
    frozenset({1}),
    b"bytes",
    bytearray(b"bytes"),
    memoryview(b"bytes"),
    datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    datetime.date(2024, 1, 1),
    datetime.timedelta(seconds=1),
    decimal.Decimal("1.5"),
    uuid.UUID(int=1),
    Tone.CALM,
    Plain(),
    Frozen(1),
    object(),
    deque([1]),
    range(3),
    iter([1]),
    1j,
    len,
    int,
    MISS,
    msgspec.UNSET,
    msgspec.Raw(b"1"),
    float("nan"),
    float("inf"),
    float("-inf"),
    "\ud800",
    Text("subclass"),
    Whole(3),
    Number(1.5),
    Rows([1]),
    Table(a=1),
    Level.LOW,
    Word.YES,
    OrderedDict(a=1),
    Counter("a"),
    defaultdict(int, a=1),
    Place(1, 2),
    (),
    (1,),
    10**5000,
]
"""Values that are not JSON, and values that are only equal to it: a reader would have something else."""


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: f"{type(value).__name__}")
@pytest.mark.parametrize(
    ("wrap", "place"),
    [
        (lambda bad: bad, r"value"),
        (nested, r"value\['a'\]\[1\]"),
        (lambda bad: ((bad,),), r"value\[0\]\[0\]"),
        (lambda bad: {"x": {"y y": bad}}, r"value\['x'\]\['y y'\]"),
    ],
    ids=["alone", "nested", "in tuples", "in tables"],
)
def test_what_json_does_not_have_is_refused_by_its_place(wrap: Callable[[Any], Any], place: str, value: Any) -> None:
    """Nothing is turned into text, null or a list in silence."""
    with pytest.raises(UncacheableValueError, match=rf"^{place}: "):
        ANY.encode(wrap(value))


@pytest.mark.parametrize("key", [1, 1.5, True, None, (1,), b"k", Tone.CALM, Word.YES, Text("k")], ids=repr)
def test_a_key_that_is_no_text_is_refused_by_its_place(key: Any) -> None:
    """JSON's keys are text; another would come back as text."""
    with pytest.raises(UncacheableValueError, match=r"^value\['a'\]\[0\]: key "):
        ANY.encode({"a": [{key: 1}]})


def test_a_key_with_a_lone_surrogate_is_refused_by_its_place() -> None:
    """As any other text."""
    with pytest.raises(UncacheableValueError, match=r"^value\['a'\].*surrogate"):
        ANY.encode({"a": {"\ud800": 1}})


def test_a_value_that_contains_itself_is_refused() -> None:
    """Lists and tables, directly and by a detour."""
    knot: list[Any] = []
    knot.append({"a": knot})
    table: dict[str, Any] = {}
    table["t"] = [table]
    for value in (knot, table):
        with pytest.raises(UncacheableValueError, match=r"^value: .*contains itself"):
            ANY.encode(value)


def test_a_value_that_is_nested_too_deeply_is_refused() -> None:
    """Rather than kept and then never read."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(UncacheableValueError, match=r"^value: .*deep"):
        ANY.encode(deep)


def test_a_struct_of_another_type_is_refused_by_what_is_wrong() -> None:
    """With `type=` named, the error does not ask to name it."""
    with pytest.raises(UncacheableValueError, match="value") as caught:
        codec_for(Frozen).encode(Thawed("not a number"))  # type: ignore[arg-type]  # that is the point
    assert "name it with `type=`" not in str(caught.value)


UTC, SEOUL = datetime.UTC, ZoneInfo("Asia/Seoul")

EXACT: list[tuple[Any, Any]] = [
    (float, 1.5),
    (float, -0.0),
    (float, float(2**60)),
    (int, 2**60 + 1),
    (Level, Level.LOW),
    (Word, Word.YES),
    (Tone, Tone.CALM),
    (Place, Place(1, 2.0)),
    (Row, {"a": 1}),
    (Plain, Plain(2)),
    (Thawed, Thawed(1)),
    (Measured, Measured(1, 0.5, ("a", "b"), {"c": [1]})),
    (set[int], {1, 2}),
    (frozenset[str], frozenset({"a"})),
    (tuple[int, ...], (1, 2)),
    (dict[int, str], {1: "a"}),
    (bytes, b"ab"),
    (datetime.datetime, datetime.datetime(2024, 1, 1, tzinfo=UTC)),
    (datetime.datetime, datetime.datetime(2024, 1, 1)),  # noqa: DTZ001 - one without a zone
    (datetime.date, datetime.date(2024, 1, 1)),
    (datetime.timedelta, datetime.timedelta(days=1, microseconds=1)),
    (decimal.Decimal, decimal.Decimal("1.50")),
    (uuid.UUID, uuid.UUID(int=1)),
    (list[Frozen], [Frozen(1), Frozen(2, ("x",))]),
]


@pytest.mark.parametrize(("value_type", "value"), EXACT, ids=repr)
def test_a_value_of_its_type_comes_back_equal_to_the_type_of_every_leaf(value_type: Any, value: Any) -> None:
    """Whatever msgspec can write and read again by its type."""
    payload, carried = codec_for(value_type).encode(value)
    for back in (carried, codec_for(value_type).decode(payload)):
        assert (type(back), repr(back)) == (type(value), repr(value))


INEXACT: list[tuple[Any, Any, str]] = [
    (float, 2**60 + 1, "value"),
    (float, 3, "value"),
    (float, float("nan"), "value"),
    (float | None, float("nan"), "value"),
    (float | None, float("inf"), "value"),
    (int, Level.LOW, "value"),
    (int, Whole(3), "value"),
    (int, 10**5000, "value"),
    (bool, 1, "value"),
    (int, True, "value"),
    (str, Word.YES, "value"),
    (str, Text("a"), "value"),
    (Level, 1, "value"),
    (Word, "yes", "value"),
    (Measured, {"level": 1, "lost": 2}, "value"),
    (Measured, Larger(1, more=7), "value"),
    (Measured, Measured(Level.LOW), "value.level"),
    (Measured, Measured(True), "value.level"),
    (Measured, Measured(1, float("nan")), "value.share"),
    (Measured, Measured(1, 2), "value.share"),
    (Measured, Measured(1, None, ["a"]), "value.words"),  # type: ignore[arg-type]  # that is the point
    (Measured, Measured(1, None, ("a", Text("b"))), r"value.words\[1\]"),
    (Measured, Measured(1, None, ("a", "\ud800")), r"value.words\[1\]"),
    (Measured, Measured(1, inner={"a": [1, (2,)]}), r"value.inner\['a'\]\[1\]"),
    (Measured, Measured(1, inner=OrderedDict(a=1)), "value.inner"),
    (Measured, Measured(1, inner=float("nan")), "value.inner"),
    (Measured, Measured("text"), "value.level"),  # type: ignore[arg-type]  # that is the point
    (Measured, Measured(10**5000), "value.level"),
    (list[Measured], [Measured(1), Measured(1, 3)], r"value\[1\].share"),
    (dict[str, float], {"a": 1.0, "b": 1}, r"value\['b'\]"),
    (dict[str, int], OrderedDict(a=1), "value"),
    (dict[str, int], {Word.YES: 1}, "value"),
    (dict[int, int], {True: 1}, "value"),
    (Row, {"a": 1, "b": 2}, "value"),
    (Plain, with_attribute(), "value.b"),
    (set[int], {True}, r"value\[0\]"),
    (set[float], {1}, "value"),
    (set[int], frozenset({1}), "value"),
    (tuple[int, ...], [1], "value"),
    (list[int], (1,), "value"),
    (Place, (1, 2.0), "value"),
    (Place, Place(1, 2), r"value\[1\]"),
    (tuple[int, int], Place(1, 2), "value"),
    (datetime.datetime, datetime.datetime(2024, 1, 1, tzinfo=SEOUL), "value"),
    (datetime.datetime, datetime.date(2024, 1, 1), "value"),
    (bytes, bytearray(b"a"), "value"),
    (object, (1,), "value"),
]


@pytest.mark.parametrize(("value_type", "value", "place"), INEXACT, ids=lambda value: type(value).__name__)
def test_a_value_that_its_type_would_bring_back_as_another_is_refused_by_its_place(
    value_type: Any, value: Any, place: str
) -> None:
    """Digits, fields, members of enumerations, zones: nothing is lost in silence."""
    with pytest.raises(UncacheableValueError, match=rf"^{place}: "):
        codec_for(value_type).encode(value)


@pytest.mark.parametrize("raw", [b"", b"{", b"nul", b"\xff", b'"\xff"', b"[1,]", b"NaN", b"{'a': 1}", b"1 2", b"[" * 100_000])
@pytest.mark.parametrize("value_type", [Any, Frozen], ids=["any", "struct"])
def test_bytes_that_are_no_payload_raise_the_one_error_that_callers_catch(raw: bytes, value_type: Any) -> None:
    """A reader makes a miss of it: it must know what to catch."""
    with pytest.raises(msgspec.DecodeError):
        codec_for(value_type).decode(raw)


# -- what may be handed out without a copy


class Box(msgspec.Struct, Generic[T], frozen=True):
    item: T


class Ring(msgspec.Struct, frozen=True):
    next: Ring | None = None


class LooseRing(msgspec.Struct, frozen=True):
    items: list[int]
    next: LooseRing | None = None


class Deep(msgspec.Struct, frozen=True):
    boxes: tuple[Frozen, ...]
    pair: tuple[int, str]
    choice: Literal["a", "b"] | None
    amount: Annotated[int, msgspec.Meta(gt=0)]


class TwoBoxes(msgspec.Struct, frozen=True):
    fixed: Box[int]
    loose: Box[list[int]]


class HoldsThawed(msgspec.Struct, frozen=True):
    inner: tuple[Thawed, ...]


class HoldsTable(msgspec.Struct, frozen=True):
    inner: dict[str, int]


class HoldsAny(msgspec.Struct, frozen=True):
    inner: Any


@pytest.mark.parametrize(
    ("value_type", "frozen"),
    [
        (int, True),
        (str, True),
        (bool | None, True),
        (Frozen, True),
        (Deep, True),
        (Ring, True),
        (tuple[Frozen, ...], True),
        (tuple[int, Frozen], True),
        (frozenset[str], True),
        (Box[int], True),
        (Thawed, False),
        (list[int], False),
        (tuple[list[int], ...], False),
        (dict[str, int], False),
        (set[int], False),
        (Any, False),
        (HoldsThawed, False),
        (HoldsTable, False),
        (HoldsAny, False),
        (LooseRing, False),
        (Box[list[int]], False),
        (TwoBoxes, False),
        (int | list[int], False),
        (Frozen | None, True),
        (tuple[int, list[int]], False),
    ],
    ids=str,
)
def test_only_what_is_immutable_to_its_leaves_is_shared(value_type: Any, frozen: bool) -> None:
    """A value that one caller can change is another one for each caller."""
    assert Codec(value_type).frozen == frozen


def test_scalars_of_any_type_are_shared_and_nothing_else() -> None:
    """A JSON value that can be changed is decoded for each caller."""
    for scalar in (None, True, 1, 1.5, "text"):
        assert ANY.shareable(scalar)
    for changeable in ([], {}, [1], {"a": 1}):
        assert not ANY.shareable(changeable)


def test_a_codec_is_made_once_for_a_type() -> None:
    """Slots compare codecs by identity."""
    assert codec_for(Frozen) is codec_for(Frozen)
    assert codec_for(Any) is ANY
