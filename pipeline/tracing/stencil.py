"""Units as OTLP has them, by stencils: of each shape one is written by the protocol's own classes, and then only filled in.

Most units are of a few shapes. To fill one in costs a third of what it costs to write it.
"""

from __future__ import annotations

from functools import lru_cache
from operator import itemgetter
from random import getrandbits
from typing import Any, Final
from uuid import uuid4

from pipeline.tracing.context import Place
from pipeline.tracing.spans import Kind, Span, Unit
from pipeline.tracing.wire import spans_of

MOST_SHAPES: Final = 512
_Shape = tuple[str, Kind, str, bool, bool, int, tuple[tuple[str, Any], ...]]
"""What a span has in common with many: name, kind, error, whether it has a parent and a message's id, how many links, and its
attributes. An attribute's values are all of one type: a truth and a number that equals it are one shape."""


class Stencil:
    """The bytes of a unit, with holes for what differs in units that have its shape."""

    def __init__(self, unit: Unit) -> None:
        """No two of the unit's ids and times may be the same."""
        written, holes = spans_of(unit), _filling(unit)
        places = sorted((at, number) for number, hole in enumerate(holes) for at in _places(written, hole))
        template, ended = b"", 0
        for at, number in places:
            template += written[ended:at].replace(b"%", b"%%") + b"%b"
            ended = at + len(holes[number])
        self._template = template + written[ended:].replace(b"%", b"%%")
        self._lengths = tuple(map(len, holes))
        self._ordered = itemgetter(*(number for _, number in places))

    def filled(self, filling: list[bytes]) -> bytes:
        """Raises ValueError if something is of another length."""
        if tuple(map(len, filling)) != self._lengths:
            raise ValueError("a unit of another shape")
        filled: bytes = self._template % self._ordered(filling)
        return filled


def written(unit: Unit) -> bytes:
    """What `pipeline.tracing.wire.spans_of` makes of the unit."""
    shape = tuple(
        [
            (
                span.name,
                span.kind,
                span.error,
                span.parent_id > 0,
                span.message_id != "",
                len(span.links),
                tuple(span.attributes.items()),
            )
            for span in unit.spans
        ]
    )
    return _stencil(shape).filled(_filling(unit))


@lru_cache(maxsize=MOST_SHAPES)
def _stencil(shape: tuple[_Shape, ...]) -> Stencil:
    unit = Unit(_drawn(128))
    for name, kind, error, has_parent, has_message, links, attributes in shape:
        span = Span(name, _drawn(64) if has_parent else 0, kind, _drawn(64))
        span.end_ns, span.error = _drawn(64), error
        span.message_id = str(uuid4()) if has_message else ""
        span.links += [Place(_drawn(128), _drawn(64)) for _ in range(links)]
        span.attributes.update(attributes)
        unit.spans.append(span)
    return Stencil(unit)


def _drawn(bits: int) -> int:
    """A number whose bytes are nowhere else in the unit. 0 would not be written."""
    return getrandbits(bits) or 1


def _filling(unit: Unit) -> list[bytes]:
    """What a unit has in its holes: ids and times as they are written."""
    found = [unit.trace_id.to_bytes(16)]
    for span in unit.spans:
        found += span.span_id.to_bytes(8), span.start_ns.to_bytes(8, "little"), span.end_ns.to_bytes(8, "little")
        if span.parent_id:
            found.append(span.parent_id.to_bytes(8))
        if span.message_id:
            found.append(span.message_id.encode())
        for link in span.links:
            found += link.trace_id.to_bytes(16), link.span_id.to_bytes(8)
    return found


def _places(written: bytes, hole: bytes) -> list[int]:
    found, at = [], written.find(hole)
    while at >= 0:
        found.append(at)
        at = written.find(hole, at + len(hole))
    return found
