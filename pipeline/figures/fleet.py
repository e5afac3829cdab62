"""The figures of the whole fleet, as any program may read them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

import msgspec

from pipeline.cache.coherence.registry import NodeRegistry
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.commands import Commands
from pipeline.cache.server.connection import RedisConnection
from pipeline.cache.server.probe import probe
from pipeline.figures.histogram import quantile_ms
from pipeline.figures.keys import FigureKeys
from pipeline.figures.records import InvalidationRow, ProcessRow, Role
from pipeline.figures.reporter import KEPT_INVALIDATIONS, ROW_MS, SLOT_S, SLOTS
from pipeline.figures.tally import ANSWERED, QUEUE_WAIT, REQUESTS, SERIES, STALENESS
from pipeline.hot.keys import HotKeys

WINDOW_S: Final = SLOT_S * SLOTS
NOW_SLOTS: Final = 2
"""`requests_per_s` is the mean of so many slots, the last that have ended."""
SHOWN_HOT: Final = 20


class Requests(msgspec.Struct, frozen=True):
    """Requests by where their answer came from (`no`: computed), and those that failed."""

    l1: int = 0
    l2: int = 0
    joined: int = 0
    stale: int = 0
    no: int = 0
    failed: int = 0

    @property
    def answered(self) -> int:
        return self.saved + self.no

    @property
    def saved(self) -> int:
        """Answers that nothing was computed for."""
        return self.l1 + self.l2 + self.joined + self.stale

    @property
    def total(self) -> int:
        return self.answered + self.failed


class Slot(msgspec.Struct, frozen=True):
    """Five seconds from `at` on, in seconds since 1970 by the server's clock."""

    at: int
    requests: Requests


class Source(msgspec.Struct, frozen=True):
    """The answers from one source. `share` is of all answers, 0.0-1.0. Times are those of the call that answered; quantiles are
    6 % off at most."""

    source: str
    count: int
    share: float
    mean_ms: float
    p50_ms: float
    p99_ms: float


class Spread(msgspec.Struct, frozen=True):
    """Some times: how many, and how long they were; quantiles are 6 % off at most. All 0 of none."""

    count: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


class Applied(msgspec.Struct, frozen=True):
    """A node that has applied an invalidation, so long after it was published (by the clocks of two hosts)."""

    node: str
    delay_ms: float


class MadeInvalidation(msgspec.Struct, frozen=True):
    """One of the last invalidations: see InvalidationRow. `reach` is who has applied its broadcast, the quickest first, of
    `alive` nodes that there are now; a node that the broadcast missed learns of it from the log, and is not in it."""

    id: str
    at: float
    patterns: tuple[str, ...]
    pattern_count: int
    by: str
    durable: bool
    reach: tuple[Applied, ...]
    alive: int


class Process(msgspec.Struct, frozen=True):
    """One process that reported within the last 15 s: see ProcessRow."""

    pid: int
    role: Role
    since: float
    requests: Requests
    l1_entries: int | None
    missed: int = 0

    @property
    def look_ups(self) -> int:
        """How often it looked for an answer and learnt whether there is one. Each counts where it was made: of one request a
        program that asks has one, and the worker that gets its task another."""
        return self.requests.answered + self.missed


class Node(msgspec.Struct, frozen=True):
    """A worker (with `alive`, whether its main process follows the log), or a host with its other programs."""

    name: str
    alive: bool
    processes: tuple[Process, ...]


class HotKey(msgspec.Struct, frozen=True):
    """A key that is asked for much. At a steady rate its score stands at some 870 times the requests a second."""

    key: str
    score: float


class Ever(msgspec.Struct, frozen=True):
    """Sums since the cache's server began to keep them: they only grow, until it loses them and they begin anew. `ms`: the sum
    of the times of each source, of `failed`, of `staleness` and of `queue_wait`. `buckets`: of each of these that has any, how
    many fell into each wide bucket (see `wide_bound_ms`), up to the last that is not empty. `by_producers`: those of the
    requests that were counted by programs that are no worker."""

    requests: Requests = Requests()
    by_producers: Requests = Requests()
    invalidations: int = 0
    staleness_count: int = 0
    queue_wait_count: int = 0
    ms: dict[str, float] = {}
    buckets: dict[str, tuple[int, ...]] = {}


