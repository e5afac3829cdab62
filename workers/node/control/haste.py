"""Shorter waits for a broker, on connections that are open and those to come: a worker that ends has no time for a stuck one."""

from __future__ import annotations

from typing import Any, Final

from redis.backoff import NoBackoff
from redis.retry import Retry

ENDING_S: Final = 1.0
"""How long one exchange with the broker may take from then on."""


def shorten_waits(connection: Any) -> None:
    """Of this kombu connection to Redis, if it is one. From any thread."""
    transport = getattr(connection, "_transport", None)
    for channel in list(getattr(transport, "channels", None) or ()):
        for pool in (getattr(channel, "_pool", None), getattr(channel, "_async_pool", None)):
            if pool is not None:
                _shorten(pool)


def _shorten(pool: Any) -> None:
    once = Retry(NoBackoff(), 0)
    pool.connection_kwargs.update(socket_timeout=ENDING_S, socket_connect_timeout=ENDING_S, retry=once)
    for connection in [*pool._available_connections, *pool._in_use_connections]:
        connection.socket_timeout = connection.socket_connect_timeout = ENDING_S
        connection.retry = once
        sock = connection._sock
        if sock is not None:
            sock.settimeout(ENDING_S)
