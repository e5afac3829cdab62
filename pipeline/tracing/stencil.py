"""Units of one shape: written once by the protocol's own classes, and then filled in, at a quarter of what writing each costs."""

from __future__ import annotations

from operator import itemgetter

from pipeline.tracing.spans import Unit
from pipeline.tracing.wire import spans_of


class Stencil:
    """The bytes of a unit, with holes for what differs in units that have its shape: as many spans, with the same names, kinds
    and attributes, and texts of the same lengths."""

    def __init__(self, unit: Unit, *holes: bytes) -> None:
        """`holes`: what differs, as this unit has it and as it is written: an id by its bytes, a time by its eight bytes from the
        lowest on, a text in UTF-8. Raises ValueError if one is not there, or may be part of another."""
        written = spans_of(unit)
        places = sorted((at, number) for number, hole in enumerate(holes) for at in _places(written, hole))
        if len({number for _, number in places}) < len(holes):
            raise ValueError("a hole is not in the unit as it is written")
        template, ended = b"", 0
        for at, number in places:
            if at < ended:
                raise ValueError("two holes meet")
            template += written[ended:at].replace(b"%", b"%%") + b"%b"
            ended = at + len(holes[number])
        self._template = template + written[ended:].replace(b"%", b"%%")
        self._lengths = tuple(map(len, holes))
        self._ordered = itemgetter(*(number for _, number in places))

    def filled(self, *values: bytes) -> bytes:
        """The bytes of the unit that has these in the place of the holes. Raises ValueError if one is of another length."""
        if tuple(map(len, values)) != self._lengths:
            raise ValueError(f"lengths {tuple(map(len, values))}: expected {self._lengths}")
        filled: bytes = self._template % self._ordered(values)
        return filled


def _places(written: bytes, hole: bytes) -> list[int]:
    found, at = [], written.find(hole)
    while at >= 0:
        found.append(at)
        at = written.find(hole, at + len(hole))
    return found
