"""For tests of what is awaited: a computation that is held open, and a bounded poll that leaves the loop free."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

BOUND_S: Final = 20.0


class Slow:
    """A computation that runs until it is let go."""

    def __init__(self, value: Any = "computed") -> None:
        self.value = value
        self.calls = 0
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self) -> Any:
        self.calls += 1
        self.begun.set()
        await self.go_on.wait()
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


async def until(condition: Callable[[], bool]) -> None:
    ends_at_s = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < ends_at_s
        await asyncio.sleep(0.001)
