"""Following the log in a process that is no worker and forks others: a web server's, whose children share the bus."""

from __future__ import annotations

import os
import threading
from typing import Final

from pipeline.cache.coherence.listener import Listener
from pipeline.cache.coherence.registry import beat_every_s
from pipeline.cache.locks import begins_anew_in_children
from workers.install.node import Node
from workers.install.step import follower_and_log

CLOSE_S: Final = 1.0


class Parent:
    """Keeps a bus in step with the log, by a thread that hears and one that asks, from its making until `close` or the end of
    the process. Not among the nodes that `invalidate(wait_s=...)` waits for: it hears no broadcast, and acknowledges none.

    In a forked child there is nothing of it but the bus.
    """

    def __init__(self, node: Node) -> None:
        self._ending = threading.Event()
        self._every_s = beat_every_s(node.settings.staleness_bound_s)
        self._follower, log = follower_and_log("", node.bus, node.settings, registered=False)
        self._listener = Listener(log.subscribe, self._follower) if log is not None else None
        self._thread: threading.Thread | None = threading.Thread(target=self._beat, name="cache-parent", daemon=True)
        begins_anew_in_children(self)
        self._follower.catch_up()  # from here on the bus is not empty: the children begin no listener of their own
        if self._listener is not None:
            self._listener.begin()
        self._thread.start()

    def begin_anew(self) -> None:
        """In a forked child: the threads are not here."""
        self._thread = None

    def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._ending.set()
        if self._listener is not None:
            self._listener.close()
        thread.join(CLOSE_S)

    def _beat(self) -> None:
        pid = os.getpid()
        while not self._ending.wait(self._every_s) and os.getpid() == pid:
            self._follower.beat_if_due(self._every_s)
