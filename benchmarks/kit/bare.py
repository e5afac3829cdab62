"""The least that a process can do to be told and then read: one message of the server, one `GET`. What `scale` is measured
against: no cache, no key's lease, nothing judged."""

from __future__ import annotations

import threading
import time
from typing import Final

from benchmarks.kit.board import Board
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.connection import RedisConnection
from pipeline.cache.server.link import encode
from pipeline.cache.server.subscription import Subscription
from pipeline.settings import Settings

BARE_KEY: Final = b"bench:bare"
"""Holds the version, as a number in text. The measuring program sets it, and then invalidates."""
_WAIT_S: Final = 5.0


def read_bare(board: Board, child: int, nap_s: float, settings: Settings, ends_s: float) -> None:
    """Until the board says stop, or that moment: one thread hears the log's channel as a cache's listener does, and the other
    looks every `nap_s`, as a calm reader does, whether something came."""
    connection = RedisConnection(settings.cache_url)
    ask = encode(b"GET", BARE_KEY)
    subscription = connection.subscribe(KeySpace(settings.cache_namespace).notices(connection.database))
    heard = [1]  # the first look is one, too
    threading.Thread(target=_count, args=(subscription, heard), name="bare-listener", daemon=True).start()
    seen = 0
    while not board.stopped and time.monotonic() < ends_s:
        if (now := heard[0]) != seen:
            seen = now
            asked_ns = time.monotonic_ns()
            (version,) = connection.ask(ask, ("GET",))
            board.served(child, int(version or 0), asked_ns, time.monotonic_ns())
        time.sleep(nap_s)
    connection.close()


def _count(subscription: Subscription, heard: list[int]) -> None:
    try:
        while True:
            if subscription.receive(_WAIT_S) is not None:
                heard[0] += 1
    except SharedTierUnavailableError:
        return  # the server has ended, and the measurement with it
