"""Real caches whose threads stand still where the model's do.

Each step of the model at which a thread may stand has a place in the code, `STOPS`. A thread goes on to the place that it is
told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from faults import Clock
from model.configs import CHAIN, Config
from model.state import NONE

from pipeline.cache import LocalCache, RedisCache, TwoTierCache
from pipeline.cache.coherence.bus import NodeBus
from pipeline.cache.coherence.view import InvalidationView
from pipeline.cache.errors import SharedTierUnavailableError

BOUND_S: Final = 1.0
STUCK_S: Final = 2.0
STOPS: Final = frozenset(
    {"get_entry", "get_tail", "read_log", "apply", "publish_state", "publish_generation", "publish_confirmed", "covers"}
    | {"input", "use", "their_deps", "bus_begin", "bus_end", "volatile_end", "settle_end", "node_read"}
    | {
        "begin_log",
        "arrives",
        "settle_heard",
        "look_again",
        "judge",
        "promote",
        "mark",
        "keep",
        "write",
        "append_own",
        "settle_own",
        "catch_up",
        "take_as_of",
    }
)


class UnmappedError(Exception):
    """The trace has something that no place in the code stands for."""


class Served(msgspec.Struct, frozen=True):
    """A value that a thread was given."""

    key: int
    source: str
    value: list[int]


_here = threading.local()


def stop(name: str) -> None:
    actor = getattr(_here, "actor", None)
    if actor is not None:
        actor.come_to(name)


class Actor:
    """A thread of a cache that does one thing at a time, and stands still where it is told to."""

    def __init__(self) -> None:
        self._told, self._stands = threading.Event(), threading.Event()
        self._target: str | None = None
        self._thread: threading.Thread | None = None
        self.expired = self.input_expired = False
        self.inside = ""
        self.served: list[Served] = []
        self.failed: BaseException | None = None
        self._broken_off = False

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def begin(self, work: Callable[[Actor], None], target: str | None, *, expired: bool) -> None:
        self.expired, self.served = expired, []
        self._target = target
        self._stands.clear()

        def run() -> None:
            _here.actor = self
            try:
                stop("begun")
                work(self)
            except KeyboardInterrupt:
                pass
            except BaseException as error:  # noqa: BLE001 - it is told by the driver
                self.failed = error
            finally:
                self._stands.set()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        self._wait()

    def go_on(self, target: str | None) -> None:
        """To that place, or to the end."""
        if not self.busy:
            return
        self._target = target
        self._stands.clear()
        self._told.set()
        self._wait()

    def _wait(self) -> None:
        self._stands.wait(STUCK_S)  # else another thread has the lock: it goes on when that does
        if self._target is None and self._thread is not None:
            self._thread.join(STUCK_S)

    def come_to(self, name: str) -> None:
        if name == self._target:
            self._told.clear()
            self._stands.set()
            self._told.wait(20)
            if self._broken_off:
                raise KeyboardInterrupt

    def break_off(self) -> None:
        self._broken_off = True
        self.go_on(None)


class _View(InvalidationView):
    """A view whose threads may stand still before each publication and each judgement."""

    @property
    def generation(self) -> int:  # type: ignore[override]
        if _inside() == "keep":
            stop("mark")
        return int(self.__dict__["generation"])

    @generation.setter
    def generation(self, value: int) -> None:
        if value != self.__dict__.get("generation"):
            stop("publish_generation")
        self.__dict__["generation"] = value

    @property
    def confirmed_at_s(self) -> float:  # type: ignore[override]
        return float(self.__dict__["confirmed_at_s"])

    @confirmed_at_s.setter
    def confirmed_at_s(self, value: float) -> None:
        stop("publish_confirmed")
        self.__dict__["confirmed_at_s"] = value

    @property
    def _state(self) -> Any:  # type: ignore[override]
        return self.__dict__["_state"]

    @_state.setter
    def _state(self, value: Any) -> None:
        stop("publish_state")
        self.__dict__["_state"] = value

    def covers(self, tail_bytes: bytes | None) -> bool:
        stop("covers")
        return super().covers(tail_bytes)

    def settle_heard(self, count: int) -> None:
        stop("settle_heard")
        super().settle_heard(count)

    def settle(self, appended: dict[str, int]) -> None:
        stop("settle_own")
        super().settle(appended)

    def as_of(self) -> Any:
        stop("take_as_of")
        return super().as_of()

    def valid(self, *given: Any) -> bool:
        place = _inside()
        stop("keep" if place == "keep" else "judge" if place == "judge" else "")
        return super().valid(*given)


def _inside() -> str:
    actor = getattr(_here, "actor", None)
    return actor.inside if actor is not None else ""


@contextmanager
def _being_inside(place: str) -> Iterator[None]:
    actor = getattr(_here, "actor", None)
    before = _inside()
    if actor is not None:
        actor.inside = place
    try:
        yield
    finally:
        if actor is not None:
            actor.inside = before


class World:
    """What all processes of a replay share."""

    def __init__(self, config: Config, url: str, namespace: str) -> None:
        self.config, self.url, self.namespace = config, url, namespace
        self.clock = Clock()
        self.versions = [0] * config.patterns
        self.returned_s: list[float] = []
        self.up = True
        self.loses = False
        self.pace_s = 1e-2
        """Between two events. Ever shorter: what was confirmed after an invalidation returned must outlast its bound."""

    def reach(self) -> None:
        if not self.up:
            raise SharedTierUnavailableError("the trace says that it is away")

    def name(self, key: int) -> str:
        own = {0: 1, 1: 2}[key] if self.config.keys == CHAIN else self.config.keys[key].deps[0]
        return f"p{own}"

    def deps(self, key: int) -> tuple[str, ...]:
        spec = self.config.keys[key]
        return tuple(f"p{pattern}" for pattern in spec.deps if f"p{pattern}" != self.name(key))

    def sources(self, numbers: tuple[int, ...]) -> list[int]:
        return [version if source in numbers else NONE for source, version in enumerate(self.versions)]


class _Tier(RedisCache):
    """The entry and the tail as two round trips, and a stop before each exchange."""

    world: World

    def read(self, key: str) -> tuple[bytes | None, bytes | None]:
        stop("get_entry")
        self.world.reach()
        entry, _ = super().read(key)
        stop("get_tail")
        self.world.reach()
        _, tail = super().read(key)
        stop("arrives")
        stop("catch_up")
        return entry, tail

    def write(self, key: str, entry: Any, *told_by: Any) -> None:
        stop("write")
        self.world.reach()
        super().write(key, entry, *told_by)


class Bus(NodeBus):
    """A bus whose writer may stand still before it writes, and in the middle of it."""

    def publish(self, *given: Any, **named: Any) -> None:
        stop("bus_begin")
        super().publish(*given, **named)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with super()._writing():
            for place in ("bus_end", "volatile_end", "settle_end"):
                stop(place)
            yield


class Log:
    def __init__(self, log: Any, world: World) -> None:
        self._log, self._world = log, world

    @property
    def contacts(self) -> int:
        return int(self._log.contacts)

    def append(self, patterns: Any) -> Any:
        stop("append_own")
        self._world.reach()
        tail = self._log.append(patterns)
        if self._world.loses:
            self._world.loses = False
            raise SharedTierUnavailableError("the trace lost its answer")
        return tail

    def read_since(self, known: Any) -> Any:
        stop("read_log")
        stop("node_read")
        self._world.reach()
        actor = getattr(_here, "actor", None)
        if actor is not None:
            actor.expired = False
        page = self._log.read_since(known)
        stop("apply")
        return page


def cache_of(world: World, bus: NodeBus | None) -> TwoTierCache:
    """A process's cache, with its stops."""
    tier = _Tier(url=world.url, namespace=world.namespace)
    tier.world = world
    cache = TwoTierCache(
        LocalCache(),
        tier,
        staleness_bound_s=BOUND_S,
        strict=world.config.strict,
        bus=bus,
        clock=world.clock,
        max_ttl_s=3600.0,
        ttl_jitter=0.0,
    )
    coherence, tiers = cache._coherence, cache._tiers
    asks = coherence.log._read  # type: ignore[attr-defined]

    def asking(*given: Any) -> Any:
        stop("begin_log")
        return asks(*given)

    coherence.log._read = asking  # type: ignore[attr-defined]
    coherence.log = Log(coherence.log, world)
    coherence.view.__class__ = _View
    leased, keep, judged, promote = coherence.leased, tiers.keep_here, tiers._judged_slot, tiers.promote
    with_theirs = cache._filling.with_theirs

    def theirs(deps: tuple[str, ...], known: Container[str] = ()) -> tuple[str, ...]:
        stop("their_deps")
        return with_theirs(deps, known)

    def maybe_leased(now_s: float) -> bool:
        actor = getattr(_here, "actor", None)
        known = bool(leased(now_s))  # it follows the bus all the same
        return known and not (actor is not None and actor.expired)

    def keeping(*given: Any) -> Any:
        with _being_inside("keep"):
            return keep(*given)

    def judging(*given: Any) -> Any:
        with _being_inside("judge"):
            return judged(*given)

    def promoting(*given: Any, **named: Any) -> Any:
        stop("promote")
        return promote(*given, **named)

    coherence.leased = maybe_leased  # type: ignore[method-assign]
    tiers.keep_here, tiers._judged_slot, tiers.promote = keeping, judging, promoting  # type: ignore[method-assign]
    cache._filling.with_theirs = theirs  # type: ignore[method-assign]
    return cache
