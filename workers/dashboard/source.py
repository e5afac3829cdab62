"""The source of the fleet's figures for the page and the metrics."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from pipeline.cache.server.connection import RedisConnection
from pipeline.figures import FigureKeys, FleetFigures, read_figures
from pipeline.settings import Settings
from workers.dashboard.shared import Shared

FRESH_S: Final = 1.0
BOUND_S: Final = 3.0
"""How long one reading may take, and a caller may wait for it."""
COMMAND_S: Final = 1.0
AWAY: Final = FleetFigures(available=False)


class FigureSource:
    """The figures of the last 15 minutes, at most a second old, read in a thread of its own: Flower's threads may all be waiting
    for workers that do not answer. `configured`: whether a cache's server is configured at all."""

    def __init__(self, settings: Settings) -> None:
        """Connects at the first reading."""
        self.configured = bool(settings.cache_url)
        self._connection = RedisConnection(settings.cache_url, timeout_s=COMMAND_S) if self.configured else None
        self._keys = FigureKeys(settings.cache_namespace)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="figures")
        self._shared = Shared(self._read, fresh_s=FRESH_S, bound_s=BOUND_S)

    async def latest(self) -> FleetFigures:
        """Never raises because the server is away, or slow: then the figures are not `available`."""
        if not self.configured:
            return AWAY
        try:
            return await self._shared.latest()
        except TimeoutError:
            return AWAY

    async def _read(self) -> FleetFigures:
        if self._connection is None:
            return AWAY
        return await asyncio.get_running_loop().run_in_executor(self._thread, read_figures, self._connection, self._keys)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._connection is not None:
            self._connection.close()
