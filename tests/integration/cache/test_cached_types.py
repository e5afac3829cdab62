"""`cached`: values of the annotated type from either tier, arguments of the same types; plain and coroutine functions."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Generic, Literal, NamedTuple, TypedDict, TypeVar
from uuid import UUID

import msgspec
import pytest

from pipeline.cache import MISS, RedisCache, TwoTierCache, UncacheableFunctionError, UncacheableValueError, cached

T = TypeVar("T")


@dataclasses.dataclass
class Quote:
    symbol: str
    price: Decimal
    at: datetime
    tags: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(frozen=True)
class Money:
    amount: Decimal
    currency: str = "EUR"


class Point(msgspec.Struct, frozen=True):
    x: int
    y: float = 0.0


class Box(msgspec.Struct, Generic[T]):
    content: T


class Row(TypedDict):
    id: int
    at: date


class Pair(NamedTuple):
    left: int
    right: str


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Color(enum.Enum):
    RED = "red"


class Plain:
    """No type that JSON can be made of."""


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
VALUES: dict[str, tuple[Any, Any]] = {
    "dataclass": (Quote, Quote("ACME", Decimal("1.20"), NOON, {"a", "b"})),
    "frozen dataclass": (Money, Money(Decimal("0.10"))),
    "struct": (Point, Point(1, 2.5)),
    "generic struct": (Box[date], Box(date(2026, 1, 2))),
    "typed dict": (Row, {"id": 7, "at": date(2026, 1, 2)}),
    "named tuple": (Pair, Pair(1, "one")),
    "datetime": (datetime, NOON),
    "naive datetime": (datetime, datetime(2026, 3, 1, 12, 0, 0, 5)),  # noqa: DTZ001 - without a zone is what it is
    "zoned datetime": (datetime, datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=9)))),
    "date": (date, date(2026, 3, 1)),
    "time": (time, time(12, 30)),
    "timedelta": (timedelta, timedelta(days=1, microseconds=1)),
    "Decimal": (Decimal, Decimal("1.10")),
    "bytes": (bytes, b"\x00\xff"),
    "UUID": (UUID, UUID(int=7)),
    "int enum": (Level, Level.HIGH),
    "enum": (Color, Color.RED),
    "literal": (Literal["a", "b"], "b"),
    "set": (set[int], {1, 2}),
    "frozenset": (frozenset[str], frozenset({"a"})),
    "tuple": (tuple[int, ...], (1, 2)),
    "mixed tuple": (tuple[int, str, date], (1, "a", date(2026, 1, 1))),
    "bare tuple": (tuple, (1, "a")),
    "dict of int": (dict[int, str], {1: "one"}),
    "dict of dates": (dict[date, Decimal], {date(2026, 1, 1): Decimal("1.0")}),
    "dict of enums": (dict[Color, int], {Color.RED: 1}),
    "mapping": (Mapping[str, Money], {"a": Money(Decimal(1))}),
    "sequence": (Sequence[Point], [Point(1)]),
    "list": (list[Quote], [Quote("A", Decimal(1), NOON)]),
    "optional": (Point | None, Point(3)),
    "optional none": (Point | None, None),
    "none": (None, None),
    "union": (int | str | list[int], [1]),
    "object": (object, {"a": [1]}),
    "dict of object": (dict[str, object], {"a": [1, None]}),
    "any": (Any, [1, {"a": None}]),
    "float": (float, 1.5),
    "json": (list[dict[str, float]], [{"a": 1.5}]),
}


@pytest.fixture
def cache(redis_url: str, namespace: str) -> Iterator[TwoTierCache]:
    cache = TwoTierCache(None, RedisCache(url=redis_url, namespace=namespace, timeout_s=5.0), ttl_jitter=0.0)
    yield cache
    cache.clear()
    cache.close()


@pytest.fixture(params=["plain", "coroutine"])
def decorated(request: pytest.FixtureRequest, cache: TwoTierCache) -> Callable[..., Callable[..., Any]]:
    """Decorates a plain function, as it is or as a coroutine function; and calls it, in an event loop of its own."""

    def decorate(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        options = {"key_prefix": "function", "cache": cache, **options}
        if request.param == "plain":
            return cached(**options)(function)

        async def waiting(*args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(0)
            return function(*args, **kwargs)

        waiting.__annotations__ = dict(getattr(function, "__annotations__", {}))
        waiting.__qualname__ = function.__qualname__
        waiting.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # any function may have one
        under = cached(**options)(waiting)

        def call(*args: Any, **kwargs: Any) -> Any:
            return asyncio.run(under(*args, **kwargs))

        call.cache_key = under.cache_key  # type: ignore[attr-defined]  # as the decorated function has it
        return call

    return decorate


def returning(value: Any, annotation: Any) -> Callable[[], Any]:
    def function() -> Any:
        calls.append(1)
        return value

    calls: list[int] = []
    function.__annotations__ = {"return": annotation}
    function.calls = calls  # type: ignore[attr-defined]  # for the test that made it
    return function


@pytest.mark.parametrize(("annotation", "value"), VALUES.values(), ids=VALUES.keys())
def test_a_value_comes_back_as_it_is_annotated(
    cache: TwoTierCache, decorated: Callable[..., Any], annotation: Any, value: Any
) -> None:
    """Computed, from L1 and from L2: equal, and of equal type."""
    plain = returning(value, annotation)
    function = decorated(plain)
    computed, here = function(), function()
    cache.l1.clear()
    shared, again = function(), function()
    for found in (computed, here, shared, again):
        assert found == value
        assert type(found) is type(value)
        assert repr(found) == repr(value) or isinstance(value, set | frozenset | Quote)
    assert plain.calls == [1]  # type: ignore[attr-defined]  # see `returning`


def test_an_annotation_may_be_a_text_and_name_what_is_local(cache: TwoTierCache) -> None:
    """As `from __future__ import annotations` makes all of them."""

    class Inner(msgspec.Struct, frozen=True):
        x: int

    @cached(key_prefix="inner", cache=cache)
    def inner(x: int) -> Inner | None:
        return Inner(x)

    @cached(key_prefix="later", cache=cache)
    def later(x: int) -> Later:
        return Later(x)

    assert [inner(1), inner(1)] == [Inner(1)] * 2
    assert [later(1), later(1)] == [Later(1)] * 2


class Later(msgspec.Struct, frozen=True):
    """Defined below the test that names it; to that one it is a name of the module like any other."""

    x: int


def test_a_name_that_is_defined_later_is_looked_up_at_the_first_call(cache: TwoTierCache) -> None:
    """And a name that nothing has by then is a clear error, before the function is called."""
    scope: dict[str, Any] = {"cached": cached, "cache": cache, "__name__": "scope"}
    exec("@cached(cache=cache, key_prefix='early')\ndef early(x) -> 'Thing':\n    return Thing(x)\n", scope)
    with pytest.raises(UncacheableFunctionError, match="early: its return annotation names what is not defined"):
        scope["early"](1)
    scope["Thing"] = Point
    assert [scope["early"](1), scope["early"](1)] == [Point(1)] * 2


UNCARRIED: dict[str, Any] = {
    "a class": Plain,
    "a list of such": list[Plain],
    "complex": complex,
    "an iterator": Iterator[int],
    "a callable": Callable[[], int],
    "two dataclasses": Quote | Money,
    "two texts": date | datetime,
    "keys that are no text": dict[tuple[int, int], str],
    "no type": 5,
    "an enumeration of tuples": enum.Enum("Pairs", {"A": (1, 2)}),
}


@pytest.mark.parametrize("annotation", UNCARRIED.values(), ids=UNCARRIED.keys())
def test_an_annotation_that_cannot_be_carried_is_refused_where_it_is_written(
    decorated: Callable[..., Any], annotation: Any
) -> None:
    """In the function's name, with what to write instead; which then works."""
    with pytest.raises(UncacheableFunctionError, match=r"function: its return annotation"):
        decorated(returning(1, annotation))
    assert decorated(returning(1, annotation), type=int)() == 1


