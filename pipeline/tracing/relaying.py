"""What waits to be sent, bounded, and the loop that sends it: a program's, and that of a node's process for spans."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from operator import itemgetter
from typing import Final, Generic, TypeVar

from pipeline.cache.locks import Lock
from pipeline.tracing.sending import BATCH_BYTES, EVERY_S, MOST_BYTES, Sender

TOLD_S: Final = 60.0
LAST_PAUSE_S: Final = 0.05

Item = TypeVar("Item")

logger: Final = logging.getLogger(__name__)


class Waiting(Generic[Item]):
    """Items, the oldest first. Thread-safe; when they are of more than MOST_BYTES the oldest go. A signal handler may put some,
    too: the sum of their sizes is then off by its items until none is left."""

    def __init__(self) -> None:
        self._items: deque[tuple[Item, int]] = deque()
        self._lock = Lock()
        self._bytes = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Item, size_bytes: int) -> None:
        with self._lock:
            self._items.append((item, size_bytes))
            self._bytes += size_bytes
            self._let_go()

    def take(self) -> list[tuple[Item, int]]:
        """A batch: the oldest items, with their sizes."""
        with self._lock:
            return self._taken()

    def put_back(self, taken: list[tuple[Item, int]]) -> None:
        with self._lock:
            self._items.extendleft(reversed(taken))
            self._bytes += sum(map(itemgetter(1), taken))
            self._let_go()

    def _let_go(self) -> None:
        while self._bytes > MOST_BYTES and self._items:
            self._bytes -= self._items.popleft()[1]
            self.dropped += 1

    def _taken(self) -> list[tuple[Item, int]]:
        taken: list[tuple[Item, int]] = []
        size = 0
        while self._items and size < BATCH_BYTES:
            taken.append(self._items.popleft())
            size += taken[-1][1]
        self._bytes = self._bytes - size if self._items else 0
        return taken


def send_all(
    waiting: Waiting[Item],
    sender: Sender,
    head: bytes,
    scope: bytes,
    *,
    encode: Callable[[Item], bytes],
    ended: threading.Event,
    last_s: float,
) -> None:
    """Send what waits, every EVERY_S, until it has ended. Then what is left: at once, also to a collector that was away, and
    again for `last_s` at most. The log says how many items went, and how many the collector did not want: at most once in
    TOLD_S."""
    told, told_at_s, ends_s = 0, -TOLD_S, 0.0
    while not (over := ended.wait(EVERY_S)) or waiting:
        last = over and not ends_s
        if last:
            ends_s = time.monotonic() + last_s
        elif over:
            if time.monotonic() > ends_s:
                break
            time.sleep(LAST_PAUSE_S)
        while waiting and (last or not sender.pausing):
            taken = waiting.take()
            if not sender.send(head, scope, [encode(item) for item, _ in taken]):
                waiting.put_back(taken)
                break
        lost = waiting.dropped + sender.refused
        if lost > told and time.monotonic() - told_at_s >= TOLD_S:
            logger.warning("traces.dropped: %d units of spans so far", lost)
            told, told_at_s = lost, time.monotonic()
    sender.close()
