"""`cached`: a key holds everything that the value depends on, and no function is served another function's values."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.cache import (
    InvalidPatternError,
    RedisCache,
    TwoTierCache,
    UncacheableFunctionError,
    UncacheableValueError,
    cached,
)
from pipeline.cache.decorators.arguments import digest_of
from pipeline.cache.keys import MAX_KEY_BYTES
from pipeline.cache.patterns.pattern import parse

ROOT = Path(__file__).parents[3]


@pytest.fixture
def cache(redis_url: str, namespace: str) -> Iterator[TwoTierCache]:
    cache = TwoTierCache(None, RedisCache(url=redis_url, namespace=namespace, timeout_s=5.0))
    yield cache
    cache.clear()
    cache.close()


def whole(x: int) -> int:
    return x


def other_whole(x: int) -> int:
    return -x


class Scale:
    """One that is called, works, and holds what its outcome depends on."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, x: int) -> int:
        return self.factor * x

    def method(self, x: int) -> int:
        return self.factor * x


def closure(value: object) -> Callable[[int], object]:
    def load(x: int) -> object:
        return value

    return load


def wrapped(times: int) -> Callable[[int], int]:
    @functools.wraps(whole)
    def wrapper(x: int) -> int:
        return times * whole(x)

    return wrapper


NAMELESS: dict[str, Any] = {
    "closure": closure("first"),
    "lambda": lambda x: x,
    "wrapper that closes over": wrapped(2),
    "bound method": Scale(2).method,
    "bound builtin": [1].index,
    "partial": functools.partial(pow, 2),
    "callable object": Scale(2),
    "builtin": len,
}


@pytest.mark.parametrize("function", NAMELESS.values(), ids=NAMELESS.keys())
def test_a_function_whose_name_does_not_say_what_it_is_needs_a_prefix(cache: TwoTierCache, function: Any) -> None:
    """Its contents are not in its arguments; the error says what to write."""
    with pytest.raises(UncacheableFunctionError, match="key_prefix="):
        cached(cache=cache)(function)


