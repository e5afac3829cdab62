"""A flight of `cache.aio` that its event loop has left behind, as a program has it that ends a loop in the middle of its work."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable

import pytest
from awaiting import BOUND_S

from pipeline.cache import TwoTierCache
from pipeline.tracing.process import tracer_to
from pipeline.tracing.spans import Unit


@pytest.mark.parametrize("watched", [False, True], ids=["untold", "watched"])
def test_it_ends_in_silence_and_its_lease_with_its_time(
    make: Callable[..., TwoTierCache], caplog: pytest.LogCaptureFixture, watched: bool
) -> None:
    units: list[Unit] = []
    tracer = tracer_to(units.append, {})
    cache = make(watcher=tracer) if watched else make()
    begun = asyncio.Event()

    async def endless() -> str:
        begun.set()
        await asyncio.Event().wait()
        return "never"

    async def ask() -> None:
        with tracer.unit("asked", tracer.root()):
            asking = asyncio.ensure_future(cache.aio.get_or_compute("k", endless))
            await asyncio.wait_for(begun.wait(), BOUND_S)
        asking.cancel()  # the flight's own task goes on

    loop = asyncio.new_event_loop()
    loop.run_until_complete(ask())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    with caplog.at_level(logging.CRITICAL, "asyncio"):  # it says that a task was pending, and so it was
        cache._parts.desk.begin_anew()  # lets go of the task
        gc.collect()  # an error of its end, which has no caller, fails this test
    assert cache.get_or_compute("other", lambda: "value") == "value"