UNFIT: dict[str, tuple[Any, Any, str]] = {
    "another type": (int, "text", "Expected `int`"),
    "a tuple for a list": (list[int], (1, 2), "tuple comes back as list"),
    "a set without annotation": (Any, {1}, "set is not a JSON value"),
    "a tuple without annotation": (Any, (1,), "tuple, which comes back as a list"),
    "a part of another type": (dict[str, date], {"a": 5}, "Expected `date`"),
    "more than the typed dict has": (Row, {"id": 1, "at": date(2026, 1, 1), "more": 1}, "does not come back"),
    "not a number": (float, float("nan"), r"Expected `int \| float`"),
    "too large": (str, "x" * 2_000_000, r"too large: 1.9 MB; kept are up to 1.0 MB"),
}


@pytest.mark.parametrize("form", ["plain", "coroutine"])
@pytest.mark.parametrize(("annotation", "value", "why"), UNFIT.values(), ids=UNFIT.keys())
def test_a_value_that_does_not_fit_is_returned_not_kept_and_told_once(
    redis_url: str, namespace: str, caplog: pytest.LogCaptureFixture, form: str, annotation: Any, value: Any, why: str
) -> None:
    """By the function's name. With `unfit="raise"` it raises."""
    l2 = RedisCache(url=redis_url, namespace=namespace, timeout_s=5.0)
    cache = TwoTierCache(None, l2, max_value_bytes=2**20)
    plain = returning(value, annotation)

    async def waiting() -> Any:
        return plain()

    waiting.__annotations__ = plain.__annotations__

    def calling(**options: Any) -> Callable[[], Any]:
        if form == "plain":
            return cached(key_prefix="unfit", cache=cache, **options)(plain)
        under = cached(key_prefix="unfit", cache=cache, **options)(waiting)
        return lambda: asyncio.run(under())

    function = calling()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            found = function()
            assert found is value
    told = [record.getMessage() for record in caplog.records if "value_not_kept" in record.getMessage()]
    assert len(told) == 1
    assert ("waiting: value" if form == "coroutine" else "function: value") in told[0]
    assert plain.calls == [1, 1, 1]  # type: ignore[attr-defined]  # see `returning`
    with pytest.raises(UncacheableValueError, match=why):
        calling(unfit="raise")()
    cache.close()


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (float, 1),
        (dict[str, float], {"a": 1, "b": 1.0}),
        (list[tuple[float, ...]], [(1, 1.5)]),
        (float | None, 2),
        (dict[str, list[object]], {"a": [1.0, 1]}),
    ],
    ids=str,
)
def test_a_whole_number_where_a_float_is_annotated_comes_back_as_it_is(
    cache: TwoTierCache, decorated: Callable[..., Any], annotation: Any, value: Any
) -> None:
    """Python's own typing takes it for a float: it is kept, and not made another one."""
    plain = returning(value, annotation)
    function = decorated(plain)
    found = [function(), function()]
    cache.l1.clear()
    assert [repr(each) for each in (*found, function())] == [repr(value)] * 3
    assert plain.calls == [1]  # type: ignore[attr-defined]  # see `returning`


