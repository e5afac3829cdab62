"""What a program might use in place of L1. None of them checks for invalidations elsewhere, nor copies its values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final, NamedTuple

MISSING_NOTE: Final = "{} left out: not installed (the extra `bench` has it)"


def _as_it_is(answer: Any) -> Any:
    return answer


class L1Peer(NamedTuple):
    """`value`: the value in a result of `get`; None for a miss. `close` ends the threads that it may have."""

    get: Callable[[str], Any]
    set: Callable[[str, Any], Any]
    value: Callable[[Any], Any] = _as_it_is
    close: Callable[[], object] = lambda: None


def _cachetools_ttl(size: int, ttl_s: float) -> L1Peer:
    from cachetools import TTLCache

    cache: Any = TTLCache(size, ttl_s)
    return L1Peer(cache.get, cache.__setitem__)


def _cachetools_lru(size: int, _: float) -> L1Peer:
    from cachetools import LRUCache

    cache: Any = LRUCache(size)
    return L1Peer(cache.get, cache.__setitem__)


def _cachebox(size: int, ttl_s: float) -> L1Peer:
    from cachebox import VTTLCache

    cache: Any = VTTLCache(size)
    return L1Peer(cache.get, lambda key, value: cache.insert(key, value, ttl=ttl_s))


def _theine(size: int, ttl_s: float) -> L1Peer:
    from theine import Cache

    cache: Any = Cache(size)
    ttl = timedelta(seconds=ttl_s)
    # Its `get` gives a pair: the value, and whether there is one.
    return L1Peer(cache.get, lambda key, value: cache.set(key, value, ttl), lambda pair: pair[0], cache.close)


def _moka(size: int, ttl_s: float) -> L1Peer:
    from moka_py import Moka

    cache: Any = Moka(size, ttl=ttl_s)
    return L1Peer(cache.get, cache.set)


Makers = Mapping[str, Callable[[int, float], L1Peer]]

L1_PEERS: Final[Makers] = {
    "cachetools_ttl": _cachetools_ttl,
    "cachebox": _cachebox,
    "theine": _theine,
    "moka": _moka,
}
"""With a time to live, as in L1."""
EVICTION_PEERS: Final[Makers] = {"cachetools_lru": _cachetools_lru, "theine": _theine, "moka": _moka}
"""Compared by what they evict."""


def make_peers(makers: Makers, size: int, ttl_s: float) -> tuple[dict[str, L1Peer], list[str]]:
    """The installed ones, and the names of the others."""
    peers, missing = {}, []
    for name, make in makers.items():
        try:
            peers[name] = make(size, ttl_s)
        except ModuleNotFoundError:
            missing.append(name)
    return peers, missing
