"""What a user was asked about and has not confirmed yet: each may be confirmed once, by the same login, within a while."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

WAITS_S: Final = 120.0
MOST: Final = 256


class Pending(Generic[T]):
    """Holds at most MOST; the oldest go. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: dict[str, tuple[str, T, float]] = {}

    def add(self, user: str, deed: T) -> str:
        """A word by which that user may confirm it, once."""
        now_s, word = self._clock(), secrets.token_urlsafe(24)
        with self._lock:
            self._asked = {known: asked for known, asked in self._asked.items() if asked[2] > now_s}
            while len(self._asked) >= MOST:
                del self._asked[next(iter(self._asked))]
            self._asked[word] = (user, deed, now_s + WAITS_S)
        return word

    def take(self, user: str, word: str) -> T | None:
        """What that word confirms; None if it is another user's, was confirmed before, or is too old."""
        with self._lock:
            asked = self._asked.get(word)
            if asked is None or asked[0] != user:
                return None
            del self._asked[word]
        return asked[1] if asked[2] > self._clock() else None


def mark_of(secret: str | bytes, user: str) -> str:
    """What a page of that user's sends with each request: another site cannot read it, nor another user's page use it."""
    key = secret.encode() if isinstance(secret, str) else secret
    return hmac.new(key, b"fleet-acts\n" + user.encode(), hashlib.sha256).hexdigest()
