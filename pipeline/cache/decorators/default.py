"""Which cache a decorator uses when it is given none."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.cache.two_tier import TwoTierCache

_provider: Callable[[], TwoTierCache] | None = None


def provide_default_cache(provider: Callable[[], TwoTierCache]) -> None:
    """Name the cache that decorators use when given none. The provider is called at each use, in the process that calls."""
    global _provider  # noqa: PLW0603 - one for the program, set once where it is put together
    _provider = provider


def cache_or_default(given: TwoTierCache | None) -> TwoTierCache:
    """That cache, or the default one. Raises RuntimeError where there is none."""
    if given is not None:
        return given
    if _provider is None:
        raise RuntimeError("no default cache: pass `cache=`, or call provide_default_cache() once at start")
    return _provider()
