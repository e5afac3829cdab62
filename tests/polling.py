"""Waiting for another thread or process: bounded polls, never a sleep of a guessed length."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

BOUND_S: Final = 20.0
PAUSE_S: Final = 0.01


def until(condition: Callable[[], object], what: str = "the condition", *, bound_s: float = BOUND_S) -> None:
    """Poll until it holds; fail after the bound, saying that `what` did not come about."""
    deadline_s = time.monotonic() + bound_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {bound_s:g} s: {what}"
        time.sleep(PAUSE_S)
