"""Hits at the door as spans: written by a stencil, and the same as if each had been written by itself."""

from __future__ import annotations

import random
from uuid import UUID, uuid4

import pytest

pytest.importorskip("opentelemetry.proto", reason="the extra `traces` is not installed")

from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from pipeline.tracing.context import Place, derived
from pipeline.tracing.wire import spans_of
from workers.node.tracing import door

BEGAN_NS, ENDED_NS = 1_790_000_000_123_456_789, 1_790_000_000_123_999_999
QUEUED_S = 1_789_999_999.5
TRACED = Place(0x0102 << 96, 0xFF << 40)


def spans(task_id: str, header: str, source: str = "l1", queued_s: float = QUEUED_S) -> ScopeSpans:
    written = door.spans_of_hits(door._encode((BEGAN_NS, ENDED_NS, [(task_id, header, source, queued_s)])))
    return ScopeSpans.FromString(written)


def by_itself(task_id: str, place: Place, source: str, queued_ns: int) -> ScopeSpans:
    return ScopeSpans.FromString(spans_of(door._unit(task_id, place, source, BEGAN_NS, ENDED_NS, queued_ns)))


def without_own_ids(found: ScopeSpans) -> ScopeSpans:
    for span in found.spans:
        assert len(span.span_id) == 8
        span.span_id = b""
    return found


@pytest.mark.parametrize("queued_s", [0.0, QUEUED_S], ids=["when is not said", "queued"])
@pytest.mark.parametrize("source", ["l1", "l2", "stale"])
def test_a_hit_is_what_it_would_be_written_by_itself(source: str, queued_s: float) -> None:
    draw = random.Random(4)
    for _ in range(200):
        place = Place(draw.getrandbits(draw.choice((8, 128))) or 1, draw.getrandbits(draw.choice((8, 64))) or 1)
        task_id = str(UUID(int=draw.getrandbits(128)))
        found = spans(task_id, str(place), source, queued_s)
        assert len({span.span_id for span in found.spans}) == len(found.spans) == (2 if queued_s else 1)
        expected = by_itself(task_id, place, source, int(queued_s * 1e9))
        assert without_own_ids(found) == without_own_ids(expected)


def test_so_is_one_under_an_id_of_its_senders_own_which_is_not_told() -> None:
    found = spans("order of Kim", str(TRACED))
    assert b"Kim" not in found.SerializeToString()
    assert without_own_ids(found) == without_own_ids(by_itself("order of Kim", TRACED, "l1", int(QUEUED_S * 1e9)))


def test_one_of_an_untraced_caller_is_a_root_and_its_queue_hangs_on_it() -> None:
    task_id = str(uuid4())
    hit, queue = spans(task_id, "").spans
    assert hit.trace_id == queue.trace_id == derived(task_id).trace_id.to_bytes(16)
    assert (hit.parent_span_id, queue.parent_span_id) == (b"", hit.span_id)


def test_one_that_is_not_sampled_is_not_told() -> None:
    assert not spans(str(uuid4()), str(TRACED._replace(sampled=False))).spans


def test_many_are_parts_of_one_scope() -> None:
    hits = [(str(uuid4()), str(TRACED), source, QUEUED_S) for source in ("l1", "l2", "stale") * 3]
    found = ScopeSpans.FromString(door.spans_of_hits(door._encode((BEGAN_NS, ENDED_NS, hits))))
    assert [span.name for span in found.spans] == ["persona.process at the door", "queue"] * 9
