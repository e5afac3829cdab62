"""The ways in which a call ends before its time. Each runs it once; whether it was broken off."""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from types import FrameType

from celery.exceptions import SoftTimeLimitExceeded

LONGEST_S = 2.0
Call = Callable[[], object]


class StopError(Exception):
    """The exception that a signal handler raises."""


class Signal:
    """A timer's signal at any step, as Ctrl-C or an alarm."""

    def __init__(self, rng: random.Random, longest_s: float) -> None:
        self._rng, self._longest_s = rng, longest_s
        self._armed = False
        signal.signal(signal.SIGALRM, self._raise)

    def _raise(self, _: int, __: FrameType | None) -> None:
        if self._armed:
            self._armed = False
            raise StopError

    def __call__(self, call: Call) -> bool:
        try:
            self._armed = True
            signal.setitimer(signal.ITIMER_REAL, self._rng.uniform(2e-5, self._longest_s))
            call()
            self._armed = False
        except StopError:
            return True
        finally:
            self._armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        return False


class TimeLimit:
    """A task's soft time limit: the pool's parent sends SIGUSR1, and the handler raises in the main thread."""

    def __init__(self, rng: random.Random, longest_s: float) -> None:
        self._rng, self._longest_s = rng, longest_s
        self._armed = False
        signal.signal(signal.SIGUSR1, self._raise)

    def _raise(self, _: int, __: FrameType | None) -> None:
        if self._armed:
            self._armed = False
            raise SoftTimeLimitExceeded

    def __call__(self, call: Call) -> bool:
        after_s = self._rng.uniform(2e-5, self._longest_s)
        timer = threading.Timer(after_s, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        try:
            self._armed = True
            call()
            self._armed = False
        except SoftTimeLimitExceeded:
            return True
        finally:
            self._armed = False
            timer.cancel()
            timer.join()
        return False


class Recursion:
    """The end of the stack, at a random depth of the call."""

    def __init__(self, rng: random.Random, longest_s: float) -> None:  # noqa: ARG002 - made as the others are
        self._rng = rng

    def __call__(self, call: Call) -> bool:
        depth, frame = 0, sys._getframe()
        while frame.f_back is not None:
            depth, frame = depth + 1, frame.f_back

        def deep(frames: int) -> None:
            if frames <= 0:
                call()
            else:
                deep(frames - 1)

        try:
            deep(sys.getrecursionlimit() - depth - self._rng.randrange(4, 60))
        except RecursionError:
            return True
        return False


class Thread:
    """An error that is raised in another thread, as some programs end what takes too long there."""

    def __init__(self, rng: random.Random, longest_s: float) -> None:
        self._rng, self._longest_s = rng, longest_s

    def __call__(self, call: Call) -> bool:
        ended: list[BaseException] = []

        def run() -> None:
            try:
                call()
            except StopError as error:
                ended.append(error)

        # Daemonic: one that is stopped where the interpreter itself keeps a lock must not hold up the end.
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        time.sleep(self._rng.uniform(2e-5, self._longest_s))
        if thread.is_alive() and thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(StopError))
        thread.join(LONGEST_S)
        return bool(ended)


class Greenlet:
    """A greenlet that is killed while it waits, or whose time is over. The process must have been patched at its start."""

    def __init__(self, rng: random.Random, longest_s: float) -> None:
        self._rng, self._longest_s = rng, longest_s

    def __call__(self, call: Call) -> bool:
        import gevent

        after_s = self._rng.uniform(0, self._longest_s)
        if self._rng.random() < 0.5:
            timeout = gevent.Timeout(max(after_s, 1e-4))
            try:
                with timeout:
                    call()
            except gevent.Timeout:
                return True
            return False
        greenlet = gevent.spawn(call)
        gevent.sleep(after_s)
        greenlet.kill(timeout=LONGEST_S)
        return isinstance(greenlet.value, gevent.GreenletExit)


class Task:
    """A task that is cancelled while it awaits, whose time is over, or whose event loop ends: for calls that are awaited. Others
    ask for the same meanwhile, and are not cancelled."""

    def __init__(self, rng: random.Random, longest_s: float) -> None:
        self._rng, self._longest_s = rng, longest_s
        self._loop = asyncio.new_event_loop()

    def __call__(self, call: Callable[[], Coroutine[object, object, object]]) -> bool:
        after_s = self._rng.uniform(0, self._longest_s)
        chance = self._rng.random()
        if chance < 0.25:
            return asyncio.run(self._left(call, after_s))
        ending = self._cancelled if chance < 0.65 else self._over
        return self._loop.run_until_complete(ending(call, after_s))

    def result(self, call: Callable[[], Coroutine[object, object, object]]) -> object:
        """Of a call that nothing breaks off, in the loop whose other tasks were."""
        return self._loop.run_until_complete(asyncio.wait_for(call(), 30 * LONGEST_S))

    async def _cancelled(self, call: Callable[[], Coroutine[object, object, object]], after_s: float) -> bool:
        task, other = asyncio.create_task(call()), asyncio.create_task(call())
        await asyncio.sleep(after_s)
        cancelled = task.cancel()
        await asyncio.wait((task, other))
        if other.cancelled():
            raise AssertionError("the end of one caller was another's, too")
        other.exception()
        return cancelled and task.cancelled()

    async def _over(self, call: Callable[[], Coroutine[object, object, object]], after_s: float) -> bool:
        try:
            async with asyncio.timeout(after_s):
                await call()
        except TimeoutError:
            return True
        return False

    async def _left(self, call: Callable[[], Coroutine[object, object, object]], after_s: float) -> bool:
        """This loop ends in the middle of it."""
        task = asyncio.create_task(call())
        await asyncio.wait((task,), timeout=after_s)
        return not task.done()


WAYS = {"signal": Signal, "time limit": TimeLimit, "recursion": Recursion, "thread": Thread, "greenlet": Greenlet, "task": Task}
