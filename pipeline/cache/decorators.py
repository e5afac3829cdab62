"""A cache for a function, and an invalidation after one."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import msgspec

from pipeline.cache.errors import UncacheableValueError
from pipeline.cache.patterns import parse
from pipeline.cache.two_tier import TwoTierCache

P = ParamSpec("P")
T = TypeVar("T")

_encode = msgspec.json.Encoder(order="deterministic").encode
_provider: Callable[[], TwoTierCache] | None = None


def provide_default_cache(provider: Callable[[], TwoTierCache]) -> None:
    """Name the cache that decorators use when given none. It is asked for at each call, in the process that calls."""
    global _provider  # noqa: PLW0603 - one for the program, set once where it is put together
    _provider = provider


def cached(
    ttl: float = 300,
    key_prefix: str | None = None,
    *,
    cache: TwoTierCache | None = None,
    type: Any = Any,
    negative_ttl: float | None = None,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Cache what the function returns for `ttl` seconds, under `<key_prefix>:<digest of its arguments>`. None, which stands for
    "there is nothing", is kept for `negative_ttl` seconds if that is given; 0 is not at all. Of calls that are equal and miss at
    the same time, in whatever processes, one runs the function: see TwoTierCache.fetch.

    Arguments must be JSON values; equal calls share an entry however they are written (by position, by name, by default). Two
    functions under one prefix share entries, too. `key_prefix` is the function's qualified name unless given. For plain
    functions: a method's `self` is no JSON value, and a coroutine has no value yet. `function.cache_key(...)` is the key of a
    call, to invalidate it.

    Raises, when called: UncacheableValueError naming the argument, or that the result is no JSON value.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        _refuse_async(function, "cached")
        prefix = key_prefix or f"{function.__module__}.{function.__qualname__}"
        signature = inspect.signature(function)

        def cache_key(*args: P.args, **kwargs: P.kwargs) -> str:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return f"{prefix}:{_digest(function.__qualname__, bound.arguments)}"

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            key = cache_key(*args, **kwargs)
            return _cache(cache).get_or_compute(
                key, lambda: function(*args, **kwargs), ttl=ttl, type=type, negative_ttl=negative_ttl
            )

        call.cache_key = cache_key  # type: ignore[attr-defined]  # documented above; a function has no place to declare it
        return call

    return decorate


def invalidate_cache(pattern: str, *, cache: TwoTierCache | None = None) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Invalidate what matches `pattern` each time the function has returned. Not when it raised: nothing has changed then.

    Raises InvalidPatternError where it is written.
    """
    parse(pattern)

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        _refuse_async(function, "invalidate_cache")

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            result = function(*args, **kwargs)
            _cache(cache).invalidate(pattern)
            return result

        return call

    return decorate


def _refuse_async(function: Callable[..., object], decorator: str) -> None:
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{function.__qualname__}: `{decorator}` is for plain functions; this one has done nothing yet when it returns"
        )


def _cache(given: TwoTierCache | None) -> TwoTierCache:
    if given is not None:
        return given
    if _provider is None:
        raise RuntimeError("no default cache: pass `cache=`, or call provide_default_cache() once at start")
    return _provider()


def _digest(name: str, arguments: dict[str, Any]) -> str:
    """128 bits over the arguments as JSON."""
    for parameter, value in arguments.items():
        try:
            _refuse_foreign(value, f"{name}({parameter})")
        except RecursionError:
            raise UncacheableValueError(f"{name}({parameter}): is nested too deeply, or contains itself") from None
    return hashlib.blake2b(_encode(arguments), digest_size=16).hexdigest()


def _refuse_surrogate(text: str, place: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UncacheableValueError(f"{place}: text with a lone surrogate cannot be part of a key") from None


def _refuse_foreign(value: object, place: str) -> None:
    """Exact types only: msgspec would write a set, a date and a text that look alike as one key."""
    if value is None or type(value) in (bool, int):
        return
    if type(value) is str:
        _refuse_surrogate(value, place)
        return
    if type(value) is float:
        if value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124 - only NaN differs from itself
            raise UncacheableValueError(f"{place}: {value} cannot be part of a key")
        return
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        for index, item in enumerate(value):
            _refuse_foreign(item, f"{place}[{index}]")
        return
    if isinstance(value, dict) and type(value) is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise UncacheableValueError(f"{place}: key {key!r} is not text")
            _refuse_surrogate(key, place)
            _refuse_foreign(item, f"{place}[{key!r}]")
        return
    raise UncacheableValueError(f"{place}: {type(value).__name__} is not a JSON value and cannot be part of a key")
