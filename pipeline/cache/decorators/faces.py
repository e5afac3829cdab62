"""What a decorated function is, to a caller and to a type checker: the function, with its own signature, and more."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from pipeline.cache.coherence.process import Invalidation

P = ParamSpec("P")
Q = ParamSpec("Q")
S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)
T = TypeVar("T")
R = TypeVar("R")


class CachedFunction(Protocol[P, T]):
    """A function with a cache before it. Of a method, what is beyond the call takes the object first:
    `Shop.price.invalidate(shop, 7)`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """The cached value of the call, or what the function returns."""

    @overload
    def __get__(self, instance: None, owner: type, /) -> CachedFunction[P, T]: ...

    @overload
    def __get__(self: CachedFunction[Concatenate[S_contra, Q], T], instance: S_contra, owner: type, /) -> Callable[Q, T]: ...

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of a call. As a pattern it matches that call alone."""

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Invalidation:
        """Make a miss of that call's value, in every process, and of all that was computed from it."""

    def invalidate_all(self) -> Invalidation:
        """Make misses of all calls' values, as `invalidate` of one."""

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Invalidate the call's value and compute it anew. Callers that ask meanwhile wait for that."""

    def get_many(self, calls: Iterable[Any]) -> list[T]:
        """The values of several calls, in their order: those that are cached in one round trip, the others as calls of their own.
        Each call is its one argument, or the tuple of its arguments: so an argument that is a tuple is written `((1, 2),)`."""


class AsyncCachedFunction(Protocol[P, R]):
    """A coroutine function with a cache before it; see CachedFunction. All but `cache_key` is awaited."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """The cached value of the call, or what the function returns."""

    @overload
    def __get__(self, instance: None, owner: type, /) -> AsyncCachedFunction[P, R]: ...

    @overload
    def __get__(
        self: AsyncCachedFunction[Concatenate[S_contra, Q], R], instance: S_contra, owner: type, /
    ) -> Callable[Q, Coroutine[Any, Any, R]]: ...

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str: ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Invalidation]: ...

    def invalidate_all(self) -> Coroutine[Any, Any, Invalidation]: ...

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...

    def get_many(self, calls: Iterable[Any]) -> Coroutine[Any, Any, list[R]]: ...


class Decorator(Protocol):
    """What `cached(...)` returns."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a coroutine is a value, too: the first that fits counts
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncCachedFunction[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, T], /) -> CachedFunction[P, T]: ...
