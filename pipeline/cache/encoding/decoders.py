"""Decoders of msgspec, made one at a time.

What msgspec 0.22 knows of a struct it keeps at the class from the beginning of its first look at it, before that is complete;
between two fields it may give way to another thread. A thread that decodes the same struct meanwhile ends its process by
SIGSEGV, and so does a child that is forked then, whenever it decodes one. So the first look is taken here: at import for a
module's own structs (`ready`), and by one thread at a time, which no fork interrupts, for the types of callers. A program that
decodes its own structs elsewhere, in another thread, while the cache meets them for the first time, is not guarded.
"""

from __future__ import annotations

import os
from typing import Any, Final, TypeVar

import msgspec

from pipeline.cache.locks import UninterruptedLock

T = TypeVar("T")

FORK_WAITS_S: Final = 1.0
"""A fork waits so long for a decoder that is being made; that takes a millisecond."""

_making: Final = UninterruptedLock()


def decoder_for(wanted: Any) -> msgspec.json.Decoder[Any]:
    """A decoder of JSON for this type. Raises as msgspec does for a type that it cannot decode, and ReentrantUseError in a signal
    handler that has interrupted the making of one."""
    with _making:
        return msgspec.json.Decoder(wanted)


def ready(struct: T) -> T:
    """`@ready` above a struct: msgspec knows it from here on, for all its functions and all threads. Returns it."""
    decoder_for(struct)
    return struct


class _ForkInOrder:
    """A fork waits for a decoder to be complete. In the child the lock is made anew: see `pipeline.cache.locks`."""

    def __init__(self) -> None:
        self._waited = False

    def before(self) -> None:
        self._waited = not _making.held() and _making.acquire(FORK_WAITS_S)

    def after_in_parent(self) -> None:
        if self._waited:
            self._waited = False
            _making.release()


_order: Final = _ForkInOrder()
os.register_at_fork(before=_order.before, after_in_parent=_order.after_in_parent)
