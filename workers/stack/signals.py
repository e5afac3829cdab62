"""The signals that ask a stack to stop, delivered only when no step is left half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """Between `install` and `restore`, a stop signal raises KeyboardInterrupt (INT) or SystemExit (TERM, HUP: 128 + its
    number) in the main thread; within `deferred` it is only noted. Outside the main thread it does nothing.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.count = 0
        self._depth = 0
        self._before: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        if self._before or threading.current_thread() is not threading.main_thread():
            return
        self.received, self.count = None, 0
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup: the user wants it to be ignored
                self._before[number] = signal.signal(number, self._on_signal)

    def restore(self) -> None:
        while self._before:
            number, before = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if before is None else before)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def raise_received(self) -> None:
        """Raise the exception of a noted signal, if there is one."""
        if self.received is signal.SIGINT:
            raise KeyboardInterrupt
        if self.received is not None:
            raise SystemExit(128 + self.received)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number)
        self.count += 1
        if not self._depth:
            self.raise_received()
