"""A thread that hears what is appended to the log: it makes a process without a node's bus as quick as one that has it.

No part of the proof: docs/coherence.md rests on the lease. A listener that hears nothing, late or twice costs time at most.
"""

from __future__ import annotations

import logging
import random
import threading
import weakref
from collections.abc import Callable
from typing import Final, Protocol

from pipeline.cache.coherence.published import page_in
from pipeline.cache.coherence.tail import Page
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.locks import Lock, begins_anew_in_children, interrupted
from pipeline.cache.server.subscription import Subscription

WAIT_S: Final = 5.0
"""How long one wait for a message takes: so soon the thread ends when its cache was forgotten without being closed."""
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
CLOSE_S: Final = 1.0

logger: Final = logging.getLogger(__name__)


class Hears(Protocol):
    """What is told of the log. Called by the listener's thread; must not raise."""

    def hear(self, page: Page | None) -> None:
        """A page of the log, or None: something was appended, or may have been, and the log says what."""


class Listener:
    """Tells `ears` of what is appended, from `begin` to `close`. Thread-safe.

    Keeps nothing alive: `ears` may own it, and its thread ends some seconds after the last reference is gone. A forked child has
    one that has not begun.
    """

    def __init__(self, subscribe: Callable[[], Subscription], ears: Hears) -> None:
        self._subscribe = subscribe
        self._ears = ears
        self._lock = Lock()
        self._turn: _Turn | None = None
        begins_anew_in_children(self)

    def begin_anew(self) -> None:
        """In a child that was just forked: the thread is not here, and the connection is the parent's."""
        self._turn = None

    @property
    def begun(self) -> bool:
        return self._turn is not None

    @property
    def hears(self) -> bool:
        """Whether it is subscribed now."""
        turn = self._turn
        return turn is not None and turn.subscription is not None

    def begin(self) -> None:
        """Begin to listen, if it has not begun. Waits for nothing, and raises nothing: without a thread there is the lease."""
        if self._turn is not None or interrupted():
            return
        with self._lock:
            if self._turn is not None:
                return
            turn = self._turn = _Turn()
        try:
            turn.thread = threading.Thread(target=_listen, args=(weakref.ref(self), turn), name="cache-listener", daemon=True)
            turn.thread.start()
        except RuntimeError:  # the interpreter is ending, or there can be no more threads
            logger.warning("cache.not_listening: no thread can be started")
        except BaseException:
            turn.ending.set()  # it may run or not
            self._turn = None
            raise

    def close(self) -> None:
        """End the thread and its connection, within a second or so. A later `begin` begins anew."""
        with self._lock:
            turn, self._turn = self._turn, None
        if turn is not None:
            turn.end()

    def subscribed(self) -> Subscription:
        """A new subscription, after which the log is read: no append falls between the two. Raises SharedTierUnavailableError."""
        subscription = self._subscribe()
        self._ears.hear(None)
        return subscription

    def tell(self, message: bytes) -> None:
        self._ears.hear(page_in(message))


class _Turn:
    """One thread's listening."""

    def __init__(self) -> None:
        self.ending = threading.Event()
        self.subscription: Subscription | None = None
        self.thread: threading.Thread | None = None

    def end(self) -> None:
        self.ending.set()
        if (subscription := self.subscription) is not None:
            subscription.hang_up()
        thread = self.thread
        if thread is not None and thread.ident is not None and thread is not threading.current_thread():
            thread.join(CLOSE_S)


def _listen(listening: weakref.ref[Listener], turn: _Turn) -> None:
    pause_s, told = FIRST_PAUSE_S, False
    try:
        while not turn.ending.is_set():
            try:
                if turn.subscription is None:
                    if (listener := listening()) is None:
                        return
                    turn.subscription = listener.subscribed()
                    pause_s, told = FIRST_PAUSE_S, False
                    del listener
                message = turn.subscription.receive(WAIT_S)
                if (listener := listening()) is None:
                    return
                if message is not None:
                    listener.tell(message)
                del listener  # nothing is kept alive while it waits
            except SharedTierUnavailableError as error:
                _close(turn)
                if not told and not turn.ending.is_set():
                    told = True
                    logger.warning("cache.not_listening: %s; what others invalidate is known within the staleness bound", error)
                # At random: many processes lost the same server at the same moment.
                turn.ending.wait(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - guards nothing
                pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
    finally:
        _close(turn)


def _close(turn: _Turn) -> None:
    subscription, turn.subscription = turn.subscription, None
    if subscription is not None:
        subscription.close()
