"""Windows of a minute to a day through a real server: each has what was counted in it, once, whatever happens on the way."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import product
from typing import Any

import pytest
import redis
from faults import Clock
from servers import calls

from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.server.commands import Commands
from pipeline.cache.server.connection import RedisConnection
from pipeline.cache.server.scripts import Script
from pipeline.courier import Courier
from pipeline.figures import FigureKeys, FleetFigures, LifeSign, Reporter, look_on, read_figures
from pipeline.figures.fields import SERIES, count_times
from pipeline.figures.fleet import Requests
from pipeline.figures.histogram import BUCKETS, count_buckets, middle_ms
from pipeline.figures.records import DAY_S, GAP_MS, KEPT_MARKS, MARKS_KEEP_MS, SILENT_MS, SLOT_S, STEPS, step_of
from pipeline.figures.reporter import _groups

MakeReporter = Callable[..., Reporter]
NODE = "n1@host/17-0a1b"


class LosingConnection(RedisConnection):
    """The real one; `lose` many answers of what the server has done do not arrive."""

    lose = 0

    def call(self, command: Callable[[Commands], Any]) -> Any:
        answer = super().call(command)
        if self.lose:
            self.lose -= 1
            raise SharedTierUnavailableError("a test lost the answer")
        return answer


@pytest.fixture
def keys(namespace: str) -> FigureKeys:
    return FigureKeys(namespace)


@pytest.fixture
def connection(redis_url: str) -> Iterator[LosingConnection]:
    with closing(LosingConnection(redis_url, timeout_s=5, retry_pause_s=0.0)) as connection:
        yield connection


@pytest.fixture
def make(connection: LosingConnection, keys: FigureKeys) -> MakeReporter:
    """Makes reporters that report when they are told to."""
    return lambda **more: Reporter(Courier(lambda: connection, threaded=False), keys, node="n1@host", role="worker", **more)


def counted_ago(reporter: Reporter, clock: Clock, ago_s: float, **counts: int) -> None:
    """Have the process count so much at that time before now."""
    clock.tick(-ago_s)
    for series, count in counts.items():
        for _ in range(count):
            reporter.tally.record(series, 2.0 if series == "no" else 0.25)
    reporter._gather()
    clock.tick(ago_s)


def windows(connection: RedisConnection, keys: FigureKeys) -> dict[int, FleetFigures]:
    return {window_s: read_figures(connection, keys, window_s) for window_s in (60, 300, 900, 3600, DAY_S)}


def began_s(figures: FleetFigures) -> float:
    """How long ago the window's first slot began."""
    return figures.at - figures.slots[0].at


# -- sums


def test_each_window_has_what_was_counted_in_it(make: MakeReporter, connection: LosingConnection, keys: FigureKeys) -> None:
    """Of a day, counted in one report after an outage of a day: to the request, by the slots that a window has."""
    reporter = make(clock=(clock := Clock(200_000.0)))
    reporter.courier.deliver()  # the server has told the time
    ages_s = [0, 7, 40, 70, 200, 310, 800, 1000, 2000, 3500, 4000, 20_000, 80_000, 85_000]
    for number, ago_s in enumerate(reversed(ages_s)):
        counted_ago(reporter, clock, ago_s, l1=10 + number, no=1)
    assert reporter.courier.deliver()
    for window_s, figures in windows(connection, keys).items():
        assert (figures.window_s, figures.slot_s) == (window_s, step_of(window_s).slot_s)
        assert window_s - figures.slot_s <= began_s(figures) <= window_s
        inside = {ago_s for ago_s in ages_s if ago_s < began_s(figures)}
        expected = sum(10 + number for number, ago_s in enumerate(reversed(ages_s)) if ago_s in inside)
        assert (figures.requests.l1, figures.requests.no) == (expected, len(inside)), window_s
        assert sum(slot.requests.total for slot in figures.slots) == figures.requests.total


def test_a_steady_rate_is_the_same_in_every_window(make: MakeReporter, connection: LosingConnection, keys: FigureKeys) -> None:
    """One request each five seconds for a day, reported as processes do: a window has its length's worth, within a slot."""
    reporter = make(clock=(clock := Clock(200_000.0)))
    reporter.courier.deliver()
    for ago_s in range(DAY_S, 0, -60):
        counted_ago(reporter, clock, ago_s - 30, l2=12)
    assert reporter.courier.deliver()
    for window_s, figures in windows(connection, keys).items():
        if window_s >= 300:
            assert figures.requests.l2 == pytest.approx(began_s(figures) / 5, abs=12), window_s


