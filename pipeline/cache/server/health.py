"""A server's faults as this process sees them: logged once per cause and change of state, by the server's own code."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

logger: Final = logging.getLogger(__name__)

FORGET_S: Final = 60.0
"""A refusal that was not met again for this long is forgotten: no caller has needed what was refused."""
CONNECT: Final = "connect"
_REACH: Final = "reach"
_HINTS: Final = {"SSLCertVerificationError": " (see ssl_ca_certs in the cache's URL, PERSONA_CACHE_URL)"}


class Health:
    """The refusals that stand, by what was needed (a command, a script, a connection), and whether the server is out of reach.
    Thread-safe; may be re-entered.

    A refusal stands until the same need is met. One warning is logged for each new code, one when the server is lost, and one
    line when all is well again. They hold codes and names of commands: no key, value or address.
    """

    def __init__(self, purpose: str = "cache", *, clock: Callable[[], float] = time.monotonic) -> None:
        """`purpose` begins each log line."""
        self._purpose = purpose
        self._clock = clock
        self._lock = threading.RLock()
        self._codes: dict[str, tuple[str, float]] = {}
        self.ill = False
        """Whether any fault stands. Read without a lock."""

    @property
    def code(self) -> str | None:
        """The code by which the server refuses something that is needed; None if no refusal is known."""
        if not self.ill:
            return None
        now_s = self._clock()
        with self._lock:
            codes = [*self._codes.items()]
            for need in tuple(need for need, (_, at_s) in codes if need != _REACH and now_s - at_s >= FORGET_S):
                del self._codes[need]
            self.ill = bool(self._codes)
            return next((code for need, (code, _) in self._codes.items() if need != _REACH), None)

    def refused(self, need: str, code: str, of: str = "") -> None:
        """The server has refused that need by that code. `of`: the command, if it says more than the need."""
        with self._lock:
            known = any(code == other for other, _ in self._codes.values())
            self._codes[need] = (code, self._clock())
            self.ill = True
        if not known:
            logger.warning("%s.tier_refused: %s (of %s)", self._purpose, code, of or need)

    def lost(self, cause: str) -> None:
        """The server does not answer. `cause` is the name of an error."""
        with self._lock:
            known = _REACH in self._codes
            self._codes[_REACH] = (cause, self._clock())
            self.ill = True
        if not known:
            logger.warning("%s.tier_unreachable: %s%s", self._purpose, cause, _HINTS.get(cause, ""))

    def met(self, need: str = _REACH) -> None:
        """The server has met that need; by default, it has answered."""
        with self._lock:
            if self._codes.pop(need, None) is None:
                return
            self.ill = bool(self._codes)
            well = not self.ill
        if well:
            logger.info("%s.tier_well", self._purpose)
