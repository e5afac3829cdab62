"""Decorators: a cache for a function, and an invalidation after one."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

from pipeline.cache.decorators import deferred
from pipeline.cache.decorators.arguments import digest_of, digest_of_value
from pipeline.cache.errors import InvalidPatternError, UncacheableFunctionError
from pipeline.cache.keys import MAX_KEY_BYTES
from pipeline.cache.kind import Kind
from pipeline.cache.patterns.pattern import parse
from pipeline.cache.patterns.prefixes import Claimant, name_of, prefixes_of
from pipeline.cache.patterns.segments import check_prefix
from pipeline.cache.seconds import Duration, positive_seconds, seconds
from pipeline.cache.two_tier import TwoTierCache

P = ParamSpec("P")
T = TypeVar("T")

MAX_PREFIX_BYTES: Final = MAX_KEY_BYTES - 33
"""The room that a digest and its colon leave in a key."""
_PROGRAMS: Final = frozenset(("__main__", "__mp_main__"))
_RECEIVERS: Final = frozenset(("self", "cls", "mcs", "metacls"))

_provider: Callable[[], TwoTierCache] | None = None


def provide_default_cache(provider: Callable[[], TwoTierCache]) -> None:
    """Name the cache that decorators use when given none. The provider is called at each use, in the process that calls."""
    global _provider  # noqa: PLW0603 - one for the program, set once where it is put together
    _provider = provider


def cached(
    ttl: Duration = 300,
    key_prefix: str | None = None,
    *,
    cache: TwoTierCache | None = None,
    type: Any = Any,
    negative_ttl: Duration | None = None,
    key: Callable[..., object] | None = None,
    shared: bool = False,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Cache the function's results for `ttl` (seconds, or a timedelta), under `<key_prefix>:<digest of its arguments>`. None, for
    "there is nothing", is kept for `negative_ttl` if that is given; 0 means not at all. Of equal calls that miss at the same
    time, in any processes, one runs the function: see TwoTierCache.fetch.

    **What the key holds.** Arguments must be JSON values, or tuples of them. Equal calls share an entry however they are written
    (by position, by name, by default); calls that differ in a leaf or a type (1, 1.0, True, a tuple, a list) do not. `key` is
    called as the function is, and its result stands in place of the arguments: this is how to cache a method,
    `key=lambda self, month: (self.tenant, month)`. `function.cache_key(...)` is the key of a call; as a pattern it matches that
    call alone.

    **Whose the key is.** Without `key_prefix` it is the function's module and qualified name, which must identify it: a lambda, a
    function that closes over something, a bound method, a partial, any other callable, and a function of `__main__` (as which
    every program runs) need a `key_prefix`. Two functions of a process that claim one prefix of one cache would be served each
    other's values: the second is refused, unless both say `shared`.

    The function must have done its work when it returns: no coroutine, generator or future. Nested calls of cached functions take
    8 frames each of the 1,000 that Python allows by default: a recursion may go some 100 levels deep, and then raises
    RecursionError. Beyond that, compute from below or raise `sys.setrecursionlimit`.

    Raises, when it decorates: UncacheableFunctionError, which says what to write instead; InvalidPatternError for a `key_prefix`
    that has wildcards or is too long; ValueError for an invalid ttl. When called: UncacheableValueError naming the argument, or
    the place in the result that would not come back as it is.
    """
    if callable(ttl):
        raise UncacheableFunctionError(f"{name_of(ttl)}: write `@cached()`, with its parentheses")
    ttl_s = positive_seconds(ttl, "ttl")
    negative_s = None if negative_ttl is None else seconds(negative_ttl, "negative_ttl")
    if negative_s is not None and negative_s < 0:
        raise ValueError(f"negative_ttl: {negative_s:g}; expected seconds, 0 for not at all")
    kind = Kind(type, ttl_s, negative_s)
    if key_prefix is not None:
        _check_key_prefix(key_prefix)
    elif shared:
        raise InvalidPatternError("key_prefix: missing; functions that share their values name the prefix under which they do")

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        if isinstance(function, staticmethod):
            # A class hands out the function within: without this an instance would pass itself as an argument.
            return staticmethod(decorate(function.__func__))
        name = name_of(function)
        _refuse_uncallable(function, name)
        _refuse_unfinished(function, name, "cached")
        if key is None:
            _refuse_method(function, name)
        prefix = key_prefix or _own_prefix(function, name)
        signature = _signature_of(function, name) if key is None else None
        frame = inspect.currentframe()
        caller = frame.f_back.f_globals if frame is not None and frame.f_back is not None else {}
        prefixes_of(cache).claim(prefix, Claimant(function, caller, shared=shared))

        def cache_key(*args: P.args, **kwargs: P.kwargs) -> str:
            if signature is None:
                assert key is not None  # noqa: S101 - it is what stands in place of the signature
                return f"{prefix}:{digest_of_value(key(*args, **kwargs), f'{name}: key')}"
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return f"{prefix}:{digest_of(name, bound.arguments)}"

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            # Not by `get_or_compute`: in a recursion each frame counts.
            value: T = (
                _cache(cache)
                .fetch(
                    cache_key(*args, **kwargs),
                    lambda: _finished(function(*args, **kwargs), name),
                    kind,
                )
                .value
            )
            return value

        call.cache_key = cache_key  # type: ignore[attr-defined]  # documented above; a function has no place to declare it
        return call

    return decorate


