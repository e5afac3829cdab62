"""A decorated function's calls: the key of each, and what is done by it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, NamedTuple

from pipeline.cache.coherence.process import Invalidation
from pipeline.cache.decorators import deferred
from pipeline.cache.decorators.annotations import LATER, value_type_of
from pipeline.cache.decorators.arguments import digest_of, digest_of_value
from pipeline.cache.decorators.default import cache_or_default
from pipeline.cache.errors import InvalidPatternError, UncacheableFunctionError
from pipeline.cache.grace import Grace
from pipeline.cache.kind import Kind
from pipeline.cache.two_tier import TwoTierCache


class Plan(NamedTuple):
    """How a function is cached, as it was decorated."""

    cache: TwoTierCache | None
    prefix: str
    key: Callable[..., object] | None
    signature: inspect.Signature | None
    ignored: tuple[str, ...]
    stale_s: float
    deps: Callable[..., Iterable[str]] | tuple[str, ...]


class Calls:
    """The calls of one decorated function. Stateless, but for a type that was not defined when it was decorated."""

    def __init__(self, function: Callable[..., Any], name: str, plan: Plan, kind: Kind) -> None:
        self.function = function
        self.name = name
        self.plan = plan
        self._kind = kind

    @property
    def cache(self) -> TwoTierCache:
        return cache_or_default(self.plan.cache)

    def kind(self) -> Kind:
        """How its values are kept. Raises UncacheableFunctionError where the return annotation still names nothing."""
        kind = self._kind
        if kind.type is LATER:
            found = value_type_of(self.function, self.name, {})
            if found is LATER:
                raise UncacheableFunctionError(
                    f"{self.name}: its return annotation names what is not defined; import it where the function is defined, or "
                    "name with type= what the values are (type=Any: JSON)"
                )
            kind = self._kind = Kind(found, kind.ttl, kind.negative_ttl, kind.single_flight, kind.unfit, kind.name)
        return kind

    def cache_key(self, *args: Any, **kwargs: Any) -> str:
        """The key of a call."""
        prefix, key, signature, ignored = self.plan.prefix, self.plan.key, self.plan.signature, self.plan.ignored
        if signature is None:
            assert key is not None  # noqa: S101 - it is what stands in place of the signature
            return f"{prefix}:{digest_of_value(key(*args, **kwargs), f'{self.name}: key')}"
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = bound.arguments
        for each in ignored:
            del arguments[each]
        return f"{prefix}:{digest_of(self.name, arguments)}"

    def deps_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The deps that are given by hand: as `fetch` takes them."""
        deps = self.plan.deps
        return partial(deps, *args, **kwargs) if callable(deps) else deps

    @property
    def pattern(self) -> str:
        """The pattern of all calls."""
        return f"{self.plan.prefix}:*"

    def arguments_of(self, call: Any) -> tuple[Any, ...]:
        """A call of `get_many`, as positional arguments."""
        return call if type(call) is tuple else (call,)

    def finished(self, result: Any) -> Any:
        """The result of a plain function, whose work must be done."""
        if deferred.is_deferred(result):
            deferred.give_up(result)
            raise UncacheableFunctionError(
                f"{self.name}: returned a {type(result).__name__}, whose work is not done; cache its outcome"
            )
        return result

    # -- of plain functions; the call itself is in `cached`, where each frame counts

    def stale(self, key: str, args: tuple[Any, ...], kwargs: dict[str, Any], kind: Kind) -> Grace | None:
        """The grace of a call whose value may be served past its time while a thread computes it anew."""
        if not self.plan.stale_s:
            return None
        cache, grace_s, deps = self.cache, self.plan.stale_s, self.deps_of(args, kwargs)

        def compute() -> Any:
            return self.finished(self.function(*args, **kwargs))

        def anew() -> object:
            return cache.fetch(key, compute, kind, deps=deps, grace=Grace(grace_s))

        return Grace(grace_s, refresh=lambda: cache.renew(key, self.name, anew))

    def invalidate(self, *args: Any, **kwargs: Any) -> Invalidation:
        """See CachedFunction."""
        return self.cache.invalidate(self.cache_key(*args, **kwargs))

    def invalidate_all(self) -> Invalidation:
        """See CachedFunction."""
        return self.cache.invalidate(self.pattern)

    def get_many(self, call: Callable[..., Any], calls: Iterable[Any]) -> list[Any]:
        """See CachedFunction."""
        asked = [self.arguments_of(each) for each in calls]
        keys = [self.cache_key(*args) for args in asked]
        found = self.cache.lookup_many(keys, type=self.kind().type)
        return [found.pop(key).value if key in found else call(*args) for key, args in zip(keys, asked, strict=True)]

    # -- of coroutine functions

    async def a_call(self, *args: Any, **kwargs: Any) -> Any:
        """The value of a call."""
        key, kind = self.cache_key(*args, **kwargs), self.kind()
        compute = partial(self.function, *args, **kwargs)
        deps, grace = self.plan.deps, None
        if deps:
            deps = self.deps_of(args, kwargs)
        if self.plan.stale_s:
            grace = self._a_stale(key, compute, kind, deps)
        return (await self.cache.aio.fetch(key, compute, kind, deps=deps, grace=grace)).value

    def _a_stale(self, key: str, compute: Callable[[], Coroutine[Any, Any, Any]], kind: Kind, deps: Any) -> Grace:
        cache, grace_s = self.cache, self.plan.stale_s

        async def anew() -> object:
            return await cache.aio.fetch(key, compute, kind, deps=deps, grace=Grace(grace_s))

        return Grace(grace_s, refresh=lambda: cache.aio.renew(key, self.name, anew))

    async def a_invalidate(self, *args: Any, **kwargs: Any) -> Invalidation:
        """See CachedFunction."""
        return await self.cache.aio.invalidate(self.cache_key(*args, **kwargs))

    async def a_invalidate_all(self) -> Invalidation:
        """See CachedFunction."""
        return await self.cache.aio.invalidate(self.pattern)

    async def a_refresh(self, *args: Any, **kwargs: Any) -> Any:
        """See CachedFunction."""
        await self.a_invalidate(*args, **kwargs)
        return await self.a_call(*args, **kwargs)

    async def a_get_many(self, calls: Iterable[Any]) -> list[Any]:
        """See CachedFunction."""
        asked = [self.arguments_of(each) for each in calls]
        keys = [self.cache_key(*args) for args in asked]
        found = await self.cache.aio.lookup_many(keys, type=self.kind().type)
        return [found.pop(key).value if key in found else await self.a_call(*args) for key, args in zip(keys, asked, strict=True)]


def checked_deps(deps: object) -> Callable[..., Iterable[str]] | tuple[str, ...]:
    """Deps as they are given to the decorator. Raises InvalidPatternError."""
    if callable(deps):
        return deps
    if isinstance(deps, str) or not isinstance(deps, Iterable):
        raise InvalidPatternError("deps: expected several keys, or a function that makes them of the arguments")
    return tuple(deps)
