"""The steps of `cache.aio`, as a watcher is told of them: those of a task, and what threads do for it within them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from pipeline.cache.aio.desk import Desk
from pipeline.cache.aio.leading import Brought, Leader
from pipeline.cache.flight.watching import Watcher, bind


def watch_tasks(watcher: Watcher, desk: Desk) -> Callable[..., Leader]:
    """Have the desk's threads tell within what their caller had begun, from now on. Returns the leader that tells of its own
    steps."""
    bind(desk, "run", lambda run: _carrying(watcher, run))

    class WatchedLeader(Leader):
        """A look that tells of itself: `cache.flight`, and of its computation."""

        async def lead(self) -> Brought:
            with watcher.step("cache.flight") as told:
                brought = await super().lead()
                told.note("cache.joined", brought.found.source == "joined")
                return brought

        async def _awaited(self) -> Any:
            with watcher.step("cache.compute"):
                return await super()._awaited()

    return WatchedLeader


def _carrying(watcher: Watcher, run: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(run)
    def watched(call: Callable[[], Any], **options: Any) -> Any:
        return run(watcher.carried(call), **options)

    return watched
