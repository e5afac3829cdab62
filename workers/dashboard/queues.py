"""How many messages wait in the queues: asked for the metrics, and kept for the page while nobody looks.

Flower keeps it, not the nodes: it lives on when no node does, and that is when queues grow; it asks RabbitMQ as well as Redis;
and it is one, where nodes are many. While it does not run the charts have a gap.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final

import redis
from flower.utils.broker import Broker
from tornado.httpclient import HTTPClientError

from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.server.connection import RedisConnection
from pipeline.figures import FigureKeys, look_on
from pipeline.settings import Settings
from workers.queue.dead_letters.letter import DEAD_LETTERS
from workers.queue.failures.box import FAILURES, kept_now

logger: Final = logging.getLogger(__name__)

BOUND_S: Final = 1.0
EVERY_S: Final = 2.5
"""So that each slot of five seconds has a look, also when one of them is late."""
AWAY_S: Final = 10.0
"""How soon after a look in vain the broker is asked again: each one is a line in the log."""


async def queue_lengths(flower: Any) -> dict[str, int]:
    """The lengths of the configured queues: a user cannot choose a label. RabbitMQ is asked by --broker_api. On Redis the list of
    dead letters is asked with them. Empty where the broker does not answer."""
    names = [queue.name for queue in flower.capp.conf.task_queues]
    names += [DEAD_LETTERS] * _is_redis(flower)
    try:
        async with _broker(flower) as broker:
            queues = await asyncio.wait_for(broker.queues(names), BOUND_S)
    except (redis.RedisError, OSError, HTTPClientError, NotImplementedError) as error:
        # A TimeoutError is an OSError; a broker of another kind is not implemented.
        logger.info("dashboard.queues_not_read: %s", type(error).__name__)
        return {}
    return {queue["name"]: queue["messages"] for queue in queues if queue["name"] in names}


async def failed_tasks(flower: Any) -> int | None:
    """How many are kept; None where nobody could be asked, or the broker is not Redis."""
    if not _is_redis(flower):
        return None
    try:
        async with _broker(flower) as broker:
            return int(await asyncio.wait_for(broker.redis.zcount(FAILURES, *kept_now()), BOUND_S))
    except (redis.RedisError, OSError) as error:
        logger.info("dashboard.failed_tasks_not_read: %s", type(error).__name__)
        return None


def _is_redis(flower: Any) -> bool:
    return bool(flower.capp.conf.broker_url.startswith("redis"))


@asynccontextmanager
async def _broker(flower: Any) -> AsyncIterator[Any]:
    """Flower's way to the broker, closed in the end: each has a connection of its own."""
    conf = flower.capp.conf
    api = flower.options.broker_api if flower.transport == "amqp" else None
    options = {"broker_options": conf.broker_transport_options, "broker_use_ssl": conf.broker_use_ssl}
    broker = Broker(flower.broker_uri_with_password, http_api=api or None, **options)
    try:
        yield broker
    finally:
        if (client := getattr(broker, "redis", None)) is not None:
            await client.aclose()


class Onlooker:
    """Looks every 2.5 s how many messages wait, and which nodes fell silent, and has the cache's server keep it: bounded, as the
    figures are. Of one event loop, with a thread of its own; nothing raises because a server is away."""

    def __init__(self, settings: Settings, lengths: Callable[[], Awaitable[dict[str, int]]]) -> None:
        """Connects at the first look. Without a cache's server, or with the figures turned off, it looks at nothing."""
        self._lengths = lengths
        self._keys = FigureKeys(settings.cache_namespace)
        looks = settings.cache_url and settings.figures
        self._connection = RedisConnection(settings.cache_url, timeout_s=BOUND_S) if looks else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="onlooker")
        self._looking: asyncio.Task[None] | None = None
        self._failed = False

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._connection is not None:
            self._looking = loop.create_task(self._look(self._connection))

    async def _look(self, connection: RedisConnection) -> None:
        while True:
            lengths: dict[str, int] = {}
            try:
                lengths = await self._lengths()
                await self._keep(connection, lengths)
            except Exception:  # of a client's that nobody thought of: an observer that ends would be noticed by no one
                logger.warning("dashboard.look_failed", exc_info=True)
            await asyncio.sleep(EVERY_S if lengths else AWAY_S)

    async def _keep(self, connection: RedisConnection, lengths: dict[str, int]) -> None:
        lengths.pop(DEAD_LETTERS, None)
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, look_on, connection, self._keys, lengths)
        except SharedTierUnavailableError as error:
            if not self._failed:
                logger.warning("dashboard.queues_not_kept: the charts of the queues have a gap: %s", error)
            self._failed = True
        else:
            self._failed = False

    def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._connection is not None:
            self._connection.close()
