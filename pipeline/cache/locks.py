"""Locks on which no thread waits for itself, and which no forked child inherits held.

A signal handler runs in the main thread between any two of its steps, and a finalizer in whichever thread is running. Either may
use the cache while that thread is inside a critical section of it. And a fork copies every lock as it is at that moment, but not
the threads that hold them.
"""

from __future__ import annotations

import os
import threading
import weakref
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Protocol

from pipeline.cache.errors import ReentrantUseError

if TYPE_CHECKING:
    from types import TracebackType


class _Inherited(Protocol):
    """An object that is made anew in a child that was just forked."""

    def begin_anew(self) -> None: ...


# Not a WeakSet: iterating over one fails when another thread adds to it. Copying a set is one step of the interpreter.
_living: Final[set[weakref.ref[Any]]] = set()


def begins_anew_in_children(thing: _Inherited) -> None:
    """Have `thing.begin_anew()` called in each child that is forked while it lives, before anything else runs there."""
    _living.add(weakref.ref(thing, _living.discard))


class Lock:
    """`with lock:`. A thread that holds it already goes straight in.

    So a critical section may be interrupted, between any two of its steps, by a whole other one of the same thread. It must bear
    that: change the shared state in one step, last of all, and only if it is still what was read; or ask `held` before it begins,
    and do less when that is true. It takes no other of these locks, waits for nothing and calls no code of a caller's: so a
    thread that was interrupted inside one may take any other.

    Nor does it hold a loop, or a comprehension, that an `if` or a `while` sends back to its beginning: from Python 3.12 on that
    very step is covered by no `with`, and a signal that raises there would leave the lock held for ever. Such a loop goes into a
    function or a generator expression, whose call is covered. A test reads the sections for it.
    """

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        begins_anew_in_children(self)

    def begin_anew(self) -> None:
        self._lock = threading.RLock()

    def acquire(self, timeout_s: float) -> bool:
        """For what no `with` can hold, such as a fork: whether it was had within that time. Then `release` follows."""
        return self._lock.acquire(timeout=timeout_s)

    def release(self) -> None:
        self._lock.release()

    if TYPE_CHECKING:

        def held(self) -> bool:
            """Whether this very thread is inside. No other thread can change the answer."""

        def __enter__(self) -> bool: ...

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None: ...

    else:
        # The interpreter's own methods, not functions around them: in ours a signal could raise after the lock was taken and
        # before the `with` block that gives it back.
        held = property(attrgetter("_lock._is_owned"))
        __enter__ = property(attrgetter("_lock.__enter__"))
        __exit__ = property(attrgetter("_lock.__exit__"))


class UninterruptedLock(Lock):
    """A Lock for sections that do not bear an interruption: a thread that is already inside gets a ReentrantUseError."""

    __slots__ = ()

    if not TYPE_CHECKING:

        @property
        def __enter__(self):
            if self._lock._is_owned():  # noqa: SLF001 - as above
                raise ReentrantUseError(
                    "a signal handler or finalizer used the cache while its own thread was inside it; let it set a flag instead"
                )
            return self._lock.__enter__


def interrupted() -> bool:
    """Whether this thread is inside a critical section of any cache, where it was interrupted. It must not wait for another
    thread then, which may be waiting for that section to end. Too slow for hot paths."""
    return any(isinstance(thing, Lock) and thing.held() for thing in _alive())


def _alive() -> list[Any]:
    return [thing for thing in (reference() for reference in _living.copy()) if thing is not None]


def _begin_anew_in_child() -> None:
    for thing in _alive():
        thing.begin_anew()


os.register_at_fork(after_in_child=_begin_anew_in_child)
