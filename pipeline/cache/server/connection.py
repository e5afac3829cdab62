"""One Redis, as the cache sees it: calls with a bound, failures told once, and nobody waiting for a server that is away."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.locks import Lock
from pipeline.cache.server.address import Address
from pipeline.cache.server.breaker import CircuitBreaker
from pipeline.cache.server.commands import Commands
from pipeline.cache.server.health import Health
from pipeline.cache.server.link import ReplyError
from pipeline.cache.server.wire import BusyError, UnusableServerError, Wire

PROBE_PATIENCE_S: Final = 0.01
"""How long a caller waits for the probe that he sends: a server that is there takes less."""

_REPLICA: Final = frozenset({"READONLY", "MASTERDOWN"})

T = TypeVar("T")


class _Open(NamedTuple):
    """What a process has to talk to the server with; of no use to another process."""

    pid: int
    wire: Wire
    commands: Commands


class RedisConnection:
    """The server at a URL, behind a circuit breaker. Opens connections when they are needed, and its own in a forked child.

    Thread-safe; a signal handler or a finalizer may use it in the middle of another call. `url` is redis://, rediss:// or
    unix://, see `check_redis_url`. With `retry_pause_s=0` every call is tried, and waits. `purpose` is the first word of what is
    logged.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 0.25,
        retry_pause_s: float = 1.0,
        purpose: str = "cache",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises ValueError for a URL that cannot be one; connects to nothing."""
        self._address = Address.parse(url)
        self._timeout_s = timeout_s
        self._lock = Lock()
        self._open: _Open | None = None
        self._always_tries = retry_pause_s == 0
        self._answers = False
        self.made = 0
        """How many connections were opened so far: it never falls, and has risen before anything is read from a new one."""
        self.probe_patience_s = PROBE_PATIENCE_S
        self.breaker = CircuitBreaker(pause_s=retry_pause_s, clock=clock)
        self.health = Health(purpose, clock=clock)

    @property
    def refused(self) -> str | None:
        """The server's code for what it refuses of what is needed here; None when it refuses nothing, as far as is known."""
        return self.health.code

    @property
    def superseded(self) -> bool:
        """Whether the server has said that it is a replica: then there is a master elsewhere, which takes invalidations that
        cannot be heard of here. That is more than being out of reach."""
        return self.health.code in _REPLICA

    def _opened(self) -> _Open:
        opened = self._open
        if opened is None or opened.pid != os.getpid():
            with self._lock:
                opened = self._open
                if opened is None or opened.pid != os.getpid():
                    # The parent's are dropped: that closes this process's ends of them, and leaves them to the parent.
                    wire = Wire(self._address, timeout_s=self._timeout_s, health=self.health, made=self._count_made)
                    opened = self._open = _Open(os.getpid(), wire, Commands(wire))
        return opened

    def _count_made(self) -> None:
        with self._lock:
            self.made += 1

    def call(self, command: Callable[[Commands], T]) -> T:
        """What `command(commands)` returns. Raises SharedTierUnavailableError when Redis is away, slow, full or loading."""
        if not self.breaker.closed:
            self._come_back()
        try:
            result = command(self._opened().commands)
        except (ReplyError, OSError) as error:
            raise self._unavailable(error) from error
        if not self.breaker.closed:
            self.breaker.succeeded()
        return result

    def ask(self, commands: bytes, needs: tuple[str, ...]) -> list[Any]:
        """The replies to as many encoded commands (see `link.encode`) as there are `needs`, the names by which a refusal is told.
        They must bear being sent twice.

        As `call`, with less on the way. What the replies are is the caller's to check.
        """
        if not self.breaker.closed:
            self._come_back()
        try:
            replies = self._opened().wire.exchange(commands, needs)
        except (ReplyError, OSError) as error:
            raise self._unavailable(error) from error
        if not self.breaker.closed:
            self.breaker.succeeded()
        return replies

    def renounce(self) -> None:
        """Give up every open connection: what came on one was not what was asked for."""
        opened = self._open
        if opened is not None and opened.pid == os.getpid():
            opened.wire.renounce()

    def _unavailable(self, error: ReplyError | OSError) -> SharedTierUnavailableError:
        """The error as a caller sees it, when the breaker and the log know of it."""
        if isinstance(error, BusyError):
            return SharedTierUnavailableError("every connection to Redis is in use")  # which says nothing of the server
        if isinstance(error, UnusableServerError):
            self._answers = True
            self.breaker.failed()
            return SharedTierUnavailableError(f"Redis refused: {error.code}")
        if isinstance(error, ReplyError):
            # It answers, and refuses this command (full, no right to it, a key of a foreign type): others may well succeed.
            self.breaker.succeeded()
            return SharedTierUnavailableError(f"Redis refused: {error.code}")
        self._answers = False
        self.breaker.failed()
        self.health.lost(type(error).__name__)
        return SharedTierUnavailableError(f"Redis did not answer: {type(error).__name__}")

    def _come_back(self) -> None:
        """Raises SharedTierUnavailableError unless the server may be asked again."""
        if not self._came_back():
            raise SharedTierUnavailableError("Redis was out of reach a moment ago; the next try is due within a second")

    def _came_back(self) -> bool:
        """Whether the server answers again, by a probe if one is due. A thread waits for it: of the callers, who are not to pay
        for a server that is away, the one that sends it waits only for as long as a server takes that is there. If it takes
        longer than that, the next caller finds it back."""
        if not self.breaker.admits():
            return False
        if self._always_tries or self._answers:
            return True  # one that refuses does so at once: the caller's own command is the probe
        probe = threading.Thread(target=self._probe, name="cache-probe", daemon=True)
        try:
            probe.start()
        except RuntimeError:  # the interpreter is on its way out
            return False
        probe.join(self.probe_patience_s)
        return self.breaker.closed

    def _probe(self) -> None:
        try:
            self._opened().commands.ping()
        except UnusableServerError:
            self._answers = True
            self.breaker.failed()
        except ReplyError:
            self.breaker.succeeded()
        except OSError:
            self.breaker.failed()
        else:
            self.breaker.succeeded()

    def close(self) -> None:
        """Close this process's sockets. The next call opens them anew."""
        with self._lock:
            opened, self._open = self._open, None
        if opened is not None and opened.pid == os.getpid():
            opened.wire.close()