def test_a_value_of_an_older_release_that_does_not_fit_is_a_miss(cache: TwoTierCache, decorated: Callable[..., Any]) -> None:
    """From either tier: it is computed anew, and no caller sees an error."""
    old = decorated(returning({"symbol": "ACME"}, dict[str, str]), shared=True)
    new = decorated(returning(Money(Decimal(1)), Money), shared=True)
    for forget in (int, cache.l1.clear):
        assert old() == {"symbol": "ACME"}
        forget()
        assert [new(), new()] == [Money(Decimal(1))] * 2
        cache.invalidate("function:*")


# -- arguments

ARGUMENTS: list[Any] = [
    1,
    True,
    1.0,
    "1",
    Decimal(1),
    Decimal("1.0"),
    b"1",
    (1,),
    [1],
    {1},
    frozenset({1}),
    {1: 1},
    {"1": 1},
    {1: "1"},
    {1.0: 1},
    (),
    [],
    set(),
    {},
    Level.LOW,
    Color.RED,
    "red",
    Point(1),
    Money(Decimal(1)),
    Money(Decimal("1.0")),
    Pair(1, "1"),
    (1, "1"),
    [1, "1"],
    Box(1),
    Box(True),
    date(2026, 1, 1),
    datetime(2026, 1, 1),  # noqa: DTZ001 - one without a zone is an argument of its own
    datetime(2026, 1, 1, tzinfo=UTC),
    datetime(2026, 1, 1, 9, tzinfo=timezone(timedelta(hours=9))),
    datetime(2026, 1, 1, fold=1),  # noqa: DTZ001 - as above
    "2026-01-01",
    time(1),
    timedelta(seconds=1),
    UUID(int=1),
    str(UUID(int=1)),
    {"a": {date(2026, 1, 1): Decimal(1)}},
    [2, "set", [1]],
    [2, "Decimal", "1"],
    {Level.LOW: 1},
]


