"""`cached` and `invalidate_cache` around plain functions, over both tiers and a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest

import pipeline.cache.decorators.default as decorators_module
from pipeline.cache import (
    InvalidPatternError,
    RedisCache,
    TwoTierCache,
    UncacheableValueError,
    cached,
    invalidate_cache,
    provide_default_cache,
)


class Point(msgspec.Struct, frozen=True):
    x: int


class Holder(msgspec.Struct):
    held: object


class Word(str):
    __slots__ = ()


@pytest.fixture
def cache(redis_url: str, namespace: str) -> Iterator[TwoTierCache]:
    cache = TwoTierCache(None, RedisCache(url=redis_url, namespace=namespace, timeout_s=5.0))
    yield cache
    cache.clear()
    cache.close()


@pytest.fixture
def elsewhere(redis_url: str, namespace: str) -> Iterator[TwoTierCache]:
    cache = TwoTierCache(None, RedisCache(url=redis_url, namespace=namespace, timeout_s=5.0))
    yield cache
    cache.close()


class Calls:
    """Makes functions that note each real call."""

    def __init__(self) -> None:
        self.made: list[Any] = []

    def __len__(self) -> int:
        return len(self.made)


@pytest.fixture
def calls() -> Calls:
    return Calls()


def test_a_function_is_called_once_for_equal_arguments(cache: TwoTierCache, calls: Calls) -> None:
    """By position, by name, by default, and in any order of names: one entry."""

    @cached(key_prefix="sum", cache=cache)
    def total(a: int, b: int = 2, *rest: int, scale: int = 1, **more: int) -> int:
        calls.made.append(a)
        return (a + b + sum(rest) + sum(more.values())) * scale

    assert [total(1), total(1, 2), total(a=1), total(b=2, a=1), total(1, scale=1)] == [3] * 5
    assert len(calls) == 1
    assert total(1, 2, x=1, y=2) == total(1, 2, y=2, x=1) == 6
    assert len(calls) == 2
    assert total(1, 2, 3, scale=2) == 12
    assert len(calls) == 3


def test_the_value_is_shared_with_other_processes(cache: TwoTierCache, elsewhere: TwoTierCache, calls: Calls) -> None:
    """The key is made of the prefix and the arguments alone: the same in every process."""

    def double(x: int) -> int:
        calls.made.append(x)
        return 2 * x

    here = cached(key_prefix="double", cache=cache)(double)
    there = cached(key_prefix="double", cache=elsewhere)(double)
    assert here(4) == there(4) == 8
    assert len(calls) == 1


ARGUMENTS: list[Any] = [
    1,
    1.0,
    True,
    "1",
    None,
    0,
    False,
    -0.0,
    0.0,
    "",
    [],
    {},
    [1],
    ["1"],
    [[1]],
    [1, 1],
    {"a": 1},
    {"a": "1"},
    {"a": 1, "b": 2},
    {"a": {"b": 2}},
    "a",
    "A",
    "a ",
    "\u00e9",
    "e\u0301",
    2**53,
    2**53 + 1,
    2**64,
    1e16,
]


def test_arguments_that_differ_have_entries_that_differ(cache: TwoTierCache) -> None:
    """Also those that Python holds for equal (1, 1.0, True) and those that only look alike."""

    @cached(key_prefix="kind", cache=cache)
    def kind(value: object) -> str:
        return repr(value)

    seen = [kind(value) for value in ARGUMENTS]
    assert seen == [repr(value) for value in ARGUMENTS]
    assert [kind(value) for value in ARGUMENTS] == seen


def test_parameters_do_not_run_into_each_other(cache: TwoTierCache) -> None:
    """Where one argument ends and the next begins is part of the key, and so is its name."""

    @cached(key_prefix="pair", cache=cache)
    def pair(a: str = "", b: str = "", *rest: str, **more: str) -> str:
        return repr((a, b, rest, more))

    written = [
        pair("ab", "c"),
        pair("a", "bc"),
        pair("abc"),
        pair(b="abc"),
        pair("a", "b", "c"),
        pair("a", "b", c="c"),
        pair("a", "b", "c", "d"),
        pair("a", "b", "c,d"),
        pair('a","b":"c'),
    ]
    assert len(set(written)) == len(written)


def test_functions_of_one_name_in_two_places_do_not_share_entries(cache: TwoTierCache) -> None:
    """Unless a prefix is given, it is the function's full name."""

    class One:
        @staticmethod
        @cached(cache=cache)
        def value(x: int) -> str:
            return f"one {x}"

    class Two:
        @staticmethod
        @cached(cache=cache)
        def value(x: int) -> str:
            return f"two {x}"

    assert [One.value(1), Two.value(1), One.value(1)] == ["one 1", "two 1", "one 1"]


