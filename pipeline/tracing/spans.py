"""Spans as they are recorded. What one process does for one request is a *unit*: a span and those within it, sent all or none.

A unit is why a trace stays whole when a process is killed. Within it each span's parent is there; the unit's own parent is a span
that was sent before its message was queued. So no span ever waits for a parent that died.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar, Token
from typing import Any, Final, Literal, Self

from pipeline.tracing.context import TRACE_LINK, TRACEPARENT, Place, place_of_owner

Kind = Literal["internal", "server", "client", "producer", "consumer"]
MOST_SPANS: Final = 128
"""Of a unit: what a computation does beyond them is not told."""
MOST_LINKS: Final = 8

_bits: Final = random.getrandbits
_now_ns: Final = time.time_ns


class Span:
    """A step, with when it was and what came of it. `attributes` are numbers, truths, and texts of this project's own; those of
    one name are of one type. `message_id`: that of its message, in the form of a UUID, or ""."""

    __slots__ = ("attributes", "end_ns", "error", "kind", "links", "message_id", "name", "parent_id", "span_id", "start_ns")

    def __init__(self, name: str, parent_id: int, kind: Kind = "internal", start_ns: int = 0) -> None:
        """`parent_id`: 0 for a root."""
        self.name, self.parent_id, self.kind = name, parent_id, kind
        self.span_id = _bits(64) or 1
        self.start_ns, self.end_ns = start_ns or _now_ns(), 0
        self.attributes: dict[str, Any] = {}
        self.links: list[Place] = []
        self.error = self.message_id = ""


class Unit:
    """Spans of one trace that are sent together."""

    __slots__ = ("open", "sampled", "spans", "trace_id")

    def __init__(self, trace_id: int, *, sampled: bool = True) -> None:
        self.trace_id = trace_id
        self.spans: list[Span] = []
        self.sampled = self.open = sampled


class Step:
    """A span while it goes on: `with` it. The outermost of a thread or an asyncio task sends its unit when it ends."""

    __slots__ = ("_sink", "_token", "span", "unit", "well")

    def __init__(self, unit: Unit, span: Span, sink: Callable[[Unit], None] | None) -> None:
        self.unit, self.span, self._sink = unit, span, sink
        self.well = False
        """Set where an exception that ends the step is no failure."""
        self._token: Token[Step | None] | None = None

    @property
    def place(self) -> Place:
        return Place(self.unit.trace_id, self.span.span_id, self.unit.sampled)

    def note(self, name: str, value: Any) -> None:
        self.span.attributes[name] = value

    def link(self, place: Place | None) -> None:
        links = self.span.links
        if place is not None and len(links) < MOST_LINKS and place not in links:
            links.append(place)

    def beside(self, name: str, start_ns: int, end_ns: int, kind: Kind = "internal") -> None:
        """A span that is over, with the parent of this one."""
        span = Span(name, self.span.parent_id, kind, min(start_ns, end_ns))
        span.end_ns = end_ns
        self.unit.spans.append(span)

    def forget(self) -> None:
        """Have the unit not sent."""
        self.unit.open = False

    def __enter__(self) -> Self:
        self._token = _CURRENT.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._token is not None and kind is not GeneratorExit:  # a coroutine thrown away ends in another context
            _CURRENT.reset(self._token)
        span, unit = self.span, self.unit
        span.end_ns = _now_ns()
        if kind is not None and not self.well:
            span.error = kind.__name__
        if not unit.open:
            return
        if len(unit.spans) < MOST_SPANS or self._sink is not None:
            unit.spans.append(span)
        if self._sink is not None:
            unit.open = False
            self._sink(unit)


class Untold:
    """In the place of a step that no trace tells of."""

    __slots__ = ()
    place = None

    def note(self, name: str, value: Any) -> None:
        """Nothing."""

    def link(self, place: Place | None) -> None:
        """Nothing."""

    def beside(self, name: str, start_ns: int, end_ns: int, kind: Kind = "internal") -> None:
        """Nothing."""

    def forget(self) -> None:
        """Nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing."""


UNTOLD: Final = Untold()
_CURRENT: Final[ContextVar[Step | None]] = ContextVar("persona_step", default=None)
current: Final = _CURRENT.get
_CARRIED: Final[ContextVar[Place | None]] = ContextVar("persona_carried", default=None)
"""Where the program's own span was, for a thread that works for another."""