def test_arguments_of_all_these_types_are_told_apart(cache: TwoTierCache, decorated: Callable[..., Any]) -> None:
    """Alone, and within each other; no two different ones share an entry."""

    def shown(value: Any) -> str:
        return f"{type(value).__name__} {value!r}"

    function = decorated(shown)
    wrapped = [*ARGUMENTS, *(["in", each] for each in ARGUMENTS), *((each, {"k": each}) for each in ARGUMENTS)]
    keys = [function.cache_key(each) for each in wrapped]
    assert len(set(keys)) == len(wrapped)
    for _ in range(2):
        assert [function(each) for each in ARGUMENTS] == [shown(each) for each in ARGUMENTS]


def test_equal_arguments_have_one_key(decorated: Callable[..., Any]) -> None:
    """The order of a set and of a dict does not count."""

    def function(value: Any) -> int:
        return 1

    key = decorated(function).cache_key
    assert key({1, 2, 3}) == key({3, 2, 1})
    assert key(set("abcdef")) == key(set("fedcba"))
    assert key({date(2026, 1, 1): 1, date(2026, 1, 2): 2}) == key({date(2026, 1, 2): 2, date(2026, 1, 1): 1})
    assert key(Quote("A", Decimal(1), NOON, {"x", "y"})) == key(Quote("A", Decimal(1), NOON, {"y", "x"}))


def test_an_argument_with_more_than_its_fields_is_refused(decorated: Callable[..., Any]) -> None:
    """What is not in the key would make two different ones alike."""
    money = Money(Decimal(1))
    object.__setattr__(money, "note", "x")
    with pytest.raises(UncacheableValueError, match=r"\.note: is not a field"):
        decorated(repr, key_prefix="repr")(money)