@pytest.mark.parametrize("program", ["return {'eur': 1.08}", "return 'of another program'"])
def test_a_function_of_main_needs_a_prefix(program: str, redis_url: str, namespace: str) -> None:
    """Every program is `__main__`: two of them would share `__main__.load`."""
    source = f"from pipeline import cached\ndef load(name):\n    {program}\ncached()(load)"
    environ = {**os.environ, "PERSONA_CACHE_URL": redis_url, "PERSONA_CACHE_NAMESPACE": namespace}
    ended = subprocess.run([sys.executable, "-c", source], cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "UncacheableFunctionError: load: belongs to __main__" in ended.stderr
    assert "key_prefix='load'" in ended.stderr


WITH_PREFIX: dict[str, tuple[Any, tuple[Any, ...], Any]] = {
    "closure": (closure("first"), (1,), "first"),
    "lambda": (lambda x: x + 1, (1,), 2),
    "wrapper": (wrapped(2), (3,), 6),
    "bound method": (Scale(2).method, (3,), 6),
    "partial": (functools.partial(pow, 2), (5,), 32),
    "callable object": (Scale(3), (5,), 15),
    "builtin": (len, ([1, 2],), 2),
    "function": (whole, (4,), 4),
}


@pytest.mark.parametrize(("function", "arguments", "expected"), WITH_PREFIX.values(), ids=WITH_PREFIX.keys())
def test_with_a_prefix_any_callable_is_cached(cache: TwoTierCache, function: Any, arguments: Any, expected: Any) -> None:
    """The prefix identifies the function."""
    decorated = cached(key_prefix="named", cache=cache)(function)
    assert [decorated(*arguments), decorated(*arguments)] == [expected, expected]
    assert cache.get(decorated.cache_key(*arguments)) == expected  # type: ignore[attr-defined]  # see `cached`


REFUSED: dict[str, Any] = {
    "a class method": classmethod(whole),
    "a property": property(whole),
    "a partial method": functools.partialmethod(whole, 1),
    "a number": 5,
    "None": None,
    "a builtin without signature": min,
    "a method": Scale.method,
}


@pytest.mark.parametrize("function", REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_cached_is_refused_where_it_is_written(cache: TwoTierCache, function: Any) -> None:
    """With a prefix, too: in our words, at the decoration."""
    with pytest.raises(UncacheableFunctionError):
        cached(key_prefix="refused", cache=cache)(function)


def test_without_its_parentheses_it_says_so() -> None:
    """Else the function would be taken for a ttl."""
    with pytest.raises(UncacheableFunctionError, match=r"whole: write `@cached\(\)`"):
        cached(whole)  # type: ignore[arg-type]  # that is the point


def test_a_method_is_cached_by_what_its_key_says(cache: TwoTierCache) -> None:
    """Each tenant has its own; without a key a method is refused where it is written."""

    class Tenant:
        def __init__(self, name: str) -> None:
            self.name = name

        @cached(key_prefix="report", cache=cache, key=lambda self, month: (self.name, month))
        def report(self, month: int) -> str:
            return f"{self.name} {month}"

        @staticmethod
        @cached(key_prefix="static", cache=cache)
        def within(x: int) -> int:
            return x

        @cached(key_prefix="outside", cache=cache)
        @staticmethod
        def outside(x: int) -> int:
            return x

    acme, globex = Tenant("ACME"), Tenant("Globex")
    for _ in range(2):
        assert [acme.report(1), globex.report(1), acme.report(2)] == ["ACME 1", "Globex 1", "ACME 2"]
        assert [Tenant.within(1), acme.within(2), Tenant.outside(1), acme.outside(2)] == [1, 2, 1, 2]
    with pytest.raises(UncacheableFunctionError, match="self cannot be part of a key; write key=lambda self"):

        class Broken:
            @cached(key_prefix="broken", cache=cache)
            def report(self, month: int) -> str:
                return f"{month}"


def test_a_key_stands_in_place_of_the_arguments(cache: TwoTierCache) -> None:
    """Exactly: its results are told apart as arguments are, and refused as they are."""
    load = cached(key_prefix="keyed", cache=cache, key=lambda x: x)(closure("value"))
    keys = {load.cache_key(part) for part in (1, 1.0, True, "1", (1,), [1], None, {"a": 1})}  # type: ignore[attr-defined]
    assert len(keys) == 8
    with pytest.raises(UncacheableValueError, match=r"load: key: object"):
        load(object())  # type: ignore[arg-type]  # that is the point
    assert cached(key_prefix="least", cache=cache, key=lambda *numbers: numbers)(min)([2, 1]) == 1


# -- one prefix, two functions


PAIRS: dict[str, tuple[Any, Any]] = {
    "two functions": (whole, other_whole),
    "closures of one factory": (closure("first"), closure("second")),
    "lambdas": (lambda x: x, lambda x: x + 1),
    "bound methods of two objects": (Scale(1).method, Scale(2).method),
    "partials": (functools.partial(pow, 2), functools.partial(pow, 3)),
    "callable objects": (Scale(1), Scale(2)),
    "wrappers": (wrapped(2), wrapped(3)),
    "a function and a method": (whole, Scale(2).method),
}


@pytest.mark.parametrize(("first", "second"), PAIRS.values(), ids=PAIRS.keys())
def test_of_two_functions_that_claim_one_prefix_the_second_is_refused(cache: TwoTierCache, first: Any, second: Any) -> None:
    """It would be served the first one's values."""
    cached(key_prefix="taken", cache=cache)(first)
    with pytest.raises(UncacheableFunctionError, match=r"prefix 'taken' already.*shared=True"):
        cached(key_prefix="taken", cache=cache)(second)
    cached(key_prefix="free", cache=cache)(second)


@pytest.mark.parametrize("kept", [True, False])
def test_the_claim_of_a_function_that_is_gone_stays(cache: TwoTierCache, *, kept: bool) -> None:
    """Its values are still in the cache."""
    functions = [cached(key_prefix="gone", cache=cache)(closure("first"))]
    assert functions[0](1) == "first"
    if not kept:
        functions.clear()
    with pytest.raises(UncacheableFunctionError, match="already"):
        cached(key_prefix="gone", cache=cache)(closure("second"))


def test_two_functions_share_a_prefix_if_both_say_so(cache: TwoTierCache) -> None:
    """By name, at either; one of them alone cannot decide it."""
    first = cached(key_prefix="both", cache=cache, shared=True)(whole)
    second = cached(key_prefix="both", cache=cache, shared=True)(other_whole)
    assert [first(3), second(3)] == [3, 3]
    with pytest.raises(UncacheableFunctionError, match="already"):
        cached(key_prefix="both", cache=cache)(closure("third"))
    cached(key_prefix="mine", cache=cache)(whole)
    with pytest.raises(UncacheableFunctionError, match="already"):
        cached(key_prefix="mine", cache=cache, shared=True)(other_whole)
    with pytest.raises(InvalidPatternError, match="key_prefix"):
        cached(cache=cache, shared=True)


def test_the_same_function_may_claim_its_prefix_again(cache: TwoTierCache) -> None:
    """One that is decorated twice, or defined at each call of the function around it and closes over the same."""
    scale = Scale(2)
    for _ in range(2):
        cached(key_prefix="again", cache=cache)(whole)
        cached(cache=cache)(whole)
        cached(key_prefix="method", cache=cache)(scale.method)
        cached(key_prefix="closure", cache=cache)(closure(scale))

        @cached(cache=cache)
        def local(x: int, scale: int = 2) -> int:
            return x * scale

        assert local(2) == 4

        @cached(key_prefix="recursive", cache=cache)
        def down(n: int) -> int:
            return n if n == 0 else down(n - 1)

        assert down(3) == 0


def test_a_function_that_closes_over_what_is_bound_later_is_not_taken_for_another(cache: TwoTierCache) -> None:
    """When it is decorated there is nothing yet to tell it by."""

    def make(value: str) -> Callable[[], str]:
        @cached(key_prefix="later", cache=cache)
        def load() -> str:
            return bound

        bound = value
        return load

    assert make("first")() == "first"
    with pytest.raises(UncacheableFunctionError, match="already"):
        make("second")


@pytest.mark.parametrize("edited", [False, True], ids=["unchanged", "edited"])
def test_a_module_that_is_loaded_anew_claims_anew(
    cache: TwoTierCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, edited: bool
) -> None:
    """Whatever in it is decorated, and whether it was edited meanwhile."""
    name = f"reloaded_{edited}".lower()
    source = """
import functools
from pipeline.cache import cached
def decorate(cache):
    @cached(cache=cache)
    def local(x): return x
    @cached(key_prefix="closure", cache=cache)
    def closes(x): return cache
    return local, closes, plain, cached(key_prefix="made", cache=cache)(functools.partial(plain, 1))
def plain(x): return x
def all_of(cache):
    cached(cache=cache)(plain)
    return decorate(cache)
"""
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = importlib.import_module(name)
    module.all_of(cache)
    if edited:
        (tmp_path / f"{name}.py").write_text("\n\n" + source.replace("return x", "return -x"))
        importlib.invalidate_caches()
    importlib.reload(module).all_of(cache)
    del sys.modules[name]
    importlib.import_module(name).all_of(cache)


# -- keys


def test_tuples_and_lists_have_keys_of_their_own(cache: TwoTierCache) -> None:
    """Also within each other, and beside functions that are written with them."""

    @cached(key_prefix="rows", cache=cache)
    def function(x: object, *rest: object) -> str:
        return repr((x, rest))

    values: list[Any] = [
        (),
        [],
        (1,),
        [1],
        [0, 1],
        (1, 1),
        ((1,),),
        ([1],),
        [(1,)],
        [[1]],
        {"a": (1,)},
        {"a": [1]},
        [1, [0]],
        "()",
    ]
    for _ in range(2):
        assert [function(value) for value in values] == [repr((value, ())) for value in values]
        assert [function(0, value) for value in values] == [repr((0, (value,))) for value in values]


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: {"a": (1, x)}], ids=["alone", "in a list", "deep"])
def test_a_number_of_too_many_digits_is_refused_by_the_name_of_its_argument(cache: TwoTierCache, wrap: Any) -> None:
    """Rather than by Python's own limit; one of 4,000 is taken."""
    function = cached(cache=cache)(whole)
    with pytest.raises(UncacheableValueError, match=r"^whole\(x\).*too many digits"):
        function(wrap(10**5000))
    assert function(10**4000) == 10**4000


