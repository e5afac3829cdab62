"""A computation that is held open until it is told to end."""

from __future__ import annotations

import threading

BOUND_S = 20.0


class Slow:
    """A computation that says when it has begun, and ends when it is told to."""

    def __init__(self, value: object = "computed") -> None:
        self.value = value
        self.calls = 0
        self.failure: BaseException | None = None
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> object:
        self.calls += 1
        self.begun.set()
        assert self.go_on.wait(BOUND_S)
        if self.failure is not None:
            raise self.failure
        return self.value
