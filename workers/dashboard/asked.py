"""What is asked for most, with what is known of each answer: for the page, and for all pages at once."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec
from flower.views import BaseHandler
from tornado.web import authenticated

from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.server.connection import RedisConnection
from pipeline.hot.entries import HotAnswer, read_hot_answers
from pipeline.settings import Settings
from workers.dashboard.source import BOUND_S, COMMAND_S, FigureSource, Shared

FRESH_S: Final = 3.0
"""However many pages there are and however often each asks, the cache's server is asked so seldom."""
SHOWN: Final = 10


class AskedDocument(msgspec.Struct, frozen=True):
    """`answers` is None where the cache's server does not answer, or refuses."""

    answers: tuple[HotAnswer, ...] | None = None


class AskedSource:
    """Which keys are hot the figures say; reads of their entries by a connection and in a thread of its own."""

    def __init__(self, settings: Settings, figures: FigureSource) -> None:
        """Connects at the first reading."""
        self._connection = RedisConnection(settings.cache_url, timeout_s=COMMAND_S) if figures.configured else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="asked")
        self._namespace = settings.cache_namespace
        self._figures = figures
        self._shared = Shared(self._read, fresh_s=FRESH_S, bound_s=BOUND_S)

    async def latest(self) -> AskedDocument:
        """Never raises because the server is away, or slow."""
        try:
            return await self._shared.latest()
        except (SharedTierUnavailableError, TimeoutError):
            return AskedDocument()

    async def _read(self) -> AskedDocument:
        connection, figures = self._connection, await self._figures.latest()
        if connection is None or not figures.available:
            return AskedDocument()
        hot = [(hot.key, hot.score) for hot in figures.hot[:SHOWN]]
        loop = asyncio.get_running_loop()
        answers = await loop.run_in_executor(self._thread, read_hot_answers, connection, self._namespace, hot)
        return AskedDocument(answers)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._connection is not None:
            self._connection.close()


class Asked(BaseHandler):
    """The document. It has keys, and nothing that anybody wrote or was answered."""

    @authenticated
    async def get(self) -> None:
        document = await self.application.asked.latest()
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.write(msgspec.json.encode(document))