@pytest.mark.parametrize(
    "argument",
    [
        object(),
        Word("x"),
        float("nan"),
        float("inf"),
        Decimal("nan"),
        {1: object()},
        {Word("x")},
        [object()],
        Holder(object()),
        1j,
        range(3),
        iter([1]),
    ],
    ids=lambda argument: type(argument).__name__,
)
def test_an_argument_that_a_key_cannot_hold_is_refused_by_name(cache: TwoTierCache, calls: Calls, argument: Any) -> None:
    """Two arguments that are written alike must not share an entry; the function is not called."""

    @cached(key_prefix="function", cache=cache)
    def function(good: int, bad: object) -> int:
        calls.made.append(good)
        return 1

    with pytest.raises(UncacheableValueError, match=r"function\(bad\)"):
        function(1, argument)
    with pytest.raises(UncacheableValueError, match=r"function\(bad\)"):
        function(1, bad={"deep": [argument]})
    assert len(calls) == 0


@pytest.mark.parametrize("argument", ["\ud800", {"\ud800": 1}], ids=["text", "key"])
def test_an_argument_with_a_lone_surrogate_is_refused_by_name(cache: TwoTierCache, argument: Any) -> None:
    """JSON cannot carry it."""

    @cached(key_prefix="function", cache=cache)
    def function(bad: object) -> int:
        return 1

    with pytest.raises(UncacheableValueError, match=r"function\(bad\)"):
        function(argument)


def test_an_argument_that_contains_itself_is_refused_by_name(cache: TwoTierCache) -> None:
    """Rather than with the interpreter's own words about its stack."""
    knot: list[Any] = []
    knot.append(knot)

    @cached(key_prefix="function", cache=cache)
    def function(bad: object) -> int:
        return 1

    with pytest.raises(UncacheableValueError, match=r"function\(bad\)"):
        function(knot)


def test_a_struct_comes_back_as_that_struct(cache: TwoTierCache, elsewhere: TwoTierCache) -> None:
    """With `type=`, from the first call as from any later one."""

    def point(x: int) -> Point:
        return Point(x)

    for each in (cache, cache, elsewhere):
        assert cached(key_prefix="point", cache=each, type=Point)(point)(3) == Point(3)


def test_none_is_a_result_like_any_other(cache: TwoTierCache, calls: Calls) -> None:
    """A function that returns nothing is called once, too."""

    @cached(key_prefix="function", cache=cache)
    def function() -> None:
        calls.made.append(1)

    assert [function(), function()] == [None, None]
    assert len(calls) == 1


def test_an_exception_is_not_cached_and_not_changed(cache: TwoTierCache, calls: Calls) -> None:
    """The next call tries again."""

    @cached(key_prefix="function", cache=cache)
    def function(x: int) -> int:
        calls.made.append(x)
        if len(calls) == 1:
            raise LookupError("not yet")
        return x

    with pytest.raises(LookupError, match="not yet"):
        function(5)
    assert function(5) == 5


def test_a_caller_may_change_the_value_it_got(cache: TwoTierCache) -> None:
    """The next caller gets a value of its own."""

    @cached(key_prefix="function", cache=cache)
    def function() -> list[int]:
        return [1]

    function().append(2)
    function().append(3)
    assert function() == [1]