def invalidate_cache(pattern: str, *, cache: TwoTierCache | None = None) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Invalidate `pattern` each time the function has done its work. Not when it failed: nothing has changed then.

    If a plain function returns a future or an awaitable, the caller gets one that ends after the invalidation (which, in an event
    loop, takes that loop's time: a round trip, and the cache's time-out at most). Not for coroutine functions: it is not certain
    that the caller awaits them. Other results whose work is not done (a generator, a Celery result) are refused.

    Raises InvalidPatternError and UncacheableFunctionError when it decorates; the latter also when the function has returned a
    result that cannot be waited for.
    """
    parse(pattern)

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        if isinstance(function, staticmethod | classmethod):
            return function.__class__(decorate(function.__func__))
        name = name_of(function)
        _refuse_uncallable(function, name)
        _refuse_unfinished(function, name, "invalidate_cache")

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            def invalidate() -> None:
                _cache(cache).invalidate(pattern)

            result = function(*args, **kwargs)
            if not deferred.is_deferred(result):
                invalidate()
                return result
            if not deferred.can_be_followed(result):
                deferred.give_up(result)
                raise UncacheableFunctionError(
                    f"{name}: returned {_kind(result)}, whose work is not done; invalidate where it ends, or return its outcome"
                )
            outcome: T = deferred.once_done(result, invalidate)
            return outcome

        return call

    return decorate


def _cache(given: TwoTierCache | None) -> TwoTierCache:
    if given is not None:
        return given
    if _provider is None:
        raise RuntimeError("no default cache: pass `cache=`, or call provide_default_cache() once at start")
    return _provider()


def _check_key_prefix(key_prefix: object) -> None:
    size = len(check_prefix(key_prefix, "key_prefix").encode())
    if size > MAX_PREFIX_BYTES:
        raise InvalidPatternError(f"key_prefix: has {size} bytes; allowed are up to {MAX_PREFIX_BYTES}")


def _own_prefix(function: object, name: str) -> str:
    """The prefix made of the function's own name, if that identifies the function, in every process and at any time."""
    if not isinstance(function, types.FunctionType):
        raise UncacheableFunctionError(
            f"{name}: its key would not tell which object it is bound to or made of; name it with key_prefix="
        )
    if function.__name__ == "<lambda>":
        raise UncacheableFunctionError(f"{name}: a lambda has no name that tells it from another; write key_prefix=")
    if free := function.__code__.co_freevars:
        raise UncacheableFunctionError(
            f"{name}: closes over {', '.join(free)}, which would not be in the key; make that an argument, or name the function "
            "with key_prefix= (of several decorators, let `cached` be the innermost)"
        )
    module = function.__module__
    if not isinstance(module, str) or module in _PROGRAMS:
        raise UncacheableFunctionError(
            f"{name}: belongs to {module}, as which every program runs; write key_prefix={function.__name__!r}, or a name that "
            "no other program of yours uses"
        )
    prefix = f"{module}.{function.__qualname__}"
    _check_key_prefix(prefix)
    return prefix


def _refuse_uncallable(function: object, name: str) -> None:
    if not callable(function):
        raise UncacheableFunctionError(f"{name}: is not a function; decorate the function within it")


def _refuse_unfinished(function: Any, name: str, decorator: str) -> None:
    """Refuse a function that returns before its work has begun, as far as one can tell without calling it."""
    within = [function]
    while isinstance(within[-1], functools.partial):
        within.append(within[-1].func)
    if not isinstance(within[-1], types.FunctionType | types.MethodType | type):
        within.append(getattr(type(within[-1]), "__call__", None))  # noqa: B004 - that of an object's class is what is called
    if any(
        inspect.iscoroutinefunction(each) or inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each)
        for each in within
    ):
        raise UncacheableFunctionError(
            f"{name}: `{decorator}` is for plain functions; this one has done nothing yet when it returns"
        )


def _refuse_method(function: object, name: str) -> None:
    """Refuse a function that takes the object that it is called on, which is not part of a key."""
    if not isinstance(function, types.FunctionType):
        return
    scope, _, _ = function.__qualname__.rpartition(".")
    code = function.__code__
    first = code.co_varnames[0] if code.co_argcount else ""
    if scope and not scope.endswith("<locals>") and first in _RECEIVERS:
        raise UncacheableFunctionError(
            f"{name}: {first} cannot be part of a key; write key=lambda {first}, ...: (what the value depends on), or cache a "
            "function of that"
        )


def _signature_of(function: Callable[..., object], name: str) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        raise UncacheableFunctionError(
            f"{name}: Python cannot tell its parameters; write key=, or wrap it into a function of your own"
        ) from None


def _finished(result: T, name: str) -> T:
    if deferred.is_deferred(result):
        deferred.give_up(result)
        raise UncacheableFunctionError(f"{name}: returned {_kind(result)}, whose work is not done; cache its outcome")
    return result


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"
