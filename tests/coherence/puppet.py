"""A process with a cache that does one thing at a time and can be held in the middle of it."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final, Literal

from faults import SteppedRedisCache, nothing, step_into_log
from forked import fresh_processes

from pipeline.cache import MISS, LocalCache, TwoTierCache

Point = Literal["computing", "routed", "read", "writing", "appending", "appended"]
"""Where it can be held: in a computation; between routing and response; after a read of L2 and before what follows; before a
write to L2; before and after an append to the log."""

ANSWER_TIMEOUT_S: Final = 20.0


class Puppet:
    """The process as its test sees it. `bound_s` is 0 for all practical purposes: every read asks Redis, and may then be served
    from L1."""

    def __init__(self, redis_url: str, namespace: str, bound_s: float = 1e-9) -> None:
        fresh = fresh_processes()
        self._here, there = fresh.Pipe()
        self._process = fresh.Process(target=_perform, args=(there, redis_url, namespace, bound_s), daemon=True)
        self._process.start()
        there.close()

    def read(self, key: str) -> tuple[str, Any]:
        """Source and value; `miss` and None."""
        found: tuple[str, Any] = self._call("read", key)
        return found

    def compute(self, key: str, value: object, *deps: str) -> tuple[str, Any]:
        found: tuple[str, Any] = self._call("compute", key, value, *deps)
        return found

    def compute_reading(self, key: str, value: object, *deps: str) -> tuple[str, Any]:
        """The same, and the computation's last step is to read something else through the cache: it learns of new records."""
        found: tuple[str, Any] = self._call("compute_reading", key, value, *deps)
        return found

    def respond(self, routing_now: str) -> tuple[str, Any]:
        """The response `response:r` to the routing `routing:r`, which computes to `routing_now`."""
        found: tuple[str, Any] = self._call("respond", routing_now)
        return found

    def set(self, key: str, value: object) -> bool:
        durable: bool = self._call("set", key, value)
        return durable

    def invalidate(self, *patterns: str) -> tuple[str, int, bool]:
        """Epoch, seq, durable."""
        done: tuple[str, int, bool] = self._call("invalidate", *patterns)
        return done

    def begin(self, point: Point, what: str, *given: object) -> None:
        """Begin one of the above, and return when it is held at that point for the first time."""
        self._here.send((point, what, given))
        assert self._receive() == ("held", point), f"{what} did not come to the point {point!r}"

    def finish(self) -> Any:
        """Let go, and return what came of it."""
        self._here.send("release")
        return self._result()

    def close(self) -> None:
        self._here.close()
        self._process.join(ANSWER_TIMEOUT_S)

    def _call(self, what: str, *given: object) -> Any:
        self._here.send(("", what, given))
        return self._result()

    def _result(self) -> Any:
        kind, result = self._receive()
        assert kind == "done", f"{kind}: {result}"
        return result

    def _receive(self) -> tuple[str, Any]:
        assert self._here.poll(ANSWER_TIMEOUT_S), "the process does not answer"
        answer: tuple[str, Any] = self._here.recv()
        return answer


class _Stage:
    """The code that runs in the process."""

    def __init__(self, connection: Connection, cache: TwoTierCache, l2: SteppedRedisCache) -> None:
        self._connection = connection
        self._cache = cache
        self.point = ""
        log = step_into_log(cache)
        log.before_append = self._hold_at("appending")
        log.after_append = self._hold_at("appended")
        l2.after_read = self._hold_at("read")
        l2.before_write = self._hold_at("writing")

    def read(self, key: str) -> tuple[str, Any]:
        found = self._cache.lookup(key)
        return ("miss", None) if found is MISS else (found.source, found.value)

    def compute_reading(self, key: str, value: object, *deps: str) -> tuple[str, Any]:
        return self.compute(key, value, *deps, last_step=lambda: self._cache.lookup("something else"))

    def compute(self, key: str, value: object, *deps: str, last_step: Callable[[], object] = nothing) -> tuple[str, Any]:
        def computation() -> object:
            self._hold_at("computing")()
            last_step()
            return value

        found = self._cache.fetch(key, computation, deps=deps)
        return found.source, found.value

    def respond(self, routing_now: str) -> tuple[str, Any]:
        as_of = self._cache.as_of()
        routing = self._cache.get_or_compute("routing:r", lambda: routing_now, as_of=as_of)
        self._hold_at("routed")()
        found = self._cache.fetch("response:r", lambda: f"by {routing}", deps=("routing:r",), as_of=as_of)
        return found.source, found.value

    def set(self, key: str, value: object) -> bool:
        return self._cache.set(key, value).durable

    def invalidate(self, *patterns: str) -> tuple[str, int, bool]:
        done = self._cache.invalidate(*patterns)
        return done.epoch, done.seq, done.durable

    def _hold_at(self, point: str) -> Callable[[], None]:
        def hold() -> None:
            if self.point == point:
                self.point = ""
                self._connection.send(("held", point))
                assert self._connection.recv() == "release"

        return hold


def _perform(connection: Connection, redis_url: str, namespace: str, bound_s: float) -> None:
    l2 = SteppedRedisCache(redis_url, namespace)
    stage = _Stage(connection, TwoTierCache(LocalCache(), l2, staleness_bound_s=bound_s, ttl_jitter=0.0), l2)
    while True:
        try:
            stage.point, what, given = connection.recv()
        except EOFError:
            return
        try:
            connection.send(("done", getattr(stage, what)(*given)))
        except Exception as error:  # noqa: BLE001 - the test is told, whatever it was
            connection.send(("failed", repr(error)))