class FleetFigures(msgspec.Struct, frozen=True):
    """What the fleet does. Without `available`, Redis was out of reach and everything else is empty. `refused`: the server's code
    if it refuses what a cache needs, such as OOM where nothing can be kept; empty if all is well.

    `slots` cover the last `window_s` seconds, oldest first, without a gap; the last one is still running. `requests`, `sources`,
    `hit_rate` (answers that were not computed, of all answers, 0.0-1.0), `saved` (model calls), `invalidation_count`, `staleness`
    (publication to application, a sample a node) and `queue_wait` (a task published to begun) are of that window.
    `requests_per_s`, failed ones included, is of the last 10 s that have ended.

    A process reports once a second: what it has counted since is not in here, and all of it is once it was at rest for so long.
    """

    available: bool
    refused: str = ""
    at: float = 0.0
    window_s: int = 0
    slot_s: int = SLOT_S
    slots: tuple[Slot, ...] = ()
    requests: Requests = Requests()
    requests_per_s: float = 0.0
    hit_rate: float = 0.0
    saved: int = 0
    sources: tuple[Source, ...] = ()
    staleness: Spread = Spread()
    queue_wait: Spread = Spread()
    invalidation_count: int = 0
    invalidations: tuple[MadeInvalidation, ...] = ()
    nodes: tuple[Node, ...] = ()
    hot: tuple[HotKey, ...] = ()
    ever: Ever = Ever()


def read_figures(connection: RedisConnection, keys: FigureKeys, window_s: float = WINDOW_S) -> FleetFigures:
    """The figures of the last `window_s` seconds, in whole slots: 5 s to 15 minutes. Never raises because Redis is away.

    Four round trips, some 10 ms of this process: several readers in one program should share an answer for a second.
    """
    count = min(max(math.ceil(window_s / SLOT_S), 1), SLOTS)
    try:
        with suppress(SharedTierUnavailableError):  # what it does not take may not hinder it from being read
            connection.call(lambda client: probe(client, KeySpace(keys.namespace)))
        first = _read_lists(connection, keys)
        raw = _read_hashes(connection, keys, first, count)
    except SharedTierUnavailableError:
        return FleetFigures(available=False, refused=connection.refused or "")
    return msgspec.structs.replace(_figures(first, raw, count), refused=connection.refused or "")


class _Lists(NamedTuple):
    at: float
    invalidations: list[InvalidationRow]
    processes: list[bytes]
    alive: list[str]
    hot: tuple[HotKey, ...]


class _Hashes(NamedTuple):
    slots: list[dict[bytes, bytes]]
    ever: dict[bytes, bytes]
    reaches: list[dict[bytes, bytes]]
    rows: list[bytes | None]


def _read_lists(connection: RedisConnection, keys: FigureKeys) -> _Lists:
    def command(client: Commands) -> list[Any]:
        with client.pipeline() as pipe:
            pipe.time()
            pipe.lrange(keys.invalidations, 0, KEPT_INVALIDATIONS - 1)
            pipe.zrange(keys.processes, 0, -1)
            pipe.zrevrange(HotKeys(keys.namespace).scores, 0, SHOWN_HOT - 1)
            return pipe.execute()

    (seconds, microseconds), invalidations, processes, hot = connection.call(command)
    at = seconds + microseconds / 1e6
    return _Lists(
        at,
        [row for row in (_decoded(raw, InvalidationRow) for raw in invalidations) if row is not None],
        [process for process, reported_ms in processes if reported_ms >= at * 1000 - ROW_MS],
        NodeRegistry(connection, KeySpace(keys.namespace)).alive(),
        tuple(HotKey(key.decode(), score) for key, score in hot),
    )


