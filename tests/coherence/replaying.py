"""A trace of the model (`tests/model`) taken step by step by the real code: real caches on a real server, their threads stopped
where the model's are.

An event of the trace lets one thread go on to the place that the model names next. What the lease, the clock and the server
do, the trace says, too: a read that goes past L1 in the model finds its lease run out here, `tick` lets the bound pass, a
server that is away refuses at the tier's edge. What stands in front of no place in the code is taken with the next step that
does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import redis
from coherence.stopped import BOUND_S, STOPS, Actor, Bus, Log, Served, UnmappedError, World, cache_of, stop
from model.configs import Config
from model.state import NEVER, State

from pipeline.cache import MISS, Kind, TwoTierCache
from pipeline.cache.coherence.bus import NodeBus
from pipeline.cache.coherence.log import RedisInvalidationLog
from pipeline.cache.coherence.node import NodeFollower
from pipeline.cache.coherence.registry import NodeRegistry
from pipeline.cache.coherence.tail import Tail
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.connection import RedisConnection

_AT_THE_BEGINNING: Final = frozenset({"read", "compute", "stale", "refresh", "invalidate"})


class Replay:
    """One trace, by the code as it is in this process."""

    def __init__(self, config: Config, trace: list[tuple[str, State]], url: str, namespace: str) -> None:
        self.world = World(config, url, namespace)
        self._trace = trace
        self._buses = [Bus(config.ring) for _ in config.node_threads]
        self.caches = [cache_of(self.world, self._buses[node] if node != NEVER else None) for node, _ in config.processes]
        self._actors = [[Actor() for _ in does] for _, does in config.processes]
        self._mains = [[Actor() for _ in range(count)] for count in config.node_threads]
        self._followers = [self._follower(bus) for bus in self._buses]
        self._notices: dict[tuple[int, int, int], Any] = {}
        if config.start == "warm":
            self._warm()
        elif config.start:
            raise UnmappedError(f"the start {config.start}")

    def _follower(self, bus: NodeBus) -> NodeFollower:
        connection, keys = RedisConnection(self.world.url, retry_pause_s=0.0), KeySpace(self.world.namespace)
        log = Log(RedisInvalidationLog(connection, keys, retention_s=3600.0), self.world)
        return NodeFollower("node", bus, log, NodeRegistry(connection, keys), clock=self.world.clock)  # type: ignore[arg-type]

    def _warm(self) -> None:
        key, first = self.world.config.keys[0], True
        self.caches[0].refresh()  # so that there is a log
        for follower in self._followers:
            follower.beat()
        for cache, (_, does) in zip(self.caches, self.world.config.processes, strict=True):
            if does == ("tell",):
                continue
            cache.refresh()
            if first:
                as_of = cache.as_of()
                value = self.world.sources(key.direct)
                cache.fill(self.world.name(0), value, Kind(ttl=300.0), deps=self.world.deps(0), as_of=as_of)
                first = False
            else:
                cache.lookup(self.world.name(0))

    def run(self) -> list[Served]:
        """What the last thread of the trace was served."""
        actor = None
        for number, (event, after) in enumerate(self._trace[1:], start=1):
            self.world.clock.tick(self.world.pace_s)
            before = self._trace[number - 1][1]
            actor = self._happen(event, before, after, number) or actor
        assert actor is not None
        actor.go_on(None)
        served = list(actor.served)
        for each in (each for actors in (*self._actors, *self._mains) for each in actors):
            each.go_on(None)
        for cache in self.caches:
            cache.close()
        if isinstance(actor.failed, BaseException):
            raise actor.failed
        return served

    def _happen(self, event: str, before: State, after: State, number: int) -> Actor | None:
        if event.startswith("N"):
            self._main(event, before, after)
            return None
        if event[0] != "P":
            self._befall(event, before, after)
            return None
        who, _, what = event.partition(" ")
        process, index = (int(part) for part in who[1:].split("."))
        word, argument = [*what.split(",")[0].split(" "), "0"][:2]
        if word == "tell":
            self._tell(process, int(argument), before, after)
            return None
        actor = self._actors[process][index]
        steps = after.processes[process].threads[index].steps
        target = steps[0] if steps else None
        unknown = target is not None and target not in STOPS
        if word not in _AT_THE_BEGINNING or before.processes[process].threads[index].steps:
            if not unknown:  # else it stays where it is until the model comes to a place that the code has
                actor.go_on(target)
            return actor
        if actor.busy:
            actor.go_on(None)
        if word == "invalidate":
            self.world.loses = (
                after.server.log.seq != before.server.log.seq and "returns_volatile" in steps and "returns" not in steps
            )
            self.world.versions[int(argument)] += 1
        taken = self._taken(process, index, number)
        expired = bool({"get_entry", "read_log", "append_own"} & taken)
        actor.input_expired = "get_entry" in taken
        place = "begun" if unknown else target
        actor.begin(self._work(word, int(argument), self.caches[process]), place, expired=expired)
        if word == "invalidate" and not actor.busy and after.returned != before.returned:
            self.world.returned_s.append(self.world.clock())
        return actor

    def _taken(self, process: int, index: int, number: int) -> set[str]:
        """All steps of what that thread begins by this event."""
        who = f"P{process}.{index} "
        taken: list[str] = []
        for event, state in self._trace[number:]:
            if event.startswith(who):
                taken += event[len(who) :].replace(",", " ").split()
                if not state.processes[process].threads[index].steps:
                    break
        return set(taken)

    def _work(self, word: str, argument: int, cache: TwoTierCache) -> Callable[[Actor], None]:
        world = self.world

        def look(actor: Actor, key: int, **options: Any) -> Any:
            found = cache.lookup(world.name(key), **options)
            actor.expired = False
            if found is not MISS:
                actor.served.append(Served(key, found.source, found.value))
            return found

        def read(actor: Actor) -> None:
            look(actor, argument)

        def stale(actor: Actor) -> None:
            look(actor, argument, stale_age_s=3600.0)

        def compute(actor: Actor) -> None:
            key = world.config.keys[argument]
            as_of = cache.as_of()
            value = world.sources(key.direct)
            if key.through != NEVER:
                stop("input")
                actor.expired = actor.input_expired
                found = look(actor, key.through)
                stop("use")
                inner = world.config.keys[key.through]
                part = found.value if found is not MISS else world.sources(inner.direct)
                if found is MISS:
                    cache.fill(world.name(key.through), part, _KIND, deps=world.deps(key.through), as_of=as_of)
                value = list(map(min, value, part))
            stop("mark")
            cache.fill(world.name(argument), value, _KIND, deps=world.deps(argument), as_of=as_of)

        def refresh(_: Actor) -> None:
            cache.refresh()

        def invalidate(_: Actor) -> None:
            cache.invalidate(f"p{argument}")

        works = {"read": read, "stale": stale, "compute": compute, "refresh": refresh, "invalidate": invalidate}
        return works[word]

    def _tell(self, process: int, pattern: int, before: State, after: State) -> None:
        self.world.versions[pattern] += 1
        self.world.loses = len(after.returned) == len(before.returned) and after.server.log != before.server.log
        done = self.caches[process].invalidate(f"p{pattern}")
        if done.durable:
            self.world.returned_s.append(self.world.clock())
        for notice in set(after.notices) - set(before.notices):
            self._notices[notice.epoch, notice.seq, notice.pattern] = done
        if after.server.log.epoch == before.server.log.epoch and after.server.log.floor > before.server.log.floor:
            self._trim()

    def _trim(self) -> None:
        """All but the newest record goes."""
        keys = self._keys

        def trim(client: Any) -> None:
            tail = Tail.parse(client.get(keys.tail) or b"")
            assert tail is not None
            client.zremrangebyscore(keys.records, "-inf", tail.seq - 1)
            client.zadd(keys.records, {"": tail.seq - 1})
            client.set(keys.tail, bytes(tail._replace(floor=tail.seq - 1)))

        self._raw(trim)

    def _main(self, event: str, before: State, after: State) -> None:
        """A step of a main process. The follower's own stops are those of its bus and of its log."""
        who, _, what = event.partition(" ")
        number, index = (int(part) for part in who[1:].split("."))
        actor, follower = self._mains[number][index], self._followers[number]
        steps = after.nodes[number].threads[index].steps
        target = steps[0] if steps else None
        if before.nodes[number].threads[index].steps:
            actor.go_on(target)
        elif what == "beat":
            actor.begin(lambda _: _done(follower.beat()), target, expired=False)
        else:
            _, position, pattern = what.split(" ")
            epoch, seq = position.split(":")
            done = self._notices[int(epoch), int(seq), int(pattern)]
            given = (done.epoch, done.seq) if done.durable else ("", 0)
            actor.begin(lambda _: _done(follower.receive(*given, list(done.patterns))), target, expired=False)

    def _befall(self, event: str, before: State, after: State) -> None:
        """What is no thread's step: by the event's name."""
        befall = getattr(self, f"_{event}", None)
        if befall is None:
            raise UnmappedError(f"the fault {event}")
        befall(before, after)

    def _tick(self, _: State, __: State) -> None:
        """The bound has passed since one more invalidation returned, and not since the next."""
        self.world.clock.now_s = max(self.world.clock.now_s, self.world.returned_s.pop(0) + BOUND_S)
        self.world.pace_s /= 100

    def _go_away(self, _: State, __: State) -> None:
        self.world.up = False

    def _come_back(self, _: State, __: State) -> None:
        self.world.up = True

    def _break_off_main(self, before: State, after: State) -> None:
        for was, now, actors in zip(before.nodes, after.nodes, self._mains, strict=True):
            for one, other, actor in zip(was.threads, now.threads, actors, strict=True):
                if one.steps and not other.steps:
                    actor.break_off()

    def _drop_slot(self, before: State, after: State) -> None:
        for was, now, cache in zip(before.processes, after.processes, self.caches, strict=True):
            for key in _gone(was.slots, now.slots):
                cache.l1.delete(self.world.name(key))

    def _evict_entry(self, before: State, after: State) -> None:
        keys = [self._keys.entry(self.world.name(key)) for key in _gone(before.server.entries, after.server.entries)]
        self._raw(lambda client: client.delete(*keys))

    def _evict_tail(self, _: State, __: State) -> None:
        self._raw(lambda client: client.delete(self._keys.tail))

    def _evict_records(self, _: State, __: State) -> None:
        self._raw(lambda client: client.delete(self._keys.records, self._keys.marks))

    def _flush(self, _: State, __: State) -> None:
        self._raw(lambda client: client.delete(*client.scan_iter(match=f"*{self.world.namespace}*")))

    @property
    def _keys(self) -> KeySpace:
        return KeySpace(self.world.namespace)

    def _raw(self, act: Callable[[Any], object]) -> None:
        with redis.Redis.from_url(self.world.url) as client:
            act(client)


def _gone(before: tuple[Any, ...], after: tuple[Any, ...]) -> list[int]:
    """The places in which there was something."""
    return [place for place, (one, other) in enumerate(zip(before, after, strict=True)) if one is not None and other is None]


def _done(_: object) -> None:
    """What a follower returns tells nothing here."""


_KIND: Final = Kind(ttl=300.0)