PREFIXES = ["a*", "a?", "[a]", "a]", "a\\b", "*", "", "\ud800", 7, "x" * (MAX_KEY_BYTES - 32), "가" * 80]


@pytest.mark.parametrize("prefix", PREFIXES, ids=lambda prefix: repr(prefix)[:9])
def test_a_prefix_whose_keys_could_not_be_invalidated_is_refused_where_it_is_written(prefix: Any) -> None:
    """With a wildcard in it a key would mean others; with one that is too long there would be none."""
    with pytest.raises(InvalidPatternError, match=r"^key_prefix: "):
        cached(key_prefix=prefix)


@pytest.mark.parametrize("argument", ["a*", "*", "[x]", "\\", "?", "a:b", "\n", "가", ("*",), {"*": "?"}], ids=repr)
def test_the_key_of_a_call_means_that_call_alone(cache: TwoTierCache, argument: Any) -> None:
    """Given to `get` and to `invalidate` alike, whatever the argument is."""
    calls: list[object] = []

    @cached(key_prefix="literal: prefix", cache=cache)
    def function(x: object) -> int:
        calls.append(x)
        return len(calls)

    assert [function(argument), function("other")] == [1, 2]
    key = function.cache_key(argument)  # type: ignore[attr-defined]  # see `cached`
    assert cache.get(key) == 1
    assert parse(key).kind == "exact"
    assert parse(key).subject == key
    cache.invalidate(key)
    assert [function(argument), function("other")] == [3, 2]


