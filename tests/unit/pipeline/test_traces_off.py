"""Traces that are off cost nothing; that are on without what they need, they are refused in a sentence; and their page holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from programs import run_program
from ruamel.yaml import YAML

from pipeline.cache import LocalCache, TwoTierCache
from pipeline.tracing.spans import Tracer, Unit
from workers.client import PersonaClient

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "traces.md").read_text(encoding="utf-8")

OFF = """
    import sys
    import workers.client
    from pipeline.settings import load_settings
    with workers.client.PersonaClient(load_settings({"PERSONA_TRACES": "0"})) as client:
        client.pipeline.process("What is off?", "calm-flowing-planning")
    loaded = {name for name in sys.modules if name.startswith(("pipeline.tracing.", "opentelemetry.proto"))}
    print(sorted(loaded))
"""
WITHOUT = """
    import sys
    sys.modules["opentelemetry"] = None
    from pipeline.errors import MissingExtraError
    from pipeline.settings import load_settings
    from workers.client import PersonaClient
    try:
        PersonaClient(load_settings({"PERSONA_TRACES": "1"}))
    except MissingExtraError as error:
        print(error)
"""


@pytest.mark.slow
def test_off_nothing_of_it_is_loaded() -> None:
    """redis-py itself looks for OpenTelemetry's API, and takes it where it is installed."""
    done = run_program(OFF)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.slow
def test_on_without_the_extra_is_one_sentence_that_says_what_to_install() -> None:
    done = run_program(WITHOUT)
    assert "pip install 'persona-worker[traces]'" in done.stdout, done.stderr
    assert done.stdout.startswith("PERSONA_TRACES needs opentelemetry")


def test_off_a_cache_and_a_client_are_bound_to_what_they_were() -> None:
    """Nothing stands in the way of a step, not even a look whether somebody watches; and on, nothing in that of a hit of L1."""
    bare, units = TwoTierCache(LocalCache(10)), list[Unit]()
    watched = TwoTierCache(LocalCache(10), watcher=Tracer(units.append, samples=lambda _: True))
    for part in ("_tiers", "_flight", "_filling"):
        bound = {name for name in vars(getattr(watched, part)) if callable(vars(getattr(watched, part))[name])}
        assert bound - vars(getattr(bare, part)).keys(), part
    for name in ("get", "lookup", "fetch"):
        assert name not in vars(watched)
    assert "lookup" not in vars(watched._tiers)
    assert "submit_request" not in vars(PersonaClient())


def test_a_hit_of_l1_is_not_told_of_and_a_miss_is_with_its_steps() -> None:
    units: list[Unit] = []
    told = Tracer(units.append, samples=lambda _: True)
    cache = TwoTierCache(LocalCache(10), watcher=told)
    with told.unit("outer", told.root()):
        for _ in range(2):
            assert cache.get_or_compute("user:canary", lambda: "canary") == "canary"
    steps = ["cache.lookup", "cache.store", "cache.compute", "cache.flight", "outer"]
    assert [span.name for span in units[0].spans] == steps
    assert "canary" not in repr([span.attributes for span in units[0].spans])


def test_in_an_app_of_ones_own_the_steps_are_within_the_programs_span() -> None:
    """Whichever SDK has opened it: here none, but its API's own carrier of a place."""
    pytest.importorskip("opentelemetry.trace", reason="the extra `traces` is not installed")
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

    from pipeline.tracing.caller import place_of_caller

    units: list[Unit] = []
    cache = TwoTierCache(LocalCache(10), watcher=Tracer(units.append, samples=lambda _: True, caller=place_of_caller))
    cache.get_or_compute("outside", lambda: 1)
    assert units == []
    with use_span(NonRecordingSpan(SpanContext(5, 6, is_remote=False, trace_flags=TraceFlags(1)))):
        cache.get_or_compute("inside", lambda: 1)
    assert {unit.trace_id for unit in units} == {5}
    outermost = [unit.spans[-1] for unit in units]
    assert {(span.name, span.parent_id) for span in outermost} == {("cache.lookup", 6), ("cache.flight", 6)}


def test_the_pages_compose_file_goes_over_the_projects() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    yaml = YAML(typ="safe")
    over = yaml.load(text)["services"]
    base = yaml.load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    worker = over["worker"]
    assert "worker" in base["services"]
    assert set(over["jaeger"]["networks"]) <= base["networks"].keys()
    assert (ROOT / "requirements" / f"{worker['build']['args']['LOCK']}.lock").exists()
    assert worker["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://jaeger:4318"
    assert over["jaeger"]["image"].count(":") == 1


def test_the_lock_of_traces_is_that_of_the_image_and_no_more_than_it_needs() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^[a-z0-9._-]+==\S+", (ROOT / "requirements" / name).read_text(encoding="utf-8"), re.MULTILINE))

    assert pins("runtime.lock") < pins("traces.lock")
    more = {pin.partition("==")[0] for pin in pins("traces.lock") - pins("runtime.lock")}
    assert more == {"opentelemetry-api", "opentelemetry-proto", "protobuf"}


def test_every_span_has_its_row_on_the_page() -> None:
    sources = [*(ROOT / "pipeline" / "tracing").glob("*.py"), *(ROOT / "workers").rglob("tracing*/*.py"),
               ROOT / "workers/client/tracing.py", ROOT / "pipeline/cache/flight/watching.py"]  # fmt: skip
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    names = set(re.findall(r'(?:step|_noting|unit|Span|beside)\((?:watcher, )?"([a-z][a-z. ]+)"', text))
    assert {"cache.lookup", "persona.model", "persona.submit", "queue"} <= names
    assert {name for name in names if f"`{name}`" not in PAGE} == set()
