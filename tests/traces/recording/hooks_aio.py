"""Hooks into the calls that are awaited. A task has a number that stands for its thread, in whichever thread its calls run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from weakref import WeakKeyDictionary

from pipeline.cache import AsyncCache
from pipeline.cache.aio.desk import Desk
from pipeline.cache.aio.leading import Leader
from traces.events import Branched, Brought, Computing, Served
from traces.recording.hooking import TASK, Names, newest, now_ns, this_thread, wrap
from traces.recording.recorder import Recorder


def install(recorder: Recorder, names: Names) -> None:
    asked: dict[int, tuple[int, int]] = {}
    """By task: when it asked last, and the number of the view's state then."""
    _tasks(recorder)
    _computations(recorder, names)
    _callers(recorder, asked)
    _joins(recorder, names, asked)


def branch(recorder: Recorder, number: int = 0) -> None:
    """From here on the running code is a task of its own, which knows what the one has seen that it came from."""
    parent, at = this_thread(), now_ns()
    TASK.set(number or -next(recorder.numbers))
    recorder.note(Branched(this_thread(), at, at, parent))


def _tasks(recorder: Recorder) -> None:
    numbers: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
    looks: dict[int, Any] = {}
    """By task: the one that looks for the key of its fetch."""

    def beginning(real: Callable[..., Any]) -> Callable[..., Any]:
        def begin(desk: Desk, work: Coroutine[Any, Any, Any]) -> Any:
            number = -next(recorder.numbers)

            async def branched() -> Any:
                branch(recorder, number)
                return await work

            task = real(desk, branched())
            numbers[task] = number
            return task

        return begin

    def looking(real: Callable[..., Any]) -> Callable[..., Any]:
        def look(face: AsyncCache, *given: Any, **named: Any) -> Any:
            task = real(face, *given, **named)
            looks[this_thread()] = getattr(task, "task", task)  # that of another's look which it shares, if there is one
            return task

        return look

    def fetching(real: Callable[..., Any]) -> Callable[..., Any]:
        async def fetch(face: AsyncCache, key: str, *given: Any, **named: Any) -> Any:
            looks.pop(this_thread(), None)
            found = await real(face, key, *given, **named)
            task = looks.pop(this_thread(), None)
            number = None if task is None else numbers.get(task)
            if number is not None:
                at = now_ns()
                recorder.note(Brought(this_thread(), at, at, key, number))
            return found

        return fetch

    wrap(Desk, "begin", beginning)
    wrap(AsyncCache, "_begin", looking)
    wrap(AsyncCache, "_shared", looking)
    wrap(AsyncCache, "fetch", fetching)


def _callers(recorder: Recorder, asked: dict[int, tuple[int, int]]) -> None:
    """A task gets its number by its first call."""

    def calling(real: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        async def call(face: AsyncCache, *given: Any, **named: Any) -> Any:
            if TASK.get() is None:
                branch(recorder)
            asked[this_thread()] = (now_ns(), face._parts.coherence.view.generation)
            return await real(face, *given, **named)

        return call

    for name in ("get", "lookup", "lookup_many", "fetch", "get_or_compute_many", "set", "set_many", "delete", "invalidate"):
        wrap(AsyncCache, name, calling)
    for name in ("refresh", "as_of"):
        wrap(AsyncCache, name, calling)


def _computations(recorder: Recorder, names: Names) -> None:
    def begins(face: AsyncCache, keys: Any, deps: Any) -> None:
        at, view = now_ns(), face._parts.coherence.view
        number = names.view(view)
        for key in keys if number else ():
            told = (number, key, tuple(deps() if callable(deps) else deps), newest(view))
            recorder.note(Computing(this_thread(), at, at, *told))

    def fetching(real: Callable[..., Any]) -> Callable[..., Any]:
        async def fetch(face: AsyncCache, key: str, compute: Callable[[], Any], *given: Any, **named: Any) -> Any:
            async def computing() -> Any:
                begins(face, (key,), named.get("deps", ()))
                return await compute()

            return await real(face, key, computing, *given, **named)

        return fetch

    def many(real: Callable[..., Any]) -> Callable[..., Any]:
        async def get_or_compute_many(face: AsyncCache, keys: Any, compute: Callable[..., Any], **named: Any) -> Any:
            async def computing(absent: Any) -> Any:
                begins(face, absent, named.get("deps", ()))
                return await compute(absent)

            return await real(face, keys, computing, **named)

        return get_or_compute_many

    wrap(AsyncCache, "fetch", fetching)
    wrap(AsyncCache, "get_or_compute_many", many)


def _joins(recorder: Recorder, names: Names, asked: dict[int, tuple[int, int]]) -> None:
    def with_others(real: Callable[..., Any]) -> Callable[..., Any]:
        async def wait(leader: Leader, *given: Any) -> Any:
            recorder.judged.pop(this_thread(), None)
            brought = await real(leader, *given)
            view = leader._coherence.view
            number = names.view(view)
            if number and brought is not None and brought.found.source == "joined":
                began = int((leader._asking.asked_at_s or 0.0) * 1e9)
                *entry, since = recorder.judged.pop(this_thread(), ((), "", -1, 0, 0))
                told = ("join", number, "joined", leader._asking.key, *entry, since, newest(view), -1, brought.found.degraded)
                recorder.note(Served(this_thread(), began, now_ns(), *told))
            return brought

        return wait

    def sharing(real: Callable[..., Any]) -> Callable[..., Any]:
        def own(face: AsyncCache, brought: Any, asking: Any, kind: Any) -> Any:
            """A value that was computed by a look which had not begun when this caller asked."""
            found = real(face, brought, asking, kind)
            outcome, view = brought.outcome, face._parts.coherence.view
            number = names.view(view)
            if number and outcome is not None and outcome.codec is not None and outcome.as_of is not None:
                began, since = asked[this_thread()]
                known = outcome.as_of
                entry = (outcome.deps, known.epoch, known.seq, known.generation)
                told = ("join", number, "joined", asking.key, *entry, since, newest(view), -1, brought.found.degraded)
                recorder.note(Served(this_thread(), began, now_ns(), *told))
            return found

        return own

    wrap(Leader, "_with_others", with_others)
    wrap(AsyncCache, "_own", sharing)