def test_of_a_method_nothing_of_self_counts_if_it_is_ignored(cache: TwoTierCache) -> None:
    """`ignore` names what does not count, in a method and in a function alike."""

    class Shop:
        calls = 0

        @cached(key_prefix="rate", cache=cache, ignore=("self",))
        def rate(self, currency: str) -> Decimal:
            Shop.calls += bool(currency)
            return Decimal("1.1")

        @cached(key_prefix="arate", cache=cache, ignore=("self",))
        async def arate(self, currency: str) -> Decimal:
            Shop.calls += bool(currency)
            return Decimal("1.2")

        @cached(key_prefix="mine", cache=cache, key=lambda self, month: (id(self), month))
        async def mine(self, month: int) -> int:
            return id(self) * month

    one, other = Shop(), Shop()
    assert [one.rate("EUR"), other.rate("EUR"), one.rate("USD")] == [Decimal("1.1")] * 3
    assert Shop.calls == 2
    Shop.rate.invalidate(one, "EUR")
    assert other.rate("EUR") == Decimal("1.1")
    assert Shop.calls == 3

    async def both() -> tuple[Any, ...]:
        return await one.arate("EUR"), await other.arate("EUR"), await one.mine(1), await other.mine(1)

    assert asyncio.run(both()) == (Decimal("1.2"), Decimal("1.2"), id(one), id(other))
    assert Shop.calls == 4
    with pytest.raises(UncacheableFunctionError, match="has no parameter 'session'"):
        cached(key_prefix="x", cache=cache, ignore=("session",))(returning)


# -- time to live


def test_a_ttl_may_be_a_function_of_the_result(cache: TwoTierCache, decorated: Callable[..., Any]) -> None:
    """0 of it: not kept. One that raises, or makes no time, is a clear error."""

    def number(x: int) -> int:
        return x

    function = decorated(number, ttl=lambda result: timedelta(seconds=result) if result > 10 else 0)
    assert [function(5), function(60)] == [5, 60]
    assert cache.get(function.cache_key(5)) is MISS
    left_s = cache.left_s([function.cache_key(60)])
    assert left_s is not None
    assert 55 < left_s[function.cache_key(60)] <= 60
    with pytest.raises(ValueError, match=r"number: ttl: its function raised ZeroDivisionError"):
        decorated(number, key_prefix="raises", ttl=lambda result: result / 0)(1)
    with pytest.raises(ValueError, match=r"number: ttl: expected seconds or a timedelta, got str"):
        decorated(number, key_prefix="none", ttl="soon {}".format)(1)
    with pytest.raises(ValueError, match=r"number: ttl: 1e\+06; expected seconds above 0 and up to 86400"):
        decorated(number, key_prefix="long", ttl=lambda result: 1_000_000 * result)(1)


def test_a_day_and_a_timedelta_are_ttls(cache: TwoTierCache, decorated: Callable[..., Any]) -> None:
    for number, ttl in enumerate((86_400, timedelta(minutes=5), timedelta(days=1))):
        function = decorated(lambda: 1, key_prefix=f"ttl:{number}", ttl=ttl)
        assert function() == 1
        left_s = cache.left_s([function.cache_key()])
        assert left_s is not None
        whole_s = ttl if isinstance(ttl, int) else ttl.total_seconds()
        assert whole_s - 10 < left_s[function.cache_key()] <= whole_s


# -- whose the key is


def test_of_two_functions_with_one_prefix_the_second_is_refused(decorated: Callable[..., Any]) -> None:
    """Unless both say that they share it: then each has the other's values."""

    def one(x: int) -> str:
        return f"one {x}"

    def other(x: int) -> str:
        return f"other {x}"

    assert decorated(one)(1) == "one 1"
    with pytest.raises(UncacheableFunctionError, match="under the prefix 'function' already"):
        decorated(other)
    assert decorated(other, key_prefix="of its own")(1) == "other 1"
    sharing = [decorated(each, key_prefix="both", shared=True) for each in (one, other)]
    assert [each(7) for each in sharing] == ["one 7", "one 7"]


@pytest.mark.parametrize("key", [lambda _: object(), lambda _: 1 / 0], ids=["no value for a key", "raises"])
def test_a_key_that_is_none_is_a_clear_error_before_the_function_is_called(decorated: Callable[..., Any], key: Any) -> None:
    called: list[int] = []
    function = decorated(called.append, key=key)
    with pytest.raises((UncacheableValueError, ZeroDivisionError)) as told:
        function(1)
    assert isinstance(told.value, ZeroDivisionError) or "append: key: object cannot be part of a key" in str(told.value)
    assert not called