# -- time to live


@pytest.mark.parametrize(
    "ttl",
    [0, -1, True, "60", None, float("nan"), float("inf"), timedelta(0), timedelta(days=-1), [60], 10**5000],
    ids=["0", "-1", "True", "text", "None", "nan", "inf", "no time", "past", "list", "endless"],
)
def test_a_ttl_that_is_none_is_refused_where_it_is_written(ttl: Any) -> None:
    """Not at the first call."""
    with pytest.raises(ValueError, match=r"^ttl: "):
        cached(ttl=ttl)
    if ttl is not None and ttl:
        with pytest.raises(ValueError, match=r"^negative_ttl: "):
            cached(negative_ttl=ttl)


def test_a_ttl_may_be_a_timedelta(cache: TwoTierCache) -> None:
    """Of anything that is kept, and of nothing, too."""
    half = timedelta(minutes=0.5)
    function = cached(half, "half", cache=cache, negative_ttl=timedelta(seconds=5))(whole)
    assert function(3) == 3
    assert cache.l2 is not None
    left_s = cache.left_s([function.cache_key(3)])  # type: ignore[attr-defined]  # see `cached`
    assert left_s is not None
    assert all(26 < left <= 30 for left in left_s.values())
    none = cached(half, "none", cache=cache, negative_ttl=timedelta(seconds=5))(closure(None))
    assert none(1) is None
    left_s = cache.left_s([none.cache_key(1)])  # type: ignore[attr-defined]  # see `cached`
    assert left_s is not None
    assert all(4 < left <= 5 for left in left_s.values())


# -- when called


class Promise:
    def ready(self) -> bool:
        return False

    def get(self) -> int:
        return 1


async def coroutine() -> int:
    return 1


UNFINISHED: dict[str, Callable[[], Any]] = {
    "coroutine": coroutine,
    "generator": lambda: iter(x for x in (1,)),
    "future": Future,
    "map": lambda: map(str, [1]),
    "promise": Promise,
}


@pytest.mark.parametrize("function", UNFINISHED.values(), ids=UNFINISHED.keys())
def test_a_result_whose_work_is_not_done_is_refused_clearly(cache: TwoTierCache, function: Callable[[], Any]) -> None:
    """Nothing is kept, and nothing warns of a coroutine that was never awaited."""

    @cached(key_prefix="unfinished", cache=cache)
    def plain() -> Any:
        return function()

    with pytest.raises(UncacheableFunctionError, match=r"plain: returned a .*not done"):
        plain()


@pytest.mark.parametrize("tiers", [1, 2])
def test_a_recursion_is_good_for_as_many_levels_as_is_said(cache: TwoTierCache, tiers: int) -> None:
    """With a test's own frames below it, of the hundred."""

    @cached(key_prefix="fib", cache=cache if tiers == 2 else TwoTierCache())
    def fib(n: int) -> int:
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert fib(80) == 23416728348467685


def test_a_recursion_that_is_too_deep_ends_by_pythons_own_error() -> None:
    """It blames no argument; and later calls are right."""

    @cached(key_prefix="deep", cache=TwoTierCache())
    def fib(n: int) -> int:
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    with pytest.raises(RecursionError):
        fib(5_000)
    assert fib(60) == 1548008755920


def test_an_argument_is_not_blamed_for_the_depth_of_its_caller() -> None:
    """Wherever in the making of a key the stack ends."""

    def descend() -> None:
        try:
            descend()
        finally:
            digest_of("f", {"x": [1, {"a": ()}]})

    with pytest.raises(RecursionError):
        descend()
