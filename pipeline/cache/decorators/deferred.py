"""Results that a function may return before its work is done, and a way to act after the work."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, Final

_LAZY: Final = (types.GeneratorType, types.AsyncGeneratorType, map, filter)
"""Their work has not begun: it is done during iteration."""
_PLAIN: Final = frozenset((type(None), bool, int, float, str, list, dict, tuple))
_PROMISES: Final = (("ready", "get"), ("add_done_callback",), ("addCallback",))
"""Methods that tell other promises: results of Celery and multiprocessing, greenlets, futures of other libraries, Twisted."""


def is_deferred(value: object) -> bool:
    """Whether the value stands for work that is not done."""
    return type(value) not in _PLAIN and (isinstance(value, _LAZY) or can_be_followed(value) or _is_promise(value))


def can_be_followed(value: object) -> bool:
    """Whether `once_done` takes the value: a future of the standard library, or an awaitable."""
    return isinstance(value, Future) or inspect.isawaitable(value)


def _is_promise(value: object) -> bool:
    """Whether other code is at work on it, and it can neither be followed nor awaited here."""
    kind = type(value)
    return any(all(callable(getattr(kind, name, None)) for name in names) for names in _PROMISES)


def give_up(value: object) -> None:
    """Close work that has not begun, so that no warning comes of it later."""
    if isinstance(value, types.CoroutineType | types.GeneratorType):
        value.close()


def once_done(value: Any, then: Callable[[], object]) -> Any:
    """A future or awaitable to return in place of `value`: it has the same outcome, after `then` was called. `then` is not called
    when the work has failed or was cancelled."""
    if isinstance(value, Future):
        return _Follower(value, then)
    asyncio = sys.modules.get("asyncio")  # if it was never imported, none of its futures exists
    if asyncio is not None and asyncio.isfuture(value):
        if not value.done():
            return asyncio.ensure_future(_after(value, then), loop=value.get_loop())
        if not value.cancelled() and value.exception() is None:
            then()
        return value
    return _after(value, then)


async def _after(work: Awaitable[Any], then: Callable[[], object]) -> Any:
    outcome = await work
    then()
    return outcome


class _Follower(Future[Any]):
    """Ends as another future does, after one more call."""

    def __init__(self, source: Future[Any], then: Callable[[], object]) -> None:
        super().__init__()
        self._source = source
        self._then = then
        source.add_done_callback(self._follow)

    def cancel(self) -> bool:
        return self._source.cancel()

    def running(self) -> bool:
        return not self.done() and (self._source.running() or self._source.done())

    def _follow(self, source: Future[Any]) -> None:
        if source.cancelled():
            super().cancel()
            self.set_running_or_notify_cancel()
            return
        error = source.exception()
        if error is None:
            try:
                self._then()
            except BaseException as failure:  # noqa: BLE001 - the waiting caller must hear of it: no other code would
                error = failure
        if error is not None:
            self.set_exception(error)
        else:
            self.set_result(source.result())