def test_times_are_right_in_every_window_and_slot(make: MakeReporter, connection: LosingConnection, keys: FigureKeys) -> None:
    """By source and of the queue: the quantiles of all that was counted, not of quantiles."""
    reporter = make(clock=(clock := Clock(200_000.0)))
    reporter.courier.deliver()
    for ago_s, waits_ms in ((3000, [900.0] * 40), (100, [10.0] * 30), (0, [20.0] * 30)):
        clock.tick(-ago_s)
        for ms in waits_ms:
            reporter.tally.record("queue_wait", ms)
            reporter.tally.record("no", 2 * ms)
        reporter._gather()
        clock.tick(ago_s)
        assert reporter.courier.deliver()
    hour, quarter = read_figures(connection, keys, 3600), read_figures(connection, keys, 900)
    assert hour.spreads["queue_wait"].count == 100
    assert hour.spreads["queue_wait"].p50_ms == pytest.approx(20, rel=0.07)
    assert hour.spreads["queue_wait"].p99_ms == pytest.approx(900, rel=0.07)
    assert hour.spreads["queue_wait"].max_ms == 900
    assert quarter.spreads["queue_wait"].p50_ms == pytest.approx(10, rel=0.07)
    assert quarter.spreads["queue_wait"].max_ms == 20
    by_source = {source.source: source for source in hour.sources}
    assert by_source["no"].p99_ms == pytest.approx(1800, rel=0.07)
    slowest = max((slot for slot in hour.slots if slot.times), key=lambda slot: slot.times["no"].p99_ms)
    assert slowest.times["no"].p50_ms == pytest.approx(1800, rel=0.07)
    assert slowest.times["queue_wait"].p99_ms == pytest.approx(900, rel=0.07)
    assert set(slowest.times) == {"no", "queue_wait"}


