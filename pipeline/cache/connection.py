"""One Redis, as the cache sees it: calls with a bound, failures told once, and nobody waiting for a server that is away."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pipeline.cache.breaker import CircuitBreaker
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.locks import Lock
from pipeline.cache.wire import Wire

PROBE_PATIENCE_S: Final = 0.01
"""How long a caller waits for the probe that he sends: a server that is there takes less."""

S = TypeVar("S")
T = TypeVar("T")


class _Open(NamedTuple):
    """What a process has to talk to the server with; of no use to another process."""

    pid: int
    client: redis.Redis
    wire: Wire


class RedisConnection:
    """A client that is made on first use and anew in a forked child, behind a circuit breaker.

    Thread-safe. `url` is one of redis-py: redis://, rediss:// or unix://. With `retry_pause_s=0` every call is tried, and waits.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 0.25,
        retry_pause_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._lock = Lock()
        self._open: _Open | None = None
        self._always_tries = retry_pause_s == 0
        self.probe_patience_s = PROBE_PATIENCE_S
        self.breaker = CircuitBreaker(pause_s=retry_pause_s, clock=clock)

    def client(self) -> redis.Redis:
        """The client of this process. Commands on it are neither bounded by the breaker nor translated."""
        return self._opened().client

    def _opened(self) -> _Open:
        opened = self._open
        if opened is None or opened.pid != os.getpid():
            with self._lock:
                opened = self._open
                if opened is None or opened.pid != os.getpid():
                    # The parent's client is dropped without being closed: its sockets are the parent's too.
                    client = redis.Redis.from_url(
                        self._url,
                        socket_timeout=self._timeout_s,
                        socket_connect_timeout=self._timeout_s,
                        socket_keepalive=True,
                        # One more try, at once, on a new connection: a server that was restarted has closed the pooled
                        # ones. Not after a time-out: the second would double what the caller waits.
                        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
                        client_name="persona-cache",
                    )
                    opened = self._open = _Open(os.getpid(), client, Wire(client))
        return opened

    def call(self, command: Callable[[redis.Redis], T]) -> T:
        """What `command(client)` returns. Raises SharedTierUnavailableError when Redis is away, slow, full or loading."""
        return self._bounded(command, self.client)

    def ask(self, command: bytes) -> Any:
        """What the server answers to one encoded command (see `wire.encode`), which must bear being sent twice; as bytes.

        As `call`, at less than half of its cost.
        """
        return self._bounded(lambda opened: opened.wire.ask(command), self._opened)

    def _bounded(self, command: Callable[[S], T], reach: Callable[[], S]) -> T:
        if not self.breaker.closed and not self._came_back():
            raise SharedTierUnavailableError("Redis was out of reach a moment ago; the next try is due within a second")
        try:
            result = command(reach())
        except redis.ResponseError as error:
            # It answers, and refuses this command (full, read-only, a key of a foreign type): others may well succeed.
            self.breaker.succeeded()
            raise SharedTierUnavailableError(f"Redis refused: {error}") from error
        except (redis.RedisError, OSError) as error:
            self.breaker.failed()
            raise SharedTierUnavailableError(f"Redis did not answer: {type(error).__name__}") from error
        self.breaker.succeeded()
        return result

    def _came_back(self) -> bool:
        """Whether the server answers again, by a probe if one is due. A thread waits for it: of the callers, who are not to pay
        for a server that is away, the one that sends it waits only for as long as a server takes that is there. If it takes
        longer than that, the next caller finds it back."""
        if not self.breaker.admits():
            return False
        if self._always_tries:
            return True
        probe = threading.Thread(target=self._probe, name="cache-probe", daemon=True)
        try:
            probe.start()
        except RuntimeError:  # the interpreter is on its way out
            return False
        probe.join(self.probe_patience_s)
        return self.breaker.closed

    def _probe(self) -> None:
        try:
            self.client().ping()
        except redis.ResponseError:
            self.breaker.succeeded()
        except (redis.RedisError, OSError):
            self.breaker.failed()
        else:
            self.breaker.succeeded()

    def close(self) -> None:
        """Close this process's sockets. The next call opens them anew."""
        with self._lock:
            opened, self._open = self._open, None
            if opened is not None and opened.pid == os.getpid():
                opened.wire.close()
                opened.client.close()
