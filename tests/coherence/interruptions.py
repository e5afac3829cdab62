"""Exceptions that break off what the cache does for a worker, wherever it is: as a task's time limit does, or a killed
greenlet."""

from __future__ import annotations

import ctypes
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from broken_off import BrokenOffError

T = TypeVar("T")


class StoppedError(BaseException):
    """As BrokenOffError, and no Exception: what Ctrl-C is, or a greenlet's end."""


BROKEN_OFF: Final = (BrokenOffError, StoppedError)


def is_broken_off(error: BaseException | None) -> bool:
    """Whether it is one of these, or what the standard library made of one that met it in the middle of something."""
    while error is not None:
        if isinstance(error, BROKEN_OFF):
            return True
        error = error.__context__
    return False


class Interruptions:
    """The interruptions of one worker, in whose thread it must be made. With `pause_s` 0 there are none.

    In the main thread a timer's signal raises, in any other one a thread that does nothing else. Only calls within `allowed`,
    and not within `shielded`, can be broken off: the workload's own records must be whole.
    """

    def __init__(self, pause_s: float, rng: random.Random) -> None:
        self._pause_s = pause_s
        self._rng = rng
        self._open = False
        self._sent = False
        self._gate = threading.Lock()
        self._thread = threading.get_ident()
        self._by_signal = threading.current_thread() is threading.main_thread()
        self._over = threading.Event()
        if pause_s and self._by_signal:
            signal.signal(signal.SIGALRM, self._on_signal)
            signal.setitimer(signal.ITIMER_REAL, self._next_s())
        elif pause_s:
            threading.Thread(target=self._interrupt, name="interruptions", daemon=True).start()

    def allowed(self, call: Callable[[], T]) -> T:
        """The result of `call`, unless it is broken off."""
        if not self._pause_s:
            return call()
        self._sent = False
        self._open = True
        try:
            try:
                return call()
            finally:
                self._shut()
        except BROKEN_OFF:
            self._shut()  # once more: it may have been raised on the way into the first
            raise

    @contextmanager
    def shielded(self) -> Iterator[None]:
        if not self._open:
            yield
            return
        self._shut()
        try:
            yield
        finally:
            self._open = True

    def end(self) -> None:
        self._over.set()
        if self._pause_s and self._by_signal:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _shut(self) -> None:
        """From here on nothing is raised. An exception that was on its way comes to nothing: the call was over before."""
        while True:
            try:
                with self._gate:
                    self._open = False
                if not self._by_signal:
                    _raise_in(self._thread, None)
            except BROKEN_OFF:
                continue
            return

    def _next_s(self) -> float:
        return max(1e-4, self._rng.expovariate(1 / self._pause_s))

    def _on_signal(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._next_s())
        if self._open:
            self._open = False
            raise self._rng.choice(BROKEN_OFF)

    def _interrupt(self) -> None:
        rng = random.Random(self._rng.random())
        while not self._over.wait(rng.expovariate(1 / self._pause_s)):
            with self._gate:
                # Not while a thread is begun: until it runs it goes by the number of the thread that begins it.
                if self._open and not self._sent and not threading._limbo:
                    self._sent = True
                    _raise_in(self._thread, rng.choice(BROKEN_OFF))


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """As soon as that thread runs Python again; None takes back what has not been raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error) if error is not None else None)
