"""Hooks into the log, the view, and what a process does by them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.cache import TwoTierCache
from pipeline.cache.coherence.log import RedisInvalidationLog
from pipeline.cache.coherence.process import Coherence
from pipeline.cache.coherence.view import InvalidationView
from traces.events import (
    NOBODY,
    Appended,
    AsOfTaken,
    Confirmed,
    Followed,
    Generation,
    Heard,
    Invalidated,
    Judged,
    LogRead,
    Met,
)
from traces.recording.hooking import Names, newest, now_ns, published, this_thread, told_call, wrap
from traces.recording.recorder import Recorder


def install(recorder: Recorder, names: Names) -> None:
    _log(recorder, names)
    _publications(recorder, names)
    _view(recorder, names)
    _process(recorder, names)


def _log(recorder: Recorder, names: Names) -> None:
    def appending(real: Callable[..., Any]) -> Callable[..., Any]:
        def append(log: Any, patterns: Any) -> Any:
            thread, began = this_thread(), now_ns()
            try:
                tail = real(log, patterns)
                recorder.note(Appended(thread, began, now_ns(), list(patterns), *tail))
            except BaseException:
                recorder.note(Appended(thread, began, now_ns(), list(patterns), "", 0, 0))
                raise
            return tail

        return append

    def reading(real: Callable[..., Any]) -> Callable[..., Any]:
        def read_since(log: Any, known: Any) -> Any:
            thread, began = this_thread(), now_ns()
            epoch, seq = ("", 0) if known is None else (known.epoch, known.seq)
            try:
                page = real(log, known)
            except BaseException:
                recorder.note(LogRead(thread, began, now_ns(), 0, epoch, seq, True))
                raise
            ended = now_ns()
            recorder.note(LogRead(thread, began, ended, names.page(page, "log"), epoch, seq, False))
            return page

        return read_since

    wrap(RedisInvalidationLog, "append", appending)
    wrap(RedisInvalidationLog, "read_since", reading)


def _publications(recorder: Recorder, names: Names) -> None:
    """Each is written down before it is done: so whoever sees it finds it written."""

    def publish_state(view: InvalidationView, known: Any) -> None:
        number = names.view(view)
        if number:
            recorder.note(published(this_thread(), number, known))
        view.__dict__["_state"] = known

    def publish_generation(view: InvalidationView, generation: int) -> None:
        number = names.view(view)
        if number and view.__dict__["generation"] != generation:
            at = now_ns()
            recorder.note(Generation(this_thread(), at, at, number, generation))
        view.__dict__["generation"] = generation

    def publish_moment(view: InvalidationView, moment_s: float) -> None:
        number = names.view(view)
        if number and view.__dict__["confirmed_at_s"] != moment_s:
            at = now_ns()
            recorder.note(Confirmed(this_thread(), at, at, number, moment_s))
        view.__dict__["confirmed_at_s"] = moment_s

    for name, publish in (
        ("_state", publish_state),
        ("generation", publish_generation),
        ("confirmed_at_s", publish_moment),
    ):
        setattr(InvalidationView, name, property(lambda view, name=name: view.__dict__[name], publish))  # type: ignore[misc]

    def follow(coherence: Coherence, version: int) -> None:
        before = coherence.__dict__.get("version")
        number = names.view(coherence.view)
        if number and coherence._bus is not None and before != version:
            at = now_ns()
            recorder.note(Followed(this_thread(), at, at, number, version))
        coherence.__dict__["version"] = version

    def meet(coherence: Coherence, contacts: int) -> None:
        before = coherence.__dict__.get("_contacts")
        number = names.view(coherence.view)
        if number and before != contacts:
            at = now_ns()
            recorder.note(Met(this_thread(), at, at, number, contacts))
        coherence.__dict__["_contacts"] = contacts

    Coherence.version = property(lambda coherence: coherence.__dict__["version"], follow)  # type: ignore[assignment]
    Coherence._contacts = property(lambda coherence: coherence.__dict__["_contacts"], meet)  # type: ignore[assignment]


def _view(recorder: Recorder, names: Names) -> None:
    def calling(what: str, told: Callable[..., dict[str, Any]]) -> None:
        def around(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(view: InvalidationView, *given: Any) -> Any:
                number = names.view(view)
                if not number:
                    return real(view, *given)
                return told_call(recorder, what, lambda: real(view, *given), view=number, **told(*given))

            return call

        wrap(InvalidationView, what, around)

    def confirming(tail: bytes | None, asked: float) -> dict[str, Any]:
        contacts = getattr(recorder.here, "contacts", 0)
        return {"tail": (tail or b"").decode("utf-8", "replace"), "asked": asked, "count": contacts}

    calling("confirm", confirming)
    calling("apply", lambda page, asked, *_: {"page": names.page(page, "made"), "asked": asked})
    calling("begin_at", lambda tail, asked, _: {"tail": bytes(tail).decode(), "asked": asked})
    calling("pend", lambda patterns: {"patterns": tuple(patterns)})
    calling("hear", lambda patterns, count: {"patterns": tuple(patterns), "count": count})
    calling("settle", lambda appended: {"patterns": tuple(appended)})
    calling("settle_heard", lambda count: {"count": count})

    def judging(real: Callable[..., Any]) -> Callable[..., Any]:
        def valid(view: InvalidationView, as_of: Any, key: str, deps: tuple[str, ...]) -> Any:
            number = names.view(view)
            if not number:
                return real(view, as_of, key, deps)
            since, began = newest(view), now_ns()
            outcome = real(view, as_of, key, deps)
            told = (number, key, deps, as_of.epoch, as_of.seq, as_of.generation)
            recorder.note(Judged(this_thread(), began, now_ns(), *told, since, newest(view), outcome))
            recorder.here.judged = (*told, since) if outcome else None
            return outcome

        return valid

    wrap(InvalidationView, "valid", judging)


def _process(recorder: Recorder, names: Names) -> None:
    def making(real: Callable[..., Any]) -> Callable[..., Any]:
        def init(cache: TwoTierCache, l1: Any = None, l2: Any = None, **named: Any) -> None:
            real(cache, l1, l2, **named)
            if l2 is not None:
                names.enter_view(cache._coherence, named.get("staleness_bound_s", 1.0), named.get("strict", False))

        return init

    def knowing(real: Callable[..., Any]) -> Callable[..., Any]:
        def as_of(coherence: Coherence) -> Any:
            began = now_ns()
            known = real(coherence)
            number = names.view(coherence.view)
            if number:
                recorder.note(AsOfTaken(this_thread(), began, now_ns(), number, known.epoch, known.seq, known.generation))
            return known

        return as_of

    def invalidating(real: Callable[..., Any]) -> Callable[..., Any]:
        def invalidate(coherence: Coherence, patterns: tuple[str, ...], wait_s: float) -> Any:
            began = now_ns()
            done = real(coherence, patterns, wait_s)
            number = names.view(coherence.view)
            if number:
                told = (number, list(patterns), done.epoch, done.seq, done.durable, newest(coherence.view))
                recorder.note(Invalidated(this_thread(), began, now_ns(), *told))
            return done

        return invalidate

    def catching_up(real: Callable[..., Any]) -> Callable[..., Any]:
        def catch_up(coherence: Coherence, tail: bytes | None, asked_at_s: float) -> Any:
            recorder.here.contacts = coherence.log.contacts
            return real(coherence, tail, asked_at_s)

        return catch_up

    def hearing(real: Callable[..., Any]) -> Callable[..., Any]:
        def hear(coherence: Coherence, page: Any) -> None:
            began, number = now_ns(), names.view(coherence.view)
            heard = names.page(page, "heard") if number and page is not None else 0
            real(coherence, page)
            if number:
                recorder.note(Heard(this_thread(), began, now_ns(), number, NOBODY, heard))

        return hear

    wrap(TwoTierCache, "__init__", making)
    wrap(Coherence, "catch_up", catching_up)
    wrap(Coherence, "hear", hearing)
    wrap(Coherence, "as_of", knowing)
    wrap(Coherence, "invalidate", invalidating)
