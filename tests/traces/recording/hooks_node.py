"""Hooks into a node's bus, and what keeps it in step with the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.cache.coherence.bus import _BASE as BASE
from pipeline.cache.coherence.bus import _EPOCH, _EPOCH_BYTES, CONFIRMED, SETTLED, VERSION, VOLATILE, NodeBus
from pipeline.cache.coherence.bus import _FLOOR as FLOOR
from pipeline.cache.coherence.bus import _SEQ as SEQ
from pipeline.cache.coherence.node import NodeFollower
from pipeline.cache.coherence.registry import NodeRegistry
from traces.events import BusRead, BusWritten, Heard, Received, TailRead
from traces.recording.hooking import NO_ASKING, Names, bus_name, name_bus, now_ns, this_thread, told_call, wrap
from traces.recording.recorder import Recorder


def install(recorder: Recorder, names: Names) -> None:
    _writing(recorder, names)
    _reading(recorder, names)
    _follower(recorder, names)


def header(bus: NodeBus, version: int, *, broken_off: bool = False) -> tuple[Any, ...]:
    words, begins = bus.words, 8 * _EPOCH
    epoch = bytes(bus._memory[begins : begins + _EPOCH_BYTES]).rstrip(b"\0").decode("ascii", "replace")
    numbers = (words[SEQ], words[FLOOR], words[BASE], words[VOLATILE], words[SETTLED])
    return (bus_name(bus), version, epoch, *numbers, bus.seconds[CONFIRMED], broken_off)


def _writing(recorder: Recorder, names: Names) -> None:
    def making(real: Callable[..., Any]) -> Callable[..., Any]:
        def init(bus: NodeBus, *given: Any, **named: Any) -> None:
            real(bus, *given, **named)
            name_bus(bus, recorder)
            at = now_ns()
            recorder.note(BusWritten(this_thread(), at, at, *header(bus, 0)))

        return init

    def writing(real: Callable[..., Any]) -> Callable[..., Any]:
        @contextmanager
        def write(bus: NodeBus) -> Iterator[None]:
            try:
                with real(bus):
                    yield
                    at = now_ns()
                    recorder.note(BusWritten(this_thread(), at, at, *header(bus, bus.words[VERSION] + 1)))
            except BaseException:
                at = now_ns()
                recorder.note(BusWritten(this_thread(), at, at, *header(bus, bus.words[VERSION], broken_off=True)))
                raise

        return write

    def publishing(real: Callable[..., Any]) -> Callable[..., Any]:
        def publish(bus: NodeBus, page: Any, asked_at_s: float = NO_ASKING) -> None:
            number = names.page(page, "made")
            told_call(recorder, "publish", lambda: real(bus, page, asked_at_s), bus=bus_name(bus), page=number, asked=asked_at_s)

        return publish

    def publishing_volatile(real: Callable[..., Any]) -> Callable[..., Any]:
        def publish_volatile(bus: NodeBus, patterns: Any) -> Any:
            patterns = tuple(patterns)
            return told_call(recorder, "publish_volatile", lambda: real(bus, patterns), bus=bus_name(bus), patterns=patterns)

        return publish_volatile

    def settling(real: Callable[..., Any]) -> Callable[..., Any]:
        def settle_volatile(bus: NodeBus, count: int) -> None:
            told_call(recorder, "settle_volatile", lambda: real(bus, count), bus=bus_name(bus), count=count)

        return settle_volatile

    wrap(NodeBus, "__init__", making)
    wrap(NodeBus, "_writing", writing)
    wrap(NodeBus, "publish", publishing)
    wrap(NodeBus, "publish_volatile", publishing_volatile)
    wrap(NodeBus, "settle_volatile", settling)


def _reading(recorder: Recorder, names: Names) -> None:
    def reading(real: Callable[..., Any]) -> Callable[..., Any]:
        def read(bus: NodeBus, known: Any, volatile_seen: int) -> Any:
            began = now_ns()
            state = real(bus, known, volatile_seen)
            ended = now_ns()
            stands = (bus_name(bus), *(("", 0) if known is None else (known.epoch, known.seq)), volatile_seen)
            if state is None:
                told: tuple[Any, ...] = (-1, 0, False, [], 0, 0, NO_ASKING)
            else:
                page = 0 if state.page is None else names.page(state.page, "bus")
                volatile = (state.volatile, state.volatile_count, state.settled_count)
                told = (state.version, page, state.empty, *volatile, state.confirmed_at_s)
            recorder.note(BusRead(this_thread(), began, ended, *stands, *told))
            return state

        return read

    wrap(NodeBus, "read", reading)


def _follower(recorder: Recorder, names: Names) -> None:
    def receiving(real: Callable[..., Any]) -> Callable[..., Any]:
        def receive(follower: NodeFollower, *given: Any) -> Any:
            began = now_ns()
            notice = real(follower, *given)
            if notice is not None:
                told = (bus_name(follower._bus), list(notice.patterns), notice.epoch, notice.seq)
                recorder.note(Received(this_thread(), began, now_ns(), *told))
            return notice

        return receive

    def beating(real: Callable[..., Any]) -> Callable[..., Any]:
        def beat(registry: NodeRegistry, node: str) -> Any:
            began = now_ns()
            try:
                tail = real(registry, node)
            except BaseException:
                recorder.note(TailRead(this_thread(), began, now_ns(), "beat", node, "", True))
                raise
            told = (tail or b"").decode("utf-8", "replace")
            recorder.note(TailRead(this_thread(), began, now_ns(), "beat", node, told, False))
            return tail

        return beat

    def hearing(real: Callable[..., Any]) -> Callable[..., Any]:
        def hear(follower: NodeFollower, page: Any) -> None:
            began = now_ns()
            heard = 0 if page is None else names.page(page, "heard")
            real(follower, page)
            recorder.note(Heard(this_thread(), began, now_ns(), 0, bus_name(follower._bus), heard))

        return hear

    wrap(NodeFollower, "receive", receiving)
    wrap(NodeFollower, "hear", hearing)
    wrap(NodeRegistry, "beat", beating)
