"""Celery's events of tasks, in batches.

Stock Celery sends them at every turn of the main process's loop: up to three messages a task, which cost that process half as
much again as the task itself. And that process limits a node's throughput.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from celery import bootsteps

FLUSH_S: Final = 0.05
"""The longest wait of an event for others. Monitors see it that much later, with its own time."""
BATCH: Final = 200
"""A batch of this size goes out without further waiting."""

logger: Final = logging.getLogger(__name__)


class EventBatches(bootsteps.StartStopStep):
    """Has a node's dispatcher keep its tasks' events until a timer sends them. Starts anew with each connection.

    Only where there is an event loop, in a pool of processes: in other pools Celery sends each event from its own thread.
    """

    requires = ("celery.worker.consumer.events:Events",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timer_entry: Any = None

    def start(self, c: Any) -> None:
        dispatcher = c.event_dispatcher
        if dispatcher is not None:
            dispatcher._publish = partial(_publish_once, dispatcher._publish)  # noqa: SLF001 - all its ways lead there
        if not c.hub or dispatcher is None:
            return
        dispatcher.on_send_buffered = None
        dispatcher.buffer_limit = BATCH
        self._timer_entry = c.timer.call_repeatedly(FLUSH_S, self._flush, (c,))

    def stop(self, c: Any) -> None:
        if self._timer_entry is not None:
            self._timer_entry.cancel()
            self._timer_entry = None
            self._flush(c)

    def shutdown(self, c: Any) -> None:
        self.stop(c)

    def _flush(self, c: Any) -> None:
        try:
            if c.event_dispatcher is not None:
                c.event_dispatcher.flush()
        except Exception as error:  # noqa: BLE001 - observers must not break the work, whatever a broken connection raises
            logger.warning("events.lost: the broker is out of reach (%s)", type(error).__name__)


def _publish_once(publish: Callable[..., Any], *args: Any, retry: bool = False, **options: Any) -> Any:  # noqa: ARG001
    """Celery retries heartbeats without end, and every other event waits for that, and with it a worker that is told to end while
    its broker is away. An event that cannot be sent is kept for the next connection."""
    return publish(*args, retry=False, **options)