def _read_hashes(connection: RedisConnection, keys: FigureKeys, first: _Lists, count: int) -> _Hashes:
    last = int(first.at // SLOT_S)

    def command(client: Commands) -> list[Any]:
        with client.pipeline() as pipe:
            for number in range(last - count + 1, last + 1):
                pipe.hgetall(keys.slot(number))
            pipe.hgetall(keys.ever)
            for row in first.invalidations:
                pipe.hgetall(keys.reach(row.id))
            for process in first.processes:
                pipe.get(keys.row(process.decode()))
            return pipe.execute()

    answers = connection.call(command)
    reached = count + 1 + len(first.invalidations)
    return _Hashes(answers[:count], answers[count], answers[count + 1 : reached], answers[reached:])


def _figures(first: _Lists, raw: _Hashes, count: int) -> FleetFigures:
    began = (int(first.at // SLOT_S) - count + 1) * SLOT_S
    fields = [_numbers(slot) for slot in raw.slots]
    slots = tuple(Slot(began + number * SLOT_S, _requests(slot)) for number, slot in enumerate(fields))
    window = _sum(fields)
    requests = _requests(window)
    answered = max(requests.answered, 1)
    ended = slots[-1 - NOW_SLOTS : -1] or slots
    return FleetFigures(
        available=True,
        at=first.at,
        window_s=count * SLOT_S,
        slots=slots,
        requests=requests,
        requests_per_s=sum(slot.requests.total for slot in ended) / (len(ended) * SLOT_S),
        hit_rate=requests.saved / answered,
        saved=requests.saved,
        sources=tuple(_source(source, window, answered) for source in ANSWERED),
        staleness=_spread(STALENESS, window),
        queue_wait=_spread(QUEUE_WAIT, window),
        invalidation_count=window["n.invalidations"],
        invalidations=tuple(
            _invalidation(row, reach, len(first.alive)) for row, reach in zip(first.invalidations, raw.reaches, strict=True)
        ),
        nodes=_nodes(raw.rows, first.alive),
        hot=first.hot,
        ever=_ever(_numbers(raw.ever)),
    )


def _numbers(raw: Mapping[bytes, bytes]) -> Counter[str]:
    return Counter({field.decode(): int(amount) for field, amount in raw.items()})


def _sum(slots: Iterable[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for slot in slots:
        for field, amount in slot.items():
            total[field] = max(total[field], amount) if field.startswith("max.") else total[field] + amount
    return total


def _requests(fields: Counter[str]) -> Requests:
    return Requests(**{series: fields[f"n.{series}"] for series in REQUESTS})


def _buckets(series: str, fields: Counter[str], kind: str = "b") -> dict[int, int]:
    prefix = f"{kind}.{series}."
    return {int(field.removeprefix(prefix)): amount for field, amount in fields.items() if field.startswith(prefix)}


def _source(source: str, fields: Counter[str], answered: int) -> Source:
    count, buckets = fields[f"n.{source}"], _buckets(source, fields)
    mean_ms = fields[f"us.{source}"] / 1000 / count if count else 0.0
    return Source(source, count, count / answered, mean_ms, quantile_ms(buckets, 0.5), quantile_ms(buckets, 0.99))


def _spread(series: str, fields: Counter[str]) -> Spread:
    buckets = _buckets(series, fields)
    longest_ms = fields[f"max.{series}"] / 1000
    p50_ms, p99_ms = (min(quantile_ms(buckets, share), longest_ms) for share in (0.5, 0.99))
    return Spread(fields[f"n.{series}"], p50_ms, p99_ms, longest_ms)


def _ever(fields: Counter[str]) -> Ever:
    wide = {series: _buckets(series, fields, "w") for series in SERIES}
    return Ever(
        requests=_requests(fields),
        by_producers=Requests(**{series: fields[f"p.{series}"] for series in REQUESTS}),
        invalidations=fields["n.invalidations"],
        staleness_count=fields[f"n.{STALENESS}"],
        queue_wait_count=fields[f"n.{QUEUE_WAIT}"],
        ms={series: fields[f"us.{series}"] / 1000 for series in SERIES},
        buckets={series: tuple(counts.get(at, 0) for at in range(max(counts) + 1)) for series, counts in wide.items() if counts},
    )


def _invalidation(row: InvalidationRow, raw: Mapping[bytes, bytes], alive: int) -> MadeInvalidation:
    reach = sorted((Applied(node.decode(), float(delay_ms)) for node, delay_ms in raw.items()), key=lambda each: each.delay_ms)
    return MadeInvalidation(**msgspec.structs.asdict(row), reach=tuple(reach), alive=alive)


def _nodes(rows: Iterable[bytes | None], alive: list[str]) -> tuple[Node, ...]:
    """By name; the processes of each by pid."""
    processes: dict[str, list[Process]] = defaultdict(list)
    for name in alive:
        processes[name] = []
    for row in (_decoded(raw, ProcessRow) for raw in rows if raw is not None):
        if row is not None:
            requests = Requests(**{series: row.requests.get(series, 0) for series in REQUESTS})
            processes[row.node].append(Process(row.pid, row.role, row.since, requests, row.l1_entries, row.missed))
    return tuple(
        Node(name, name in alive, tuple(sorted(processes[name], key=lambda process: (process.role, process.pid))))
        for name in sorted(processes)
    )


def _decoded(raw: bytes, type: Any) -> Any:
    """What was written, or None if it is of a release that writes otherwise."""
    try:
        return msgspec.json.decode(raw, type=type)
    except msgspec.DecodeError:
        return None
