"""`@cached`: a cache before a function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, Literal, cast

from pipeline.cache.decorators.annotations import UNSAID, value_type_of
from pipeline.cache.decorators.calling import Calls, Plan, checked_deps
from pipeline.cache.decorators.faces import Decorator
from pipeline.cache.decorators.refusals import (
    check_key_prefix,
    is_async,
    own_prefix,
    refuse_generator,
    refuse_method,
    refuse_uncallable,
    signature_of,
)
from pipeline.cache.errors import InvalidPatternError, UncacheableFunctionError
from pipeline.cache.kind import Kind, Ttl
from pipeline.cache.patterns.prefixes import Claimant, name_of, prefixes_of
from pipeline.cache.seconds import Duration, positive_seconds, seconds
from pipeline.cache.two_tier import TwoTierCache

_FRAMES_OUT: Final = 4
"""In so many scopes around the decoration an annotation's names are looked for."""


def cached(
    lifetime: Duration = 300,
    /,
    key_prefix: str | None = None,
    *,
    ttl: Ttl = UNSAID,
    cache: TwoTierCache | None = None,
    type: Any = UNSAID,
    negative_ttl: Duration | None = None,
    stale_s: Duration | None = None,
    key: Callable[..., object] | None = None,
    ignore: Collection[str] = (),
    deps: Iterable[str] | Callable[..., Iterable[str]] = (),
    unfit: Literal["tell", "raise"] = "tell",
    shared: bool = False,
) -> Decorator:
    """Cache the results of a function, or of a coroutine function, for `ttl`: seconds, a timedelta, or a function of the result
    (0 of it: not at all). They lie under `<key_prefix>:<digest of its arguments>`. None, for "there is nothing", is kept for
    `negative_ttl` if that is given; 0 means not at all. For `stale_s` past its time a value is served while it is computed anew,
    once, beside the callers. Of equal calls that miss at the same time, in any tasks, threads and processes, one runs the
    function: see TwoTierCache.fetch. Beyond the call there is more: see CachedFunction and AsyncCachedFunction.

    **What the value is.** It comes back as the return annotation says (or `type`): dataclasses, structs, typed dicts, named
    tuples, dates, Decimal, bytes, UUID, enumerations, sets, tuples, dicts with such keys, and what is made of them. Without an
    annotation it is JSON. An annotation that cannot be carried is refused where it is written. A value that does not fit (too
    large, or not as annotated) is returned, not kept, and told once in the log; with `unfit="raise"` it raises. A cached value
    that does not fit the annotation is a miss.

    **What the key holds.** Arguments may be values of the same types. Equal calls share an entry however they are written (by
    position, by name, by default); calls that differ in a leaf or a type (1, 1.0, True, a tuple, a list) do not. `ignore` names
    parameters that do not count; `key` is called as the function is, and its result stands in place of the arguments. So a method
    is cached by `key=lambda self, month: (self.tenant, month)`, or by `ignore=("self",)`.

    **What it depends on.** Everything that the function reads through the cache, at any depth, and what it names by
    `cache.reads("user:7")`; `deps` adds keys by hand, or a function that makes them of the arguments.

    **Whose the key is.** Without `key_prefix` it is the function's module and qualified name, which must identify it: a lambda, a
    function that closes over something, a bound method, a partial, any other callable, and a function of `__main__` (as which
    every program runs) need a `key_prefix`. Two functions of a process that claim one prefix of one cache would be served each
    other's values: the second is refused, unless both say `shared`.

    A plain function must have done its work when it returns: no generator or future. Nested calls of cached functions take 8
    frames each of the 1,000 that Python allows by default: a recursion may go some 100 levels deep, and then raises
    RecursionError. Beyond that, compute from below or raise `sys.setrecursionlimit`.

    Raises, when it decorates: UncacheableFunctionError, which says what to write instead; InvalidPatternError for a `key_prefix`
    that has wildcards or is too long; ValueError for an invalid ttl. When called: UncacheableValueError naming the argument;
    ValueError for a ttl function that raises.
    """
    if callable(lifetime):
        raise UncacheableFunctionError(
            f"{name_of(lifetime)}: write `@cached()`, with its parentheses (a function of the result: ttl=)"
        )
    kept = lifetime if ttl is UNSAID else ttl
    kind = Kind(
        Any if type is UNSAID else type,
        kept if callable(kept) else positive_seconds(kept, "ttl"),
        None if negative_ttl is None else _at_least_0(negative_ttl, "negative_ttl"),
        unfit=unfit,
    )
    if unfit not in ("tell", "raise"):
        raise ValueError(f"unfit: {unfit!r}; expected 'tell' or 'raise'")
    grace_s = 0.0 if stale_s is None else _at_least_0(stale_s, "stale_s")
    ignored = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    if key is not None and ignored:
        raise UncacheableFunctionError("ignore: key= says already what counts; give one of the two")
    given_deps = checked_deps(deps)
    if key_prefix is not None:
        check_key_prefix(key_prefix)
    elif shared:
        raise InvalidPatternError("key_prefix: missing; functions that share their values name the prefix under which they do")

    def decorate(function: Any) -> Any:
        if isinstance(function, staticmethod):
            # A class hands out the function within: without this an instance would pass itself as an argument.
            return staticmethod(decorate(function.__func__))
        name = name_of(function)
        refuse_uncallable(function, name)
        refuse_generator(function, name, "cached")
        if key is None:
            refuse_method(function, name, ignored)
        prefix = key_prefix or own_prefix(function, name)
        signature = signature_of(function, name, ignored) if key is None else None
        module, names = _around()
        of = value_type_of(function, name, names) if type is UNSAID else type
        prefixes_of(cache).claim(prefix, Claimant(function, module, shared=shared))
        plan = Plan(cache, prefix, key, signature, ignored, grace_s, given_deps)
        calls = Calls(function, name, plan, Kind(of, kind.ttl, kind.negative_ttl, unfit=unfit, name=name))
        return _asynchronous(calls) if is_async(function) else _plain(calls)

    return cast("Decorator", decorate)


