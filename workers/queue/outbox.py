"""Messages to the broker for which no caller waits long: notices of invalidations, and answers to be renewed."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final

from celery import Celery
from kombu import Connection, Producer

TRY_S: Final = 1.0
"""How long one step of sending may take on the outbox's own connection."""
TOKEN_S: Final = 0.01
"""How long a caller waits while the broker is known to be stuck: enough to see that it no longer is."""
FLUSH_S: Final = 1.0
"""How long `close`, and with it the end of the program, waits for messages that are not sent yet."""
MOST: Final = 1000
"""The most messages that wait; a further one is dropped."""

_TIMEOUTS: Final = {"amqp": ("read_timeout", "write_timeout"), "redis": ("socket_timeout", "socket_connect_timeout")}
"""What bounds a step of sending, by the kind of broker. Others have bounds of their own."""

logger: Final = logging.getLogger(__name__)

Send = Callable[[Producer], object]
"""Publishes one message by that producer."""


class Outbox:
    """Sends messages in the order in which they were posted, from one thread of this process, over a connection of its own.

    What a caller may rely on: `post` waits no longer than it was told, whatever the broker, its name server or another thread
    does, and raises nothing. A message is sent at most once, unless a connection breaks, and not at all once it is useless or the
    program has ended. A signal handler may call it: a `post` within a `post` waits for no lock. A forked child begins with an
    empty one.
    """

    def __init__(self, app: Celery, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._clock = clock
        self._begin()
        _living.add(self)

    def _begin(self) -> None:
        self._queue: SimpleQueue[_Posted | None] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._flows = True
        self._lost = 0

    def post(self, send: Send, *, wait_s: float, useful_s: float) -> bool:
        """Post a message. Returns whether it was sent within `wait_s`. It is not sent any more when `useful_s` have passed.

        Of several callers that find the broker stuck each waits its own time, all at once; the next ones wait for a moment only.
        """
        posted = _Posted(send, self._clock() + useful_s)
        if self._queue.qsize() >= MOST:
            self._lose("too many wait")
            return False
        self._queue.put(posted)
        if not self._start() or threading.current_thread() is self._thread:  # in a finalizer it would wait for itself
            return False
        if posted.settled.wait(wait_s if self._flows else min(wait_s, TOKEN_S)):
            return posted.sent
        self._flows = False
        return False

    def close(self) -> None:
        """Send the waiting messages, for FLUSH_S at most, and close the connection. A later `post` begins anew."""
        thread, self._thread = self._thread, None
        queue, self._queue = self._queue, SimpleQueue()
        atexit.unregister(self.close)
        queue.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(FLUSH_S)

    def _start(self) -> bool:
        """Whether there is a thread, or will be in a moment."""
        if self._thread is not None:
            return True
        # Not waited for: the holder may be this very thread, which a signal has interrupted.
        if not self._starting.acquire(blocking=False):
            return True
        try:
            if self._thread is None:
                line = _Line(self._app)
                line.prepare()
                thread = threading.Thread(target=self._run, args=(self._queue, line), name="outbox", daemon=True)
                thread.start()
                self._thread = thread
                atexit.register(self.close)
        except RuntimeError:  # the interpreter is shutting down, or there can be no more threads
            self._lose("no thread can be started")
            return False
        finally:
            self._starting.release()
        return True

    def _run(self, queue: SimpleQueue[_Posted | None], line: _Line) -> None:
        while (posted := queue.get()) is not None:
            if self._clock() < posted.useful_until_s:
                self._send(posted, line)
            else:
                self._lose("too late")
            posted.settled.set()
        line.close()

    def _send(self, posted: _Posted, line: _Line) -> None:
        try:
            line.send(posted.send)
        except Exception as error:  # noqa: BLE001 - whatever a broken connection raises: the thread goes on with the next one
            self._flows = False
            self._lose(type(error).__name__)
            return
        posted.sent = self._flows = True
        lost, self._lost = self._lost, 0
        if lost:
            logger.warning("broker.hints_flow: messages are sent again; %d were dropped", lost)

    def _lose(self, reason: str) -> None:
        self._lost += 1  # two threads' losses may count as one: it only serves a line in the log
        if self._lost == 1:
            logger.warning("broker.hints_lost: notices and renewals are not sent (%s); caches heal by their log", reason)


class _Posted:
    """One message and its outcome."""

    __slots__ = ("send", "sent", "settled", "useful_until_s")

    def __init__(self, send: Send, useful_until_s: float) -> None:
        self.send = send
        self.useful_until_s = useful_until_s
        self.settled = threading.Event()
        self.sent = False


class _Line:
    """The outbox's own connection: not one of the app's pool, whose locks are held by callers that wait for a stuck broker."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._connection: Connection | None = None
        self._producer: Producer | None = None

    def prepare(self) -> None:
        """Import what sending needs, in the caller's thread: a child that is forked during another thread's import could not."""
        self._app.amqp.send_task_message  # noqa: B018 - makes it
        self._made().transport_cls  # noqa: B018 - imports it

    def send(self, send: Send) -> None:
        began_s, fresh = time.monotonic(), self._producer is None
        try:
            send(self._opened())
        except Exception:
            self.close()
            if fresh or time.monotonic() - began_s > TRY_S / 2:
                raise
            # The broker had closed it while it was idle.
            try:
                send(self._opened())
            except Exception:
                self.close()
                raise

    def close(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            try:
                connection.release()
            except Exception:  # it is given up, whatever its state
                logger.debug("broker.close_failed", exc_info=True)

    def _opened(self) -> Producer:
        if self._producer is None:
            self._connection = self._made()
            self._connection.connect()  # once: its other ways to connect try for ever
            self._producer = Producer(self._connection.channel(), auto_declare=False)
        return self._producer

    def _made(self) -> Connection:
        kind = self._app.connection_for_write().transport.driver_type
        bounds: dict[str, Any] = dict.fromkeys(_TIMEOUTS.get(kind, ()), TRY_S)
        if kind == "amqp":
            bounds["confirm_publish"] = True  # else what a socket has taken counts as sent, also to a broker that stands still
        return self._app.connection_for_write(connect_timeout=TRY_S, transport_options=bounds)


_living: Final[weakref.WeakSet[Outbox]] = weakref.WeakSet()


def _forget_in_child() -> None:
    for outbox in list(_living):
        atexit.unregister(outbox.close)
        outbox._begin()  # noqa: SLF001 - the thread and the waiting callers are the parent's


os.register_at_fork(after_in_child=_forget_in_child)
