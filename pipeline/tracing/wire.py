"""Units as OTLP has them. The classes are the protocol's own (opentelemetry-proto), which protobuf fills and writes in C.

The SDK's way to the same bytes costs more than ten times as much: `python -m benchmarks tracing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2 as otlp

from pipeline.tracing.spans import Unit

KINDS: Final = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
MESSAGE_ID: Final = "messaging.message.id"
_ERROR: Final = 2


def head(resource: Mapping[str, str]) -> bytes:
    """What comes before the spans of a request: whose they are."""
    attributes = [_attribute(name, value) for name, value in resource.items()]
    return bytes(otlp.ResourceSpans(resource=Resource(attributes=attributes)).SerializeToString())


def scope(version: str) -> bytes:
    """What comes before the spans of their scope."""
    return bytes(otlp.ScopeSpans(scope=InstrumentationScope(name="persona-worker", version=version)).SerializeToString())


def spans_of(unit: Unit) -> bytes:
    """The unit's spans as a part of their scope: parts that follow each other are one, as protobuf has it."""
    trace_id = unit.trace_id.to_bytes(16)
    scope_spans = otlp.ScopeSpans(
        spans=[
            otlp.Span(
                trace_id=trace_id,
                span_id=span.span_id.to_bytes(8),
                parent_span_id=span.parent_id.to_bytes(8) if span.parent_id else b"",
                name=span.name,
                kind=KINDS[span.kind],
                start_time_unix_nano=span.start_ns,
                end_time_unix_nano=span.end_ns,
                attributes=[_attribute(name, value) for name, value in span.attributes.items()]
                + ([KeyValue(key=MESSAGE_ID, value=AnyValue(string_value=span.message_id))] if span.message_id else [])
                + ([_attribute("error.type", span.error)] if span.error else []),
                links=[
                    otlp.Span.Link(trace_id=link.trace_id.to_bytes(16), span_id=link.span_id.to_bytes(8)) for link in span.links
                ],
                status=otlp.Status(code=_ERROR) if span.error else None,
            )
            for span in unit.spans
        ]
    )
    return bytes(scope_spans.SerializeToString())


@lru_cache(maxsize=512, typed=True)
def _attribute(name: str, value: Any) -> KeyValue:
    """Most are said again and again: a message copies what it is given."""
    if isinstance(value, bool):
        held = AnyValue(bool_value=value)
    elif isinstance(value, int):
        held = AnyValue(int_value=value)
    elif isinstance(value, float):
        held = AnyValue(double_value=value)
    else:
        held = AnyValue(string_value=str(value))
    return KeyValue(key=name, value=held)