def _plain(calls: Calls) -> Any:
    function, finished, stale_s, deps = calls.function, calls.finished, calls.plan.stale_s, calls.plan.deps

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        # Not by `get_or_compute`: in a recursion each frame counts.
        key, kind = calls.cache_key(*args, **kwargs), calls.kind()
        return calls.cache.fetch(
            key,
            lambda: finished(function(*args, **kwargs)),
            kind,
            deps=calls.deps_of(args, kwargs) if deps else (),
            grace=calls.stale(key, args, kwargs, kind) if stale_s else None,
        ).value

    def refresh(*args: Any, **kwargs: Any) -> Any:
        calls.invalidate(*args, **kwargs)
        return call(*args, **kwargs)

    return _with_more(
        call,
        cache_key=calls.cache_key,
        invalidate=calls.invalidate,
        invalidate_all=calls.invalidate_all,
        refresh=refresh,
        get_many=functools.partial(calls.get_many, call),
    )


def _asynchronous(calls: Calls) -> Any:
    a_call = calls.a_call

    @functools.wraps(calls.function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        return await a_call(*args, **kwargs)

    return _with_more(
        call,
        cache_key=calls.cache_key,
        invalidate=calls.a_invalidate,
        invalidate_all=calls.a_invalidate_all,
        refresh=calls.a_refresh,
        get_many=calls.a_get_many,
    )


def _with_more(call: Any, **more: Callable[..., Any]) -> Any:
    for name, each in more.items():
        setattr(call, name, each)
    return call


def _at_least_0(duration: Duration, field: str) -> float:
    duration_s = seconds(duration, field)
    if duration_s < 0:
        raise ValueError(f"{field}: {duration_s:g}; expected seconds, 0 for not at all")
    return duration_s


def _around() -> tuple[dict[str, Any], dict[str, Any]]:
    """The globals of the module that decorates, and the names of the scopes there in which the function is written."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals is globals():
        frame = frame.f_back
    if frame is None:
        return {}, {}
    module = frame.f_globals
    names: dict[str, Any] = {}
    for _ in range(_FRAMES_OUT):
        if frame is None or frame.f_globals is not module:
            break
        names = {**frame.f_locals, **names}
        frame = frame.f_back
    return module, names
