"""Where a span is, what a header may say of it, and what goes to a collector."""

from __future__ import annotations

import pytest

from pipeline.errors import ConfigurationError
from pipeline.tracing.context import Place, derived, place_in, place_of_owner
from pipeline.tracing.sending import BATCH_BYTES, Collector, request, resource_of, sampler_of
from pipeline.tracing.spans import MOST_SPANS, Tracer, Unit, current

WELL = f"00-{'ab' * 16}-{'cd' * 8}-01"


def tracer(units: list[Unit], *, caller: Place | None = None, sampled: bool = True) -> Tracer:
    return Tracer(units.append, samples=lambda _: sampled, caller=lambda: caller)


def test_a_place_is_read_as_it_is_written() -> None:
    place = place_in(WELL)
    assert place == Place(int("ab" * 16, 16), int("cd" * 8, 16), sampled=True)
    assert str(place) == WELL
    assert place_in(WELL[:-2] + "00") == place._replace(sampled=False)
    assert place_in("cc" + WELL[2:-2] + "09") == place  # a later version, with flags of its own


@pytest.mark.parametrize(
    "header",
    [None, 7, b"00", "", "00", WELL.upper(), "ff" + WELL[2:], WELL + "-more", WELL[:-1], WELL.replace("ab", "00"),
     WELL.replace("cd", "00"), WELL.replace("-", "_"), WELL.replace("a", "٣", 1), ["x"] * 10_000, "-" * 55],
)  # fmt: skip
def test_a_wrong_header_names_no_place(header: object) -> None:
    assert place_in(header) is None


def test_the_root_of_an_untraced_task_follows_from_its_id() -> None:
    assert derived("one") == derived("one") != derived("two")
    assert place_in(str(derived("\udcff"))) is not None


def raising(told: Tracer) -> None:
    """A step that fails."""
    with told.step("inner") as inner:
        assert place_of_owner(told.owner() or "") == inner.place
        raise KeyError("what a user wrote")


def test_a_unit_is_sent_when_its_outermost_step_ends_and_each_step_has_its_parent() -> None:
    units: list[Unit] = []
    told = tracer(units)
    with told.unit("outer", Place(1, 2)) as outer:
        assert told.headers() == {"traceparent": str(outer.place)}
        with pytest.raises(KeyError):
            raising(told)
        assert units == []
    (unit,) = units
    spans = {span.name: span for span in unit.spans}
    assert (spans["outer"].parent_id, spans["inner"].parent_id) == (2, spans["outer"].span_id)
    assert (spans["inner"].error, spans["outer"].error) == ("KeyError", "")
    assert current() is None
    with told.step("outside"):
        assert told.headers() == {}
    assert len(units) == 1


def test_a_trace_that_is_not_sampled_is_told_to_nobody_and_says_so_to_the_next_process() -> None:
    units: list[Unit] = []
    told = tracer(units, sampled=False)
    with told.unit("outer", told.here()), told.step("inner"):
        assert told.headers()["traceparent"].endswith("-00")
        assert told.owner() is None
    assert units == []


def test_within_the_programs_own_span_a_step_is_a_unit() -> None:
    units: list[Unit] = []
    told = tracer(units, caller=Place(7, 8))
    with told.step("look-up"):
        pass
    assert [(unit.trace_id, [span.parent_id for span in unit.spans]) for unit in units] == [(7, [8])]


def test_a_unit_is_bounded_and_its_outermost_step_is_in_it() -> None:
    units: list[Unit] = []
    told = tracer(units)
    with told.unit("outer", Place(1, 2)):
        for _ in range(2 * MOST_SPANS):
            with told.step("inner"):
                pass
    assert len(units[0].spans) == MOST_SPANS + 1
    assert units[0].spans[-1].name == "outer"


def test_a_request_is_what_the_protocol_reads() -> None:
    pytest.importorskip("opentelemetry.proto", reason="the extra `traces` is not installed")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    from pipeline.tracing import wire

    units: list[Unit] = []
    told = tracer(units)
    for number in range(300):
        with told.unit("outer", Place(1 << 127, 2)) as step:
            step.note("persona.attempt", number)
            step.note("persona.degraded", True)
            step.link(Place(3, 4))
    parts = [wire.spans_of(unit) for unit in units]
    assert sum(map(len, parts)) < BATCH_BYTES
    read = ExportTraceServiceRequest.FromString(request(wire.head({"service.name": "x"}), wire.scope("1"), parts))
    (scope,) = read.resource_spans[0].scope_spans
    assert (scope.scope.name, len(scope.spans)) == ("persona-worker", 300)
    assert [span.attributes[0].value.int_value for span in scope.spans] == list(range(300))
    assert scope.spans[0].links[0].span_id == (4).to_bytes(8)


def test_the_variables_of_opentelemetry_hold() -> None:
    assert Collector.of({}).url == "http://localhost:4318/v1/traces"
    assert Collector.of({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c:1/x/"}).url == "https://c:1/x/v1/traces"
    given = Collector.of({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/p", "OTEL_EXPORTER_OTLP_HEADERS": "a=b,c=d%20e"})
    assert (given.url, given.headers) == ("http://c/p", {"a": "b", "c": "d e"})
    found = resource_of({"OTEL_SERVICE_NAME": "mine", "OTEL_RESOURCE_ATTRIBUTES": "a=b,service.name=not"}, "worker", "n", "1")
    assert (found["service.name"], found["a"]) == ("mine", "b")
    half = sampler_of({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"})
    assert (half(1), half((1 << 64) - 1)) == (True, False)
    assert not sampler_of({"OTEL_TRACES_SAMPLER": "always_off"})(1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://s3cr3t"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://s3cr3t:x"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "s3cr3t"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=s3cr3t%0Ax"),
        ("OTEL_TRACES_SAMPLER", "s3cr3t"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
    ],
)
def test_a_wrong_variable_is_named_and_not_shown(name: str, value: str) -> None:
    environ = {name: value} | ({"OTEL_TRACES_SAMPLER": "traceidratio"} if name.endswith("_ARG") else {})
    with pytest.raises(ConfigurationError, match=name) as refused:
        (sampler_of if "SAMPLER" in name else Collector.of)(environ)
    assert "s3cr3t" not in str(refused.value)
