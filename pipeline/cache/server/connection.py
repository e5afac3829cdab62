"""One Redis, as the cache sees it: bounded calls, failures reported once, and no caller waiting for a server that is away."""

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
from pipeline.cache.server.subscription import Subscription
from pipeline.cache.server.wire import BusyError, UnusableServerError, Wire

PROBE_PATIENCE_S: Final = 0.01
"""How long a caller waits for the probe that it sends: a server that is up answers sooner."""

_REPLICA: Final = frozenset({"READONLY", "MASTERDOWN"})

T = TypeVar("T")


class _Open(NamedTuple):
    """One process's means to talk to the server; of no use to another process."""

    pid: int
    wire: Wire
    commands: Commands


class RedisConnection:
    """The server at a URL, behind a circuit breaker. Opens connections when they are needed; a forked child opens its own.

    Thread-safe; a signal handler or a finalizer may use it in the middle of another call. `url` is redis://, rediss:// or
    unix://, see `check_redis_url`. With `retry_pause_s=0` every call is tried, and waits. `purpose` begins each log line.
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
        """Raises ValueError for an invalid URL; connects to nothing."""
        self._address = Address.parse(url)
        self._timeout_s = timeout_s
        self._lock = Lock()
        self._open: _Open | None = None
        self._always_tries = retry_pause_s == 0
        self._answers = False
        self.made = 0
        """How many connections were opened so far. It never falls, and has risen before anything is read from a new one."""
        self.failures = 0
        """Another number after each call that has failed, whatever the cause."""
        self.probe_patience_s = PROBE_PATIENCE_S
        self.breaker = CircuitBreaker(pause_s=retry_pause_s, clock=clock)
        self.health = Health(purpose, clock=clock)

    @property
    def refused(self) -> str | None:
        """The server's code for the refusal of a command that is needed here; None if none is known."""
        return self.health.code

    @property
    def superseded(self) -> bool:
        """Whether the server has said that it is a replica: then there is a master elsewhere, which takes invalidations that
        do not come here. That is more than being out of reach."""
        return self.health.code in _REPLICA

    @property
    def unbounded(self) -> bool:
        """Whether the URL sets no limit to the connections."""
        return self._address.max_connections is None

    @property
    def database(self) -> int:
        """The number of the database that the URL names."""
        return self._address.database

    def subscribe(self, channel: bytes) -> Subscription:
        """Hear that channel from now on, by a connection apart from all others. Raises SharedTierUnavailableError, at once while
        the server is known to be away; neither failure nor success is told to the breaker: no reader depends on it."""
        if not self.breaker.closed:
            raise SharedTierUnavailableError("Redis was out of reach a moment ago")
        try:
            return Subscription(self._opened().wire.open_apart(), channel)
        except (ReplyError, OSError) as error:
            told = f"refused: {error.code}" if isinstance(error, ReplyError) else f"did not answer: {type(error).__name__}"
            raise SharedTierUnavailableError(f"Redis {told}") from error

    def _opened(self) -> _Open:
        opened = self._open
        if opened is None or opened.pid != os.getpid():
            with self._lock:
                opened = self._open
                if opened is None or opened.pid != os.getpid():
                    # The parent's are dropped: that closes this process's ends and leaves the connections to the parent.
                    wire = Wire(self._address, timeout_s=self._timeout_s, health=self.health, made=self._count_made)
                    opened = self._open = _Open(os.getpid(), wire, Commands(wire))
        return opened

    def _count_made(self) -> None:
        with self._lock:
            self.made += 1

    def call(self, command: Callable[[Commands], T]) -> T:
        """The result of `command(commands)`. Raises SharedTierUnavailableError when Redis is away, slow, full or loading."""
        if not self.breaker.closed:
            self._come_back()
        try:
            result = command(self._opened().commands)
        except (ReplyError, OSError) as error:
            raise self._unavailable(error) from error
        if not self.breaker.closed:
            self.breaker.succeeded()
        return result

    def ask(self, commands: bytes, needs: tuple[str, ...], *, block_s: float = 0.0) -> list[Any]:
        """The replies to as many encoded commands (see `link.encode`) as there are `needs`, the names under which a refusal is
        reported. The commands must bear being sent twice.

        As `call`, with less overhead. The caller checks the replies. `block_s`: how long the server may wait on purpose.
        """
        if not self.breaker.closed:
            self._come_back()
        try:
            replies = self._opened().wire.exchange(commands, needs, block_s=block_s)
        except (ReplyError, OSError) as error:
            raise self._unavailable(error) from error
        if not self.breaker.closed:
            self.breaker.succeeded()
        return replies

    def renounce(self) -> None:
        """Give up every open connection: the reply on one did not fit its command."""
        opened = self._open
        if opened is not None and opened.pid == os.getpid():
            opened.wire.renounce()

    def _unavailable(self, error: ReplyError | OSError) -> SharedTierUnavailableError:
        """Tell the breaker and the log of the error. Returns it as a caller sees it."""
        self.failures += 1
        if isinstance(error, BusyError):
            return SharedTierUnavailableError("every connection to Redis is in use")  # which says nothing about the server
        if isinstance(error, UnusableServerError):
            self._answers = True
            self.breaker.failed()
            return SharedTierUnavailableError(f"Redis refused: {error.code}")
        if isinstance(error, ReplyError):
            # The server is up and refuses this command (full, no right to it, a key of a foreign type): others may succeed.
            self.breaker.succeeded()
            return SharedTierUnavailableError(f"Redis refused: {error.code}")
        self._answers = False
        self.breaker.failed()
        self.health.lost(type(error).__name__)
        return SharedTierUnavailableError(f"Redis did not answer: {type(error).__name__}")

    def _come_back(self) -> None:
        """Raises SharedTierUnavailableError unless the server may be asked again."""
        if not self._came_back():
            self.failures += 1
            raise SharedTierUnavailableError("Redis was out of reach a moment ago; the next try is due within a second")

    def _came_back(self) -> bool:
        """Whether the server answers again, by a probe if one is due. A thread waits for the probe. Its caller, which must not
        pay for a server that is away, waits only for as long as a server that is up takes. If the probe takes longer, the next
        caller finds the server back."""
        if not self.breaker.admits():
            return False
        if self._always_tries or self._answers:
            return True  # a server that refuses does so at once: the caller's own command is the probe
        probe = threading.Thread(target=self._probe, name="cache-probe", daemon=True)
        try:
            probe.start()
        except RuntimeError:  # the interpreter is shutting down
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
