"""Units filled into stencils: byte for byte what the protocol's classes write."""

from __future__ import annotations

import random
from uuid import UUID

import pytest

pytest.importorskip("opentelemetry.proto", reason="the extra `traces` is not installed")

from pipeline.tracing.context import Place
from pipeline.tracing.spans import Span, Unit
from pipeline.tracing.stencil import Stencil, written
from pipeline.tracing.wire import spans_of

NAMES = ("cache.lookup", "100 % of a step", "%b", "persona.model")
KINDS = ("internal", "client", "consumer")
NOTES = {
    "persona.source": ["l1", "l2", "아니", "%s"],
    "persona.attempt": [1, 2, 300],
    "cache.joined": [True, False],
    "share": [0.0, 0.5],
}


def unit_of(draw: random.Random) -> Unit:
    def number(bits: int) -> int:
        """Large and small: protobuf leaves a 0 out, and writes others as long as they are."""
        return draw.getrandbits(draw.choice((1, 7, bits))) or 1

    unit = Unit(number(128))
    for _ in range(draw.randrange(1, 8)):
        span = Span(draw.choice(NAMES), draw.choice((0, number(64))), draw.choice(KINDS), number(62))  # type: ignore[arg-type]
        span.span_id, span.end_ns, span.error = number(64), number(62), draw.choice(("", "OSError"))
        span.message_id = draw.choice(("", str(UUID(int=draw.getrandbits(128)))))
        span.links += [Place(number(128), number(64)) for _ in range(draw.choice((0, 0, 1, 3)))]
        for name in draw.sample(list(NOTES), draw.randrange(len(NOTES))):
            span.attributes[name] = draw.choice(NOTES[name])
        unit.spans.append(span)
    return unit


def test_a_filled_stencil_is_what_would_be_written() -> None:
    draw = random.Random(7)
    for _ in range(2000):
        unit = unit_of(draw)
        assert written(unit) == spans_of(unit)
        unit.trace_id, unit.spans[0].span_id = draw.getrandbits(128) or 1, draw.getrandbits(64) or 1
        assert written(unit) == spans_of(unit)  # of a shape that is known


def test_a_unit_of_another_shape_does_not_fit() -> None:
    draw = random.Random(8)
    unit = unit_of(draw)
    with pytest.raises(ValueError, match="another shape"):
        Stencil(unit).filled([b"short"])
