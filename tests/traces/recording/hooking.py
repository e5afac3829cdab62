"""What the hooks share: how a method is wrapped, and how views, buses and pages are named."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Final

from pipeline.cache.coherence import tail as log_tail
from pipeline.cache.coherence.bus import VERSION, NodeBus
from pipeline.cache.coherence.process import Coherence
from pipeline.cache.coherence.view import InvalidationView
from traces.events import NOBODY, Call, Confirmed, Generation, Met, Page, Published, Return, ViewMade
from traces.recording.recorder import Recorder

now_ns = time.monotonic_ns
TASK: Final[ContextVar[int | None]] = ContextVar("task", default=None)
"""The task that the running code belongs to, in whatever thread; see hooks_aio."""


def this_thread() -> int:
    """The thread that steps are told of: a task's number stands for it."""
    task = TASK.get()
    return threading.get_ident() if task is None else task


NO_ASKING: Final = float("-inf")
_KEPT_PAGES: Final = 4


def wrap(owner: type, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put `around(method)` in the method's place. Fails when there is no such method any more."""
    if name not in vars(owner):
        raise AssertionError(f"{owner.__name__} has no {name}: nothing would be written down")
    setattr(owner, name, around(vars(owner)[name]))


def state_of(view: InvalidationView) -> Any:
    return view.__dict__["_state"]


def newest(view: InvalidationView) -> int:
    """The number of the view's newest state."""
    number: int = state_of(view).generation
    return number


def bus_version(coherence: Coherence) -> int:
    return -1 if coherence._bus is None else int(coherence._bus.words[VERSION])


def bus_name(bus: NodeBus | None) -> str:
    return NOBODY if bus is None else str(getattr(bus, "traced", NOBODY))


class Names:
    """The numbers of a process's views and pages."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def enter_view(self, coherence: Coherence, bound_s: float, strict: bool) -> None:
        """From here on what happens to this cache's view is written down."""
        view = coherence.view
        view.__dict__["traced_as"] = (bus_name(coherence._bus), round(bound_s * 1e9), strict)
        view.__dict__["traced_of"] = weakref.ref(coherence)
        self._number(view)

    def view(self, view: InvalidationView) -> int:
        """0 for one that is not entered."""
        life, number = view.__dict__.get("traced", (None, 0))
        if number and life is not self._recorder.life:
            return self._number(view)  # a forked child goes on with its parent's, which is a view of its own from here on
        return int(number)

    def _number(self, view: InvalidationView) -> int:
        recorder = self._recorder
        number = next(recorder.numbers)
        view.__dict__["traced"] = (recorder.life, number)
        thread, at = this_thread(), now_ns()
        recorder.note(ViewMade(thread, at, at, number, *view.__dict__["traced_as"]))
        recorder.note(published(thread, number, state_of(view)))
        recorder.note(Generation(thread, at, at, number, view.__dict__["generation"]))
        recorder.note(Confirmed(thread, at, at, number, view.__dict__["confirmed_at_s"]))
        coherence = view.__dict__["traced_of"]()
        if coherence is not None:
            recorder.note(Met(thread, at, at, number, coherence._contacts))
        return number

    def page(self, page: log_tail.Page, origin: str) -> int:
        """The number of the page; a new one's content is written down."""
        recorder = self._recorder
        known: list[tuple[Any, int]] = getattr(recorder.here, "pages", [])
        for seen, number in known:
            if seen is page:
                return number
        number = next(recorder.numbers)
        at = now_ns()
        (epoch, seq, floor), after, records, restart = page
        recorder.note(Page(this_thread(), at, at, number, origin, epoch, seq, floor, after, list(records), restart))
        recorder.here.pages = [(page, number), *known[: _KEPT_PAGES - 1]]
        return number


def published(thread: int, number: int, known: Any) -> Published:
    at = now_ns()
    tail = known.tail
    return Published(
        thread,
        at,
        at,
        number,
        tail.epoch,
        tail.seq,
        tail.floor,
        known.mark is not None,
        known.pending is not None,
        known.generation,
    )


def told_call(
    recorder: Recorder,
    what: str,
    act: Callable[[], Any],
    *,
    view: int = 0,
    bus: str = NOBODY,
    page: int = 0,
    asked: float = NO_ASKING,
    tail: str = "",
    patterns: Sequence[str] = (),
    count: int = 0,
) -> Any:
    """The result of `act`, with a `Call` before and a `Return` after it. An exception may break it off anywhere, but once."""
    thread, at = this_thread(), now_ns()
    recorder.note(Call(thread, at, at, what, view, bus, page, asked, tail, list(patterns), count))
    try:
        outcome = act()
        recorder.note(Return(thread, at, now_ns(), what, view, outcome if isinstance(outcome, bool) else True))
    except BaseException:
        recorder.note(Return(thread, at, now_ns(), what, view, None))
        raise
    return outcome


def name_bus(bus: NodeBus, recorder: Recorder) -> None:
    bus.traced = f"{os.getpid()}.{next(recorder.numbers)}"  # type: ignore[attr-defined]