class Tracer:
    """Records spans, and hands each unit to its sink. Thread-safe; it may be made before a fork."""

    def __init__(
        self, sink: Callable[[Unit], None], *, samples: Callable[[int], bool], caller: Callable[[], Place | None] = lambda: None
    ) -> None:
        """`sink` must neither raise nor wait. `samples`: whether a trace that begins here is recorded, by its id. `caller`: the
        place of the program's own span, if it has one."""
        self.sink = sink
        self.hand_on: Callable[[bytes], None] | None = None
        """Takes what another process makes spans of, where there is one."""
        self.samples = samples
        self.caller = caller

    def root(self) -> Place:
        """The place of a trace that begins here; its span is 0."""
        trace_id = _bits(128) or 1
        return Place(trace_id, 0, self.samples(trace_id))

    def here(self) -> Place:
        """Where the calling thread or asyncio task is: in a step of ours, in the program's own span, or where a trace begins."""
        step = current()
        return step.place if step is not None else self._outside() or self.root()

    def headers(self) -> dict[str, str]:
        """What a message bears so that its trace goes on; nothing outside of a trace."""
        step = current()
        place = step.place if step is not None else self._outside()
        return {} if place is None else {TRACEPARENT: str(place)}

    def link_headers(self) -> dict[str, str]:
        """What a message bears that begins a trace of its own, so that it tells from where."""
        place = self.headers().get(TRACEPARENT)
        return {} if place is None else {TRACE_LINK: place}

    def unit(self, name: str, parent: Place, kind: Kind = "internal", *, start_ns: int = 0) -> Step:
        """The outermost step of what is done here, within that place. One that is not sampled is told to no collector, and its
        messages say so."""
        return Step(Unit(parent.trace_id, sampled=parent.sampled), Span(name, parent.span_id, kind, start_ns), self.sink)

    def step(self, name: str, kind: Kind = "internal") -> Step | Untold:
        """A step within the one that goes on in this thread or asyncio task; else within the program's own span; else nothing."""
        outer = current()
        if outer is not None:
            return Step(outer.unit, Span(name, outer.span.span_id, kind), None) if outer.unit.open else UNTOLD
        caller = self._outside()
        return UNTOLD if caller is None else self.unit(name, caller, kind)

    def _outside(self) -> Place | None:
        """The place of the program's own span, of this thread or of the one it works for."""
        return _CARRIED.get() or self.caller()

    def carried(self, call: Callable[[], Any]) -> Callable[[], Any]:
        """That call, to be made by another thread within what goes on in this one."""
        step = current()
        place = self._outside() if step is None else None
        if step is None and place is None:
            return call

        def within() -> Any:
            tokens = _CURRENT.set(step), _CARRIED.set(place)
            try:
                return call()
            finally:
                _CURRENT.reset(tokens[0])
                _CARRIED.reset(tokens[1])

        return within

    def send(self, trace_id: int, spans: Sequence[Span]) -> None:
        """Send spans that are over."""
        unit = Unit(trace_id)
        unit.spans += spans
        self.sink(unit)

    # -- what the cache tells: see pipeline.cache.flight.watching

    def owner(self) -> str | None:
        """A name for a lease of what computes here, which tells others where in which trace that is."""
        step = current()
        if step is None or not step.unit.open:
            return None
        return f"{step.unit.trace_id:032x}-{step.span.span_id:016x}-{secrets.token_hex(4)}"

    def joins(self, owner: str) -> None:
        """The step that goes on waits for that owner."""
        if (step := current()) is not None:
            step.link(place_of_owner(owner))
