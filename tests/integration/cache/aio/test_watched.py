"""What a watcher is told of `cache.aio`: the steps of a task, in whichever thread they are, within what the task had begun."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest
import redis
from awaiting import BOUND_S
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from pipeline.cache import TwoTierCache
from pipeline.tracing.context import Place
from pipeline.tracing.process import tracer_to
from pipeline.tracing.spans import Span, Unit

MakeCache = Callable[..., TwoTierCache]
PROGRAMS = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


class Watched:
    """A cache of its own, and what it tells."""

    def __init__(self, make: MakeCache) -> None:
        self.units: list[Unit] = []
        self.tracer = tracer_to(self.units.append, {})
        self.cache = make(watcher=self.tracer)

    def named(self, name: str) -> Span:
        (span,) = [span for unit in self.units for span in unit.spans if span.name == name]
        return span


@pytest.fixture
def here(make: MakeCache) -> Watched:
    return Watched(make)


@pytest.fixture
def there(make: MakeCache) -> Watched:
    """As another process has it."""
    return Watched(make)


async def quick() -> str:
    return "value"


def test_each_step_of_a_computation_is_told_within_its_flight(here: Watched) -> None:

    async def main() -> None:
        with here.tracer.unit("asked", here.tracer.root()):
            assert await here.cache.aio.get_or_compute("k", quick) == "value"

    asyncio.run(main())
    flight = here.named("cache.flight")
    assert flight.parent_id == here.named("asked").span_id
    for name in ("cache.lookup", "cache.lease", "cache.compute", "cache.store"):
        assert here.named(name).parent_id == flight.span_id, name
    assert flight.attributes["cache.joined"] is False
    steps = [here.named(name) for name in ("cache.lookup", "cache.lease", "cache.compute", "cache.store")]
    assert all(earlier.end_ns <= later.start_ns for earlier, later in pairwise(steps))


def test_steps_go_on_within_the_span_of_the_program(here: Watched, there: Watched) -> None:
    there.cache.set("k", "value")

    async def main() -> None:
        with use_span(NonRecordingSpan(PROGRAMS)):
            assert (await here.cache.aio.lookup("k")).value == "value"  # type: ignore[union-attr]
            await here.cache.aio.get_or_compute("new", quick)

    asyncio.run(main())
    assert {unit.trace_id for unit in here.units} == {PROGRAMS.trace_id}
    assert [unit.spans[-1].parent_id for unit in here.units] == [PROGRAMS.span_id] * 2
    assert [unit.spans[-1].name for unit in here.units] == ["cache.lookup", "cache.flight"]


def test_a_task_that_waits_for_another_process_has_a_link_to_its_computation(
    here: Watched, there: Watched, client: redis.Redis
) -> None:

    async def main() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow() -> str:
            begun.set()
            await go_on.wait()
            return "value"

        async def ask(watched: Watched, name: str) -> str:
            with watched.tracer.unit(name, watched.tracer.root()):
                return await watched.cache.aio.get_or_compute("k", slow)

        first = asyncio.create_task(ask(there, "first"))
        await asyncio.wait_for(begun.wait(), BOUND_S)
        second = asyncio.create_task(ask(here, "second"))
        async with asyncio.timeout(BOUND_S):
            while int(client.info("clients")["blocked_clients"]) != 1:  # the second waits at the server
                await asyncio.sleep(0.005)
        go_on.set()
        assert await asyncio.gather(first, second) == ["value", "value"]

    asyncio.run(main())
    taken = there.named("cache.lease")
    assert here.named("cache.await").links == [Place(there.units[0].trace_id, taken.span_id, sampled=True)]
    assert here.named("cache.flight").attributes["cache.joined"] is True


def test_what_nobody_traces_is_told_to_nobody(here: Watched) -> None:
    asyncio.run(here.cache.aio.get_or_compute("k", quick))  # type: ignore[arg-type]
    assert here.units == []
