"""Results of tasks, for callers that wait for them."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final

from celery import Celery
from celery.backends.redis import RedisBackend
from celery.backends.rpc import RPCBackend
from celery.result import AsyncResult

from pipeline.errors import ConfigurationError
from workers.queue.reach import reaching

RESULTS: Final = "the result backend"
DRAIN_S: Final = 0.5

logger: Final = logging.getLogger(__name__)


class QuietResult(AsyncResult):
    """A result that can be dropped after its backend has gone, and waited for anywhere."""

    def outcome(self, timeout_s: float) -> Any:
        """What the task returned, or the error that ended it. Raises celery.exceptions.TimeoutError.

        Also within a task. Celery refuses that, because a task that waits for one of its own worker's may hold the slot which
        that one needs. A caller of this has a bound, and other workers than its own to wait for.
        """
        # An argument, not `allow_join_result`: that one is for the whole process, and other threads have other tasks.
        return self.get(timeout=timeout_s, interval=0.02, propagate=False, disable_sync_subtasks=False)

    @property
    def traceparent(self) -> object:
        """Of the trace that the task is a part of, as its worker has told with the outcome; None if it has not."""
        return (self._cache or {}).get("traceparent")

    def __del__(self) -> None:
        # The library unsubscribes here, and raises when the server is away: no code could catch that, and it would be printed.
        with suppress(Exception):
            super().__del__()


class Mailbox:
    """Outcomes of tasks as futures, for programs that cannot block on each. Thread-safe.

    It has one thread, which lives while a result is awaited and does not keep a program from ending.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._awaited: weakref.WeakSet[Future[Any]] = weakref.WeakSet()
        self._thread: threading.Thread | None = None
        self._closed = False

    def expect(self, result: AsyncResult) -> Future[AsyncResult]:
        """A future that is done when the task is, with its result: ready, so that the backend is not asked for it again.

        Raises QueueUnavailableError; ConfigurationError where results are not kept in Redis: other results are bound to a thread.
        """
        if not isinstance(self._app.backend, RedisBackend):
            raise ConfigurationError(
                "PERSONA_RESULT_URL: asyncio programs, and outcomes as they come, need results in Redis: redis:// or rediss://"
            )
        future: Future[AsyncResult] = Future()
        waiting = weakref.ref(future)

        def arrived(result: AsyncResult) -> None:
            awaited = waiting()
            if awaited is not None and awaited.set_running_or_notify_cancel():
                awaited.set_result(result)

        with self._lock:
            self._awaited.add(future)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._drain, name="mailbox", daemon=True)
                self._thread.start()
        with reaching(RESULTS):
            try:
                result.then(arrived)
            except KeyError:  # as in Ticket.result
                result.then(arrived)
            result.ready()  # for a result that came before the subscription
        return future

    def close(self) -> None:
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is not None:
            thread.join(2 * DRAIN_S + 1)
        self._stop_replies()

    def _stop_replies(self) -> None:
        """Close the connection by which this thread has waited for replies, if results are messages (rpc://): Celery leaves it
        open when the app is closed."""
        consumer: Any = getattr(getattr(self._app._local, "backend", None), "result_consumer", None)  # noqa: SLF001 - only if it was made
        if isinstance(consumer, RPCBackend.ResultConsumer) and consumer._consumer is not None:  # noqa: SLF001 - as `stop` asks
            try:
                consumer.stop()
            except Exception:  # it is given up, whatever its state
                logger.debug("results.close_failed", exc_info=True)

    def _drain(self) -> None:
        consumer: Any = self._app.backend.result_consumer
        while True:
            with self._lock:
                if self._closed or not any(not future.done() for future in self._awaited):
                    self._thread = None
                    return
            try:
                consumer.drain_events(timeout=DRAIN_S)
            except Exception as error:  # noqa: BLE001 - whatever a lost connection raises: each waiting caller has its own bound
                logger.warning("results.connection_lost (%s)", type(error).__name__)
                time.sleep(DRAIN_S)
