"""How the fleet's figures are read: four round trips to the cache's server."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgspec

from pipeline.cache.coherence.identity import shown_nodes
from pipeline.cache.coherence.registry import NodeRegistry
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.commands import Commands
from pipeline.cache.server.connection import RedisConnection
from pipeline.cache.server.probe import probe
from pipeline.figures.fields import (
    ANSWERED,
    AUDITED,
    INVALIDATIONS,
    NOT_SHOWN,
    REQUESTS,
    SERIES,
    SPREADS,
    STALE_SERVES,
    UNDECIDED,
    Sums,
)
from pipeline.figures.fleet import (
    Applied,
    Audit,
    Ever,
    FleetFigures,
    HotKey,
    MadeInvalidation,
    Mark,
    Node,
    Process,
    Requests,
    Slot,
    Source,
    Spread,
    Times,
)
from pipeline.figures.histogram import quantiles_ms
from pipeline.figures.keys import FigureKeys
from pipeline.figures.records import (
    KEPT_INVALIDATIONS,
    KEPT_MARKS,
    ROW_MS,
    SLOT_S,
    SLOTS,
    InvalidationRow,
    MarkRow,
    ProcessRow,
    Step,
    shown_patterns,
    step_of,
)
from pipeline.hot.keys import HotKeys

WINDOW_S: Final = SLOT_S * SLOTS
NOW_SLOTS: Final = 2
"""`requests_per_s` is the mean of so many slots of five seconds, the last that have ended."""
SHOWN_HOT: Final = 20


def read_figures(connection: RedisConnection, keys: FigureKeys, window_s: float = WINDOW_S) -> FleetFigures:
    """The figures of the last `window_s` seconds, in whole slots: of 5 s up to 15 minutes, of a minute up to an hour, of ten
    minutes up to a day, which is the most. What a process of a release without the coarser slots has counted is in windows of up
    to 15 minutes alone. Never raises because Redis is away.

    Four round trips, and of a busy fleet up to some 100 ms of this process: several readers in one program should share an answer
    for a second.
    """
    step = step_of(window_s)
    count = min(max(math.ceil(window_s / step.slot_s), 1), step.slots)
    try:
        with suppress(SharedTierUnavailableError):  # what it does not take may not hinder it from being read
            connection.call(lambda client: probe(client, KeySpace(keys.namespace)))
        first = _read_lists(connection, keys)
        raw = _read_hashes(connection, keys, first, step, count)
    except SharedTierUnavailableError:
        return FleetFigures(available=False, refused=connection.refused or "")
    return msgspec.structs.replace(_figures(first, raw, step), refused=connection.refused or "")


def who_invalidated(connection: RedisConnection, keys: FigureKeys, pattern: str, at: float | None) -> InvalidationRow | None:
    """Of the last invalidations that processes have told of, that of this pattern which was made nearest to that moment. Raises
    SharedTierUnavailableError."""
    raws = connection.call(lambda client: client.lrange(keys.invalidations, 0, KEPT_INVALIDATIONS - 1))
    (shown,) = shown_patterns((pattern,))
    rows = [row for row in (_decoded(raw, InvalidationRow) for raw in raws) if row is not None and shown in row.patterns]
    return min(rows, key=lambda row: 0.0 if at is None else abs(row.at - at), default=None)


class _Lists(NamedTuple):
    at: float
    invalidations: list[InvalidationRow]
    marks: list[MarkRow]
    processes: list[tuple[bytes, float]]
    alive: list[str]
    hot: tuple[HotKey, ...]


class _Hashes(NamedTuple):
    slots: list[dict[bytes, bytes]]
    now: list[dict[bytes, bytes]]
    ever: dict[bytes, bytes]
    reaches: list[dict[bytes, bytes]]
    rows: list[bytes | None]


def _read_lists(connection: RedisConnection, keys: FigureKeys) -> _Lists:
    def command(client: Commands) -> list[Any]:
        with client.pipeline() as pipe:
            pipe.time()
            pipe.lrange(keys.invalidations, 0, KEPT_INVALIDATIONS - 1)
            pipe.lrange(keys.marks, 0, KEPT_MARKS - 1)
            pipe.zrange(keys.processes, 0, -1)
            pipe.zrevrange(HotKeys(keys.namespace).scores, 0, SHOWN_HOT - 1)
            return pipe.execute()

    (seconds, microseconds), invalidations, marks, processes, hot = connection.call(command)
    at = seconds + microseconds / 1e6
    return _Lists(
        at,
        [row for row in (_decoded(raw, InvalidationRow) for raw in invalidations) if row is not None],
        [row for row in (_decoded(raw, MarkRow) for raw in marks) if row is not None],
        [(process, reported_ms) for process, reported_ms in processes if reported_ms >= at * 1000 - ROW_MS],
        NodeRegistry(connection, KeySpace(keys.namespace)).alive(),
        tuple(HotKey(key.decode(), score) for key, score in hot),
    )


def _read_hashes(connection: RedisConnection, keys: FigureKeys, first: _Lists, step: Step, count: int) -> _Hashes:
    last, now = int(first.at // step.slot_s), int(first.at // SLOT_S)
    names = [keys.slot(number, step.slot_s) for number in range(last - count + 1, last + 1)]
    names += [keys.slot(number) for number in range(now - NOW_SLOTS, now)]
    names += [keys.ever, *(keys.reach(row.id) for row in first.invalidations)]

    def command(client: Commands) -> list[Any]:
        with client.pipeline() as pipe:
            for name in names:
                pipe.hgetall(name)
            for process, _ in first.processes:
                pipe.get(keys.row(process.decode()))
            return pipe.execute()

    answers = connection.call(command)
    ever = count + NOW_SLOTS
    return _Hashes(answers[:count], answers[count:ever], answers[ever], answers[ever + 1 : len(names)], answers[len(names) :])


def _figures(first: _Lists, raw: _Hashes, step: Step) -> FleetFigures:
    count = len(raw.slots)
    began = (int(first.at // step.slot_s) - count + 1) * step.slot_s
    sums = [Sums(slot) for slot in raw.slots]
    window = Sums.of(sums)
    requests = _requests(window)
    answered = max(requests.answered, 1)
    reported = zip((at_ms for _, at_ms in first.processes), raw.rows, strict=True)
    decoded = ((at_ms, _decoded(row, ProcessRow)) for at_ms, row in reported if row is not None)
    rows = _living([(at_ms, row) for at_ms, row in decoded if row is not None])
    here = {*first.alive, *(row.node for row in rows)}
    gone = {*(node.decode() for reach in raw.reaches for node in reach), *(row.name for row in first.marks if row.kind == "lost")}
    # A worker that was started anew does not share its name with the one before, although that one has applied things.
    names = shown_nodes(here | gone) | shown_nodes(here)
    return FleetFigures(
        available=True,
        at=first.at,
        window_s=count * step.slot_s,
        slot_s=step.slot_s,
        slots=tuple(_slot(began + number * step.slot_s, slot) for number, slot in enumerate(sums)),
        marks=tuple(
            Mark(row.kind, row.at, names[row.name] if row.kind == "lost" else row.name) for row in first.marks if row.at >= began
        ),
        requests=requests,
        requests_per_s=_requests(Sums(*raw.now)).total / (NOW_SLOTS * SLOT_S),
        hit_rate=requests.saved / answered,
        saved=requests.saved,
        sources=tuple(_source(source, window, answered) for source in ANSWERED),
        spreads={series.name: _spread(series.name, window) for series in SPREADS},
        invalidation_count=window.count(INVALIDATIONS),
        invalidations=tuple(
            _invalidation(row, reach, len(first.alive), names)
            for row, reach in zip(first.invalidations, raw.reaches, strict=True)
        ),
        nodes=_nodes(rows, first.alive, names),
        hot=first.hot,
        ever=_ever(Sums(raw.ever)),
    )


def _slot(at: int, sums: Sums) -> Slot:
    times = {series: _times(series, sums) for series in SERIES if sums.count(series)}
    return Slot(at, _requests(sums), sums.count(INVALIDATIONS), times, sums.queued())


def _times(series: str, sums: Sums) -> Times:
    return Times(*(float(f"{ms:.4g}") for ms in quantiles_ms(sums.buckets(series), 0.5, 0.99)))


def _requests(sums: Sums) -> Requests:
    return Requests(**{source: sums.count(source) for source in REQUESTS})


def _source(source: str, sums: Sums, answered: int) -> Source:
    count, buckets = sums.count(source), sums.buckets(source)
    mean_ms = sums.sum_ms(source) / count if count else 0.0
    return Source(source, count, count / answered, mean_ms, *quantiles_ms(buckets, 0.5, 0.99))


def _spread(series: str, sums: Sums) -> Spread:
    buckets, longest_ms = sums.buckets(series), sums.longest_ms(series)
    p50_ms, p99_ms = (min(ms, longest_ms) for ms in quantiles_ms(buckets, 0.5, 0.99))
    return Spread(sums.count(series), p50_ms, p99_ms, longest_ms)


def _ever(sums: Sums) -> Ever:
    wide = {series: sums.wide_buckets(series) for series in SERIES}
    return Ever(
        requests=_requests(sums),
        by_producers=Requests(**{source: sums.by_producers(source) for source in REQUESTS}),
        invalidations=sums.count(INVALIDATIONS),
        not_shown=sums.count(NOT_SHOWN),
        audit=Audit(sums.count(AUDITED), sums.count(STALE_SERVES), sums.count(UNDECIDED)),
        counts={series: sums.count(series) for series in SERIES},
        ms={series: sums.sum_ms(series) for series in SERIES},
        buckets={series: tuple(counts.get(at, 0) for at in range(max(counts) + 1)) for series, counts in wide.items() if counts},
    )


def _invalidation(row: InvalidationRow, raw: Mapping[bytes, bytes], alive: int, names: Mapping[str, str]) -> MadeInvalidation:
    applied = (Applied(names[node.decode()], float(delay_ms)) for node, delay_ms in raw.items())
    reach = sorted(applied, key=lambda each: each.delay_ms)
    return MadeInvalidation(**msgspec.structs.asdict(row), reach=tuple(reach), alive=alive)


def _nodes(rows: Iterable[ProcessRow], alive: list[str], names: Mapping[str, str]) -> tuple[Node, ...]:
    """By name; the processes of each by pid."""
    processes: dict[str, list[Process]] = defaultdict(list)
    for node in alive:
        processes[node] = []
    for row in rows:
        requests = Requests(**{series: row.requests.get(series, 0) for series in REQUESTS})
        processes[row.node].append(Process(row.pid, row.role, row.since, requests, row.l1_entries, row.missed))
    return tuple(
        Node(names[node], node in alive, tuple(sorted(processes[node], key=lambda process: (process.role, process.pid))))
        for node in sorted(processes, key=lambda node: names[node])
    )


def _living(reported: list[tuple[float, ProcessRow]]) -> list[ProcessRow]:
    """Without those whose node's main process knows better: it has reported since they did, and they are not of its pool. A
    killed process takes no leave, and its row lives on for a while. Nor an earlier main process of the node."""
    mains = {row.node: (at_ms, row) for at_ms, row in sorted(reported, key=itemgetter(0)) if row.role == "main"}

    def lives(at_ms: float, row: ProcessRow) -> bool:
        main_at_ms, main = mains.get(row.node, (-math.inf, row))
        if row.role == "main":
            return row is main
        # The main process runs tasks, too: all of them in a pool of threads, else those whose answers it has.
        return row.role != "worker" or at_ms >= main_at_ms or main.pool is None or row.pid in (main.pid, *main.pool)

    return [row for at_ms, row in reported if lives(at_ms, row)]


def _decoded(raw: bytes, type: Any) -> Any:
    """What was written, or None if it is of a release that writes otherwise."""
    try:
        return msgspec.json.decode(raw, type=type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