@pytest.mark.parametrize(("slot_s", "side"), list(product([step.slot_s for step in STEPS], (-1, 1))))
def test_a_moment_at_a_slots_border_is_in_one_slot(
    make: MakeReporter, connection: LosingConnection, keys: FigureKeys, slot_s: int, side: int
) -> None:
    """A thousandth of a second before it, or behind it."""
    reporter = make(clock=(clock := Clock(200_000.0)))
    reporter.courier.deliver()
    now_s = clock() + reporter._ahead_s
    border = (now_s // 600 - 1) * 600  # where a slot of each length begins
    if now_s - border > 800:
        border += 600
    counted_ago(reporter, clock, now_s - border - side * 0.001, l1=3)
    assert reporter.courier.deliver()
    window_s = next(step.span_s for step in STEPS if step.slot_s == slot_s)
    slots = {slot.at: slot.requests.l1 for slot in read_figures(connection, keys, window_s).slots if slot.requests.l1}
    assert slots == {border - (slot_s if side < 0 else 0): 3}


# -- once


def test_an_answer_that_was_lost_counts_once_in_every_window(
    make: MakeReporter, connection: LosingConnection, keys: FigureKeys
) -> None:
    """The same script adds to all of them under one number."""
    reporter = make()
    assert reporter.courier.deliver(), "it knows the time"
    for _ in range(20):
        reporter.tally.record("l1", 0.5)
    for _ in range(3):
        connection.lose = 1
        assert not reporter.courier.deliver()
    reporter.tally.record("l1", 0.5)
    assert reporter.courier.deliver()
    assert {window_s: each.requests for window_s, each in windows(connection, keys).items()} == dict.fromkeys(
        (60, 300, 900, 3600, DAY_S), Requests(l1=21)
    )


OLD_SCRIPT = """
redis.call('HINCRBY', KEYS[5], 'n.l1', 7)
redis.call('HINCRBY', KEYS[6], 'n.l1', 7)
redis.call('PEXPIRE', KEYS[6], 1200000)
return 1
"""
"""What the script of the last release does with a report of seven hits: it knows slots of five seconds."""


def test_a_process_of_the_last_release_counts_in_the_windows_it_knows(
    make: MakeReporter, connection: LosingConnection, keys: FigureKeys
) -> None:
    """In a rolling upgrade: up to 15 minutes and in the sums without an end. Nothing breaks, in either order."""
    old = Script.of("report", OLD_SCRIPT)
    number = int(time.time() // SLOT_S)
    names = [keys.applied("p"), keys.processes, keys.row("p"), keys.invalidations, keys.ever, keys.slot(number)]

    def reports() -> None:
        connection.call(lambda client: old.run(client, names, [], int))

    reports()
    (reporter := make()).tally.record("l1", 0.5)
    assert reporter.courier.deliver()
    reports()
    found = {window_s: each.requests.l1 for window_s, each in windows(connection, keys).items()}
    assert found == {60: 15, 300: 15, 900: 15, 3600: 1, DAY_S: 1}
    assert read_figures(connection, keys).ever.requests.l1 == 15


# -- bounds


def test_every_slot_ends_by_itself(make: MakeReporter, client: redis.Redis, keys: FigureKeys) -> None:
    """A report leaves three, each for as long as its window reaches, and some minutes."""
    (reporter := make()).tally.record("l1", 0.5)
    assert reporter.courier.deliver()
    names = list(client.scan_iter(f"*{keys.namespace}:*:slot*"))
    assert len(names) == 3
    lives_ms = sorted(client.pttl(name) for name in names)
    for step, life_ms in zip(STEPS, lives_ms, strict=True):
        assert step.span_s * 1000 < life_ms <= step.keep_ms


def test_a_report_of_a_moment_sends_its_sums_once(make: MakeReporter) -> None:
    """The coarser slots cost the server commands, not bytes on the way. A report of several moments tells each slot's own."""
    reporter = make(clock=(clock := Clock()))
    counted_ago(reporter, clock, 0, l1=50, l2=20, no=10)
    counted_ago(reporter, clock, 0, l1=1)
    ((of_group, fields),) = _groups(reporter._slots)
    assert [step for step, _ in of_group] == list(STEPS)
    assert (fields["n.l1"], fields["n.l2"]) == (51, 20)
    counted_ago(reporter, clock, 4000, l1=1)
    assert [len(of_group) for of_group, _ in _groups(reporter._slots)] == [1] * 6


def test_the_coarser_slots_are_told_once_in_five_seconds(
    make: MakeReporter, connection: LosingConnection, keys: FigureKeys, client: redis.Redis
) -> None:
    """By a busy process, and soon by one that is at rest: all of it arrives, without its end or another count."""
    reporter = make(clock=(clock := Clock(200_000.0)))
    reporter.courier.deliver()
    reporter._ahead_s = 0.0  # a slot begins
    added = []
    for _ in range(8):
        reporter.tally.record("l1", 0.5)
        assert reporter.courier.deliver("due")
        added.append(sum(int(client.hget(name, "n.l1") or 0) for name in client.scan_iter(f"*{keys.namespace}:*:slot-60:*")))
        reporter._ahead_s = 0.0  # the server's clock has not moved: the test's has
        clock.tick(1.0)
    assert added == [0, 0, 0, 0, 0, 6, 6, 6]
    clock.tick(SLOT_S)
    assert reporter.courier.deliver("due")
    assert not any(reporter._slots.values())
    total = sum(int(client.hget(name, "n.l1") or 0) for name in client.scan_iter(f"*{keys.namespace}:*:slot-600:*"))
    assert total == 8


@pytest.mark.parametrize(("full", "most_mb"), [(False, 3), (True, 40)])
def test_what_all_slots_take_is_bounded(client: redis.Redis, keys: FigureKeys, full: bool, most_mb: float) -> None:
    """As many slots as there can be, of times spread as times are, and with a time in every bucket of every series."""
    choose = random.Random(1).lognormvariate
    total = 0
    for step, samples in zip(STEPS, (60, 400, 2000), strict=True):
        fields: Counter[str] = Counter()
        for number, series in enumerate(SERIES):
            usual = [0.02 * 4**number * choose(0, 0.6) for _ in range(samples)]
            times_ms = [middle_ms(bucket) for bucket in range(BUCKETS)] if full else usual
            count_times(fields, series, times_ms, int(sum(times_ms) * 1000), count_buckets(times_ms))
        client.hset(name := keys.slot(0, step.slot_s), mapping=dict(fields))
        client.pexpire(name, step.keep_ms)
        total += step.keep_ms // 1000 // step.slot_s * (client.memory_usage(name, samples=0) or 0)
    assert most_mb / 4 < total / 1e6 < most_mb


# -- how many wait, and marks


def test_how_many_wait_is_the_most_of_each_slot(connection: LosingConnection, keys: FigureKeys, client: redis.Redis) -> None:
    """In every window, however often it is looked; a queue at which nobody looked is not in it."""
    for length in (3, 40, 7):
        look_on(connection, keys, {"persona": length, "maintenance": 0})
    for window_s, figures in windows(connection, keys).items():
        seen = [slot.queued for slot in figures.slots if slot.queued]
        assert max(each["persona"] for each in seen) == 40, window_s
        assert {each["maintenance"] for each in seen} == {0}, window_s
        assert figures.requests == Requests()
    for name in client.scan_iter(f"*{keys.namespace}:*"):
        assert 0 < client.pttl(name) <= MARKS_KEEP_MS + 1000, name


def sign(connection: LosingConnection, keys: FigureKeys, node: str, version: str = "1.0") -> Courier:
    courier = Courier(lambda: connection, threaded=False)
    LifeSign(courier, keys, node=node, version=version)
    courier.start()
    return courier


def marks(connection: LosingConnection, keys: FigureKeys) -> list[tuple[str, str]]:
    return [(mark.kind, mark.name) for mark in read_figures(connection, keys, DAY_S).marks]


def test_a_version_is_marked_when_it_first_appears(connection: LosingConnection, keys: FigureKeys, client: redis.Redis) -> None:
    """Once, however many nodes tell it; and again when it comes back after another."""
    for node, version in (("a", "1.0"), ("b", "1.0"), ("a2", "1.1"), ("b", "1.0"), ("b2", "1.1")):
        assert sign(connection, keys, node, version).deliver()
    assert marks(connection, keys) == [("version", "1.1"), ("version", "1.0")]
    client.zincrby(keys.versions, -3_600_000, "1.0")
    assert sign(connection, keys, "c", "1.0").deliver()
    assert marks(connection, keys)[0] == ("version", "1.0")
    client.zincrby(keys.versions, -3_600_000, "1.0")
    client.zincrby(keys.versions, -7_200_000, "1.1")
    assert sign(connection, keys, "c", "1.0").deliver(), "the whole fleet stood still for an hour: no deploy"
    assert len(marks(connection, keys)) == 3


def silent_since(client: redis.Redis, keys: FigureKeys, node: str, ago_ms: int) -> None:
    """As if the node had told nothing for so long, while others did."""
    client.zincrby(keys.heard, -ago_ms, node)
    now_ms = int(time.time() * 1000)
    client.hset(keys.watch, mapping={"last": str(now_ms), "since": str(now_ms - 10 * SILENT_MS)})


def test_a_node_that_ends_without_leaving_is_marked_once(
    connection: LosingConnection, keys: FigureKeys, client: redis.Redis
) -> None:
    """By the first that looks; at the time at which it was last heard of. One that leaves is not."""
    couriers = [sign(connection, keys, node) for node in (NODE, "n2@host/18-0a1b", "n3@host/19-0a1b")]
    for courier in couriers:
        assert courier.deliver()
    couriers[1].close()
    silent_since(client, keys, NODE, SILENT_MS + 1000)
    for _ in range(2):
        look_on(connection, keys, {})
    assert marks(connection, keys) == [("lost", "n1@host"), ("version", "1.0")]
    lost = read_figures(connection, keys, 300).marks[0]
    assert time.time() - lost.at == pytest.approx(SILENT_MS / 1000 + 1, abs=5)


def test_an_idle_node_sends_few_commands(connection: LosingConnection, keys: FigureKeys, client: redis.Redis) -> None:
    """Once its version is known: the call of the script, and three within it."""
    courier = sign(connection, keys, NODE)
    assert courier.deliver()
    before = calls(client)
    assert courier.deliver()
    assert calls(client) - before == Counter({"evalsha": 1, "time": 1, "zadd": 1, "zscore": 1})


def test_after_an_outage_nobody_is_taken_for_lost(connection: LosingConnection, keys: FigureKeys, client: redis.Redis) -> None:
    """While nobody could look, silence proves nothing: it counts from there on."""
    for node in (NODE, "n2@host/18-0a1b"):
        assert sign(connection, keys, node).deliver()
    silent_since(client, keys, NODE, SILENT_MS + 1000)
    client.hset(keys.watch, "last", str(int(time.time() * 1000) - GAP_MS - 1000))
    look_on(connection, keys, {})
    assert [kind for kind, _ in marks(connection, keys)] == ["version"]
    client.hset(keys.watch, "since", str(int(time.time() * 1000) - SILENT_MS - 1000))
    look_on(connection, keys, {})
    assert marks(connection, keys)[0] == ("lost", "n1@host")


def test_marks_are_bounded(connection: LosingConnection, keys: FigureKeys, client: redis.Redis) -> None:
    """However many versions appear. What is no mark of this release is left out."""
    for number in range(KEPT_MARKS + 20):
        assert sign(connection, keys, "a", f"1.{number}").deliver()
    assert client.llen(keys.marks) == KEPT_MARKS
    assert client.zcard(keys.versions) <= KEPT_MARKS
    client.lpush(keys.marks, b'{"kind":"tomorrow","at":1,"name":"x"}', b"not JSON")
    assert marks(connection, keys)[0] == ("version", f"1.{KEPT_MARKS + 19}")


def test_a_node_tells_every_20_seconds(connection: LosingConnection, keys: FigureKeys) -> None:
    """However often its courier goes; and at once where the last time failed."""
    clock = Clock()
    told: list[float] = []
    courier = Courier(lambda: connection, threaded=False)
    LifeSign(courier, keys, node=NODE, version="1.0", clock=clock)
    real = connection.call

    def call(command: Callable[[Commands], Any]) -> Any:
        told.append(clock())
        return real(command)

    connection.call = call  # type: ignore[method-assign]
    connection.lose = 1
    for _ in range(41):
        courier.deliver("due")
        clock.tick(1.0)
    assert [at_s - told[0] for at_s in told] == [0, 1, 21]