def test_a_wrong_call_fails_as_it_would_without_the_cache(cache: TwoTierCache) -> None:
    """A missing argument is a TypeError that names it."""

    @cached(key_prefix="function", cache=cache)
    def function(needed: int) -> int:
        return needed

    with pytest.raises(TypeError, match="needed"):
        function()  # type: ignore[call-arg]  # that is the point


def test_the_key_of_a_call_invalidates_that_call(cache: TwoTierCache, elsewhere: TwoTierCache, calls: Calls) -> None:
    """`cache_key` is under the prefix, and for these arguments alone."""

    @cached(key_prefix="user", cache=cache)
    def function(x: int) -> int:
        calls.made.append(x)
        return x

    function(1), function(2)
    key = function.cache_key(1)  # type: ignore[attr-defined]  # see `cached`
    assert key.startswith("user:")
    elsewhere.invalidate(key)
    cache.refresh()
    function(1), function(2)
    assert calls.made == [1, 2, 1]
    elsewhere.invalidate("user:*")
    cache.refresh()
    function(1), function(2)
    assert calls.made == [1, 2, 1, 1, 2]


def test_a_wrapped_function_keeps_its_name_and_words(cache: TwoTierCache) -> None:
    """The function's own text is shown by `help`."""

    @invalidate_cache("x:*", cache=cache)
    @cached(key_prefix="function", cache=cache)
    def function() -> int:
        """Words."""
        return 1

    assert function.__name__ == "function"
    assert function.__doc__ == "Words."
    assert function() == 1


def test_what_has_no_value_when_called_is_refused_where_it_is_written(cache: TwoTierCache) -> None:
    """A generator could not be cached, and an invalidation would come before its work."""

    def generator() -> Iterator[int]:
        yield 1

    async def asynchronous_generator() -> AsyncIterator[int]:
        yield 1

    for function in (generator, asynchronous_generator):
        with pytest.raises(TypeError, match=function.__name__):
            cached(cache=cache)(function)
        with pytest.raises(TypeError, match=function.__name__):
            invalidate_cache("*", cache=cache)(function)


@pytest.mark.parametrize("pattern", ["", "[open", 7])
def test_a_bad_pattern_is_refused_where_it_is_written(pattern: Any) -> None:
    """Not at the first call."""
    with pytest.raises(InvalidPatternError):
        invalidate_cache(pattern)


def test_an_invalidation_follows_the_function_and_not_its_failure(
    cache: TwoTierCache, elsewhere: TwoTierCache, calls: Calls
) -> None:
    """After it returned, in every process; when it raised, nothing has changed."""

    @cached(key_prefix="profile", cache=cache)
    def profile(user: str) -> int:
        calls.made.append(user)
        return len(calls)

    @invalidate_cache("profile:*", cache=elsewhere)
    def update(user: str, *, fail: bool = False) -> str:
        cache.refresh()
        assert profile("u") == 1, "what was cached holds until the function is done"
        if fail:
            raise RuntimeError("not saved")
        return "saved"

    assert profile("u") == 1
    with pytest.raises(RuntimeError, match="not saved"):
        update("u", fail=True)
    cache.refresh()
    assert profile("u") == 1
    assert update("u") == "saved"
    cache.refresh()
    assert profile("u") == 2


def test_the_default_cache_is_asked_for_at_each_call(cache: TwoTierCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decorator at import names no cache: a forked process gives its own."""
    given: list[int] = []

    def provider() -> TwoTierCache:
        given.append(1)
        return cache

    monkeypatch.setattr(decorators_module, "_provider", None)

    @cached(key_prefix="default")
    def function() -> int:
        return 1

    with pytest.raises(RuntimeError, match="provide_default_cache"):
        function()
    provide_default_cache(provider)
    assert [function(), function()] == [1, 1]
    assert len(given) == 2
