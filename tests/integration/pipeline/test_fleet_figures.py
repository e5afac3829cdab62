"""Figures through a real server: every report of a process is read, once each, whatever happens on the way."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import msgspec
import pytest
import redis
from faults import Clock
from polling import until
from programs import run_program
from servers import ValkeyServer, calls

from pipeline.assembly import build_optimized_pipeline
from pipeline.cache import LocalCache, RedisCache, TwoTierCache
from pipeline.cache.coherence.registry import NodeRegistry
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.commands import Commands
from pipeline.cache.server.connection import RedisConnection
from pipeline.courier import Courier, Occasion
from pipeline.errors import PermanentModelError, TransientModelError
from pipeline.figures import FigureKeys, FleetFigures, Reporter, read_figures
from pipeline.figures.fleet import Requests
from pipeline.figures.records import CHANGED_EVERY_S, KEEP_MS, KEPT_INVALIDATIONS, ROW_MS, SHOW_EVERY_S, SLOT_S, SLOTS
from pipeline.models import PersonaRequest
from pipeline.optimized import OptimizedPipeline
from pipeline.persona_pipeline import PersonaPipeline
from pipeline.personas import load_catalog
from pipeline.prompts import Prompt
from pipeline.responders import PromptResponder, Responder
from pipeline.settings import Settings, load_settings

MakeReporter = Callable[..., Reporter]


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
def reader(redis_url: str) -> Iterator[RedisConnection]:
    with closing(RedisConnection(redis_url, timeout_s=5)) as connection:
        yield connection


@pytest.fixture
def make(redis_url: str, keys: FigureKeys) -> Iterator[MakeReporter]:
    """Makes reporters as processes of their own would have them; they report when they are told to."""
    made: list[Reporter] = []

    def make_reporter(**options: Any) -> Reporter:
        options = {"node": "n1@host", "role": "worker", "url": redis_url, **options}
        connection = LosingConnection(options.pop("url"), timeout_s=options.pop("timeout_s", 5.0), retry_pause_s=0.0)
        reporter = Reporter(Courier(lambda: connection, threaded=False), keys, **options)
        made.append(reporter)
        return reporter

    yield make_reporter
    for reporter in made:
        reporter.courier.close()


def record(reporter: Reporter, **counts: int) -> None:
    for source, count in counts.items():
        for _ in range(count):
            reporter.tally.record(source, 2.0 if source == "no" else 0.01)


def connection_of(reporter: Reporter) -> LosingConnection:
    assert isinstance(reporter.courier._connection, LosingConnection)
    return reporter.courier._connection


# -- exact


def test_the_fleets_figures_are_the_sum_of_what_its_processes_counted(
    make: MakeReporter, reader: RedisConnection, keys: FigureKeys
) -> None:
    """By source, in the slots and without an end; shares and times follow from them."""
    record(one := make(), l1=700, no=100)
    record(two := make(node="n2@host"), l2=150, stale=20, failed=7)
    record(three := make(role="producer", node="host"), joined=30, l1=5)
    for reporter in (one, two, three):
        assert reporter.courier.deliver()
    record(one, l1=3)
    assert one.courier.deliver()
    figures = read_figures(reader, keys)
    expected = Requests(l1=708, l2=150, joined=30, stale=20, no=100, failed=7)
    assert figures.available
    assert figures.requests == figures.ever.requests == expected
    assert sum(slot.requests.total for slot in figures.slots) == expected.total == 1015
    assert figures.saved == 908
    assert figures.hit_rate == pytest.approx(908 / 1008)
    by_source = {source.source: source for source in figures.sources}
    assert sum(source.share for source in figures.sources) == pytest.approx(1)
    assert by_source["no"].p50_ms == pytest.approx(2.0, rel=0.07)
    assert by_source["l1"].p99_ms == pytest.approx(0.01, rel=0.07)
    assert by_source["l1"].mean_ms == pytest.approx(0.01, rel=1e-3), "whole microseconds are told"
    assert figures.ever.ms["no"] == pytest.approx(200)


def test_the_slots_have_no_gap_and_the_last_one_is_this_moments(
    make: MakeReporter, reader: RedisConnection, keys: FigureKeys
) -> None:
    """A page draws them as they are."""
    record(reporter := make(), l1=1)
    reporter.courier.deliver()
    figures = read_figures(reader, keys)
    assert len(figures.slots) == SLOTS
    assert [slot.at for slot in figures.slots] == [figures.slots[0].at + SLOT_S * number for number in range(SLOTS)]
    assert figures.slots[-1].at <= figures.at < figures.slots[-1].at + SLOT_S
    assert figures.slots[-1].requests.l1 + figures.slots[-2].requests.l1 == 1
    assert [len(read_figures(reader, keys, window_s).slots) for window_s in (0, 5, 6, 60, 900)] == [1, 1, 2, 12, SLOTS]


def test_an_answer_that_was_lost_is_no_reason_to_count_twice(
    make: MakeReporter, reader: RedisConnection, keys: FigureKeys
) -> None:
    """The server had done it: the report is sent again under its number, and what came meanwhile under the next."""
    record(reporter := make(), l1=10)
    assert reporter.courier.deliver()
    record(reporter, l1=20)
    connection_of(reporter).lose = 1
    assert not reporter.courier.deliver()
    record(reporter, l1=3)
    connection_of(reporter).lose = 1
    assert not reporter.courier.deliver()
    assert reporter.courier.deliver()
    assert read_figures(reader, keys).requests == Requests(l1=33)
    assert read_figures(reader, keys).ever.requests == Requests(l1=33)


def test_requests_a_second_are_those_of_the_last_ten_that_have_ended(
    make: MakeReporter, reader: RedisConnection, keys: FigureKeys
) -> None:
    """The running slot would show too few."""
    reporter = make(clock=(clock := Clock()))
    reporter.courier.deliver()  # the server has told the time
    for slot_ago, count in ((3, 999), (2, 150), (1, 50), (0, 999)):
        clock.now_s -= slot_ago * SLOT_S
        record(reporter, l1=count)
        reporter._gather()
        clock.now_s += slot_ago * SLOT_S
    before = time.time() // SLOT_S
    reporter.courier.deliver()
    figures = read_figures(reader, keys)
    if before == figures.at // SLOT_S:  # else a slot has ended in between
        assert figures.requests_per_s == 20.0


# -- when Redis is away


def test_what_was_counted_while_redis_was_away_comes_later(make: MakeReporter, keys: FigureKeys) -> None:
    """Nothing raises, nothing is lost, and the reader says that there is nothing to see."""
    with ValkeyServer() as server, closing(RedisConnection(server.url, retry_pause_s=0.0)) as reader:
        record(reporter := make(url=server.url, timeout_s=0.25), l1=10)
        server.stop()
        assert not reporter.courier.deliver()
        assert read_figures(reader, keys) == FleetFigures(available=False)
        record(reporter, l2=5)
        assert not reporter.courier.deliver()
        server.start()
        assert reporter.courier.deliver()
        assert read_figures(reader, keys).requests == Requests(l1=10, l2=5)
        server.freeze()
        record(reporter, no=1)
        assert not reporter.courier.deliver()
        server.thaw()
        until(reporter.courier.deliver, "the report has arrived")
        assert read_figures(reader, keys).requests == Requests(l1=10, l2=5, no=1)


def test_a_long_outage_costs_the_oldest_slots_and_no_sum(make: MakeReporter, reader: RedisConnection, keys: FigureKeys) -> None:
    """The figures kept meanwhile are bounded: a quarter of an hour by slots, and the sums."""
    reporter = make(clock=(clock := Clock()))
    reporter.courier.deliver()
    outage = 3 * SLOTS
    for _ in range(outage):
        record(reporter, l1=1)
        connection_of(reporter).lose = 1
        reporter._under_way = None
        reporter._gather()
        clock.tick(SLOT_S)
    fine, *coarse = reporter._slots.values()
    assert len(fine) == SLOTS
    assert [sum(slot["n.l1"] for slot in slots.values()) for slots in coarse] == [outage, outage], "these reach further back"
    connection_of(reporter).lose = 0
    reporter._knows_the_time = False  # the server's clock has not moved: the test's has
    assert reporter.courier.deliver()
    assert read_figures(reader, keys).ever.requests == Requests(l1=outage)


def test_slots_are_by_the_servers_clock(make: MakeReporter, reader: RedisConnection, keys: FigureKeys) -> None:
    """A host whose clock is wrong by a year reports into the same slots as all others."""
    record(reporter := make(wall_clock=Clock(time.time() - 365 * 86_400)), l1=4)
    reporter.courier.deliver()
    assert read_figures(reader, keys, 10).requests == Requests(l1=4)


def test_slots_and_reaches_end_by_themselves(
    make: MakeReporter, reader: RedisConnection, client: redis.Redis, keys: FigureKeys
) -> None:
    """Figures never fill the cache's server."""
    record(reporter := make(), l1=4)
    reporter.applied("e:1", time.time())
    reporter.courier.deliver()
    number = next(number for slot in (0, -1) if client.exists(keys.slot(number := int(time.time() // SLOT_S) + slot)))
    assert 0 < client.pttl(keys.slot(number)) <= KEEP_MS
    assert 0 < client.pttl(keys.reach("e:1")) <= KEEP_MS


def test_clearing_the_cache_leaves_the_figures(
    make: MakeReporter, reader: RedisConnection, keys: FigureKeys, redis_url: str
) -> None:
    """They share its server and its namespace."""
    record(reporter := make(), l1=4)
    reporter.courier.deliver()
    with closing(TwoTierCache(LocalCache(), RedisCache(url=redis_url, namespace=keys.namespace))) as cache:
        cache.set("a", 1)
        assert cache.clear() == 1
        cache.delete_pattern("*")
    assert read_figures(reader, keys).requests == Requests(l1=4)


# -- processes


def test_a_process_is_shown_while_it_reports_and_not_after_its_end(
    make: MakeReporter, reader: RedisConnection, keys: FigureKeys
) -> None:
    """By node; with its own counts since it began."""
    record(one := make(l1_entries=lambda: 17), l1=2, failed=1)
    two = make(role="main")
    three = make(role="producer", node="laptop")
    NodeRegistry(reader, KeySpace(keys.namespace)).beat("n1@host")
    for reporter in (one, two, three):
        reporter.courier.deliver()
    nodes = {node.name: node for node in read_figures(reader, keys).nodes}
    assert {name: node.alive for name, node in nodes.items()} == {"laptop": False, "n1@host": True}
    main, worker = nodes["n1@host"].processes
    assert (main.role, worker.role, worker.l1_entries, main.l1_entries) == ("main", "worker", 17, None)
    assert worker.requests == Requests(l1=2, failed=1)
    one._wanted = True  # as `start` notes it
    one.courier.close()
    assert [process.role for node in read_figures(reader, keys).nodes for process in node.processes] == ["producer", "main"]


def test_the_row_of_a_process_that_died_goes_by_itself(
    make: MakeReporter, reader: RedisConnection, client: redis.Redis, keys: FigureKeys
) -> None:
    """Without a removal: the process has been silent for longer than a row lives."""
    make().courier.deliver()
    (name,) = client.zrange(keys.processes, 0, -1)
    row = keys.row(name.decode())
    assert 0 < client.pttl(row) <= ROW_MS
    client.zadd(keys.processes, {name: time.time() * 1000 - ROW_MS - 1})
    assert read_figures(reader, keys).nodes == ()
    make().courier.deliver()
    assert name not in client.zrange(keys.processes, 0, -1)
    client.delete(row)
    assert len(read_figures(reader, keys).nodes) == 1


def test_an_idle_process_shows_itself_now_and_then_by_one_short_call(make: MakeReporter, keys: FigureKeys) -> None:
    """Of two minutes of seconds. The call takes five commands: its own, TIME, SET, ZADD and PEXPIRE."""
    with ValkeyServer() as server, server.client() as client:
        reporter = make(url=server.url, clock=(clock := Clock()))
        reporter.courier.deliver("due")
        before = calls(client)
        for _ in range(120):
            clock.tick(1.0)
            reporter.courier.deliver("due")
            assert client.ttl(keys.row(reporter._process)) > 0
        counted = calls(client) - before - Counter({"ttl": 120})
        reporter.courier.close()
    assert counted["evalsha"] == 120 / SHOW_EVERY_S
    assert counted.total() == 5 * counted["evalsha"]


def test_a_row_that_is_no_longer_true_is_told_sooner(make: MakeReporter, reader: RedisConnection, keys: FigureKeys) -> None:
    """What an L1 holds changes without a request, too."""
    entries = 1
    reporter = make(clock=(clock := Clock()), l1_entries=lambda: entries)
    reporter.courier.deliver("due")
    entries = 2
    shown = []
    for _ in range(int(CHANGED_EVERY_S)):
        clock.tick(1.0)
        reporter.courier.deliver("due")
        ((process,),) = (node.processes for node in read_figures(reader, keys).nodes)
        shown.append(process.l1_entries)
    assert shown == [1, 1, 1, 1, 2]


def test_a_killed_process_is_gone_when_its_main_process_says_so(
    make: MakeReporter, reader: RedisConnection, client: redis.Redis, keys: FigureKeys
) -> None:
    """Long before its row ends. One that is of the pool stays, as does one that has reported since, and what the main process
    itself has answered."""
    pool: list[int] = [1, 2]
    main = make(role="main", pool=lambda: tuple(pool))
    children = [make(), make(), make()]
    for pid, child in zip((1, 2, os.getpid()), children, strict=True):
        child.courier.deliver()
        row = msgspec.json.decode(client.get(keys.row(child._process)) or b"")
        client.set(keys.row(child._process), msgspec.json.encode(row | {"pid": pid}))

    def shown() -> list[tuple[str, int]]:
        return [(process.role, process.pid) for node in read_figures(reader, keys).nodes for process in node.processes]

    all_of_them = [("main", os.getpid()), ("worker", 1), ("worker", 2), ("worker", os.getpid())]
    main.courier.deliver()
    assert shown() == all_of_them
    pool[:] = [1]
    without = [process for process in all_of_them if process != ("worker", 2)]
    until(lambda: main.courier.deliver() and shown() == without, "it has reported later, in ms of the server")
    now_ms = client.zscore(keys.processes, main._process)
    assert now_ms is not None
    client.zadd(keys.processes, {children[1]._process: now_ms + 1})
    assert shown() == all_of_them, "a child that was forked since"


def test_a_node_has_one_main_process(make: MakeReporter, reader: RedisConnection, client: redis.Redis, keys: FigureKeys) -> None:
    """The one that was killed before it, under the same name, is not shown."""
    make(role="main").courier.deliver()
    main = make(role="main")

    def shown() -> list[str]:
        ((process,),) = (node.processes for node in read_figures(reader, keys).nodes)
        return [process.role]

    main.courier.deliver()
    assert shown() == ["main"]


def test_what_another_release_wrote_is_left_out(
    make: MakeReporter, reader: RedisConnection, client: redis.Redis, keys: FigureKeys
) -> None:
    """In a rolling upgrade both report."""
    make().courier.deliver()
    client.zadd(keys.processes, {"tomorrow": time.time() * 1000 + 5000})
    client.set(keys.row("tomorrow"), b'{"shape": "another"}')
    client.lpush(keys.invalidations, b"not JSON")
    figures = read_figures(reader, keys)
    assert (len(figures.nodes), figures.invalidations) == (1, ())


# -- invalidations


def test_an_invalidation_is_shown_with_its_reach(make: MakeReporter, reader: RedisConnection, keys: FigureKeys) -> None:
    """The process that made it, and which nodes have applied it after how long; the longest is exact."""
    registry = NodeRegistry(reader, KeySpace(keys.namespace))
    for name in ("n1", "n2", "n3"):
        registry.beat(name)
    publisher = make(role="producer", node="laptop")
    wall = Clock(1_700_000_000.0)
    publisher.invalidated("e:7", wall.now_s, tuple(f"persona:{number}:*" for number in range(9)), durable=True)
    publisher.courier.deliver()
    for name, after_s in (("n1", 0.004), ("n2", 0.0025), ("n3", -3.0)):
        node = make(role="main", node=name, wall_clock=lambda after_s=after_s: wall.now_s + after_s)
        node.applied("e:7", wall.now_s)
        node.courier.deliver()
    figures = read_figures(reader, keys)
    (made,) = figures.invalidations
    assert (made.id, made.at, made.pattern_count, made.durable, made.alive) == ("e:7", 1_700_000_000.0, 9, True, 3)
    assert made.patterns == tuple(f"persona:{number}:*" for number in range(5))
    assert made.by.startswith("laptop (producer ")
    # A clock that is behind makes it 0, never less.
    assert [(applied.node, applied.delay_ms) for applied in made.reach] == [
        ("n3", 0.0),
        ("n2", pytest.approx(2.5, abs=0.01)),
        ("n1", pytest.approx(4.0, abs=0.01)),
    ]
    assert figures.invalidation_count == figures.ever.invalidations == 1
    assert figures.spreads["staleness"].count == 3
    assert figures.spreads["staleness"].max_ms == pytest.approx(4.0, abs=0.01)


def test_the_last_fifty_invalidations_are_kept_newest_first(
    make: MakeReporter, reader: RedisConnection, keys: FigureKeys
) -> None:
    """Also when more of them are made between two reports: all of them count."""
    reporter = make()
    for number in range(30):
        reporter.invalidated(f"e:{number}", time.time(), ("a",), durable=True)
    reporter.courier.deliver()
    for number in range(30, 120):
        reporter.invalidated(f"e:{number}", time.time(), ("a",), durable=False)
    reporter.courier.deliver()
    figures = read_figures(reader, keys)
    assert [made.id for made in figures.invalidations] == [f"e:{number}" for number in range(119, 119 - KEPT_INVALIDATIONS, -1)]
    assert figures.invalidation_count == 120


# -- what a pipeline counts


class Moody(PromptResponder):
    """Answers, or fails as it is told."""

    error: Exception | None = None

    def respond(self, prompt: Prompt) -> str:
        if self.error is not None:
            raise self.error
        return super().respond(prompt)


def pipeline_of(settings: Settings, responder: Responder) -> OptimizedPipeline:
    return build_optimized_pipeline(settings, PersonaPipeline(load_catalog(), responder))


def settings_of(url: str, namespace: str, **more: str) -> Settings:
    return load_settings({"PERSONA_CACHE_URL": url, "PERSONA_CACHE_NAMESPACE": namespace, **more})


def test_a_pipeline_counts_each_request_once_by_its_outcome(
    redis_url: str, namespace: str, reader: RedisConnection, keys: FigureKeys
) -> None:
    """A failure that is tried again is none yet, and a renewal, which no caller asked for, does not count at all."""
    request = PersonaRequest.create("How do I begin?", "calm-flowing-planning")
    other = PersonaRequest.create("And then?", "calm-flowing-planning")
    responder = Moody()
    with closing(pipeline_of(settings_of(redis_url, namespace), responder)) as pipeline:
        assert [pipeline.process_request(request).cached for _ in range(3)] == ["no", "l1", "l1"]
        pipeline.process_request(other, counted=False)
        assert pipeline.seek(request).response is not None
        unasked = PersonaRequest.create("Who are you?", "calm-flowing-planning")
        assert pipeline.seek(unasked).response is None
        responder.error = TransientModelError("busy")
        for tried_again in (True, True, False):
            with pytest.raises(TransientModelError):
                pipeline.process_request(unasked, tried_again=tried_again)
        responder.error = PermanentModelError("no such model")
        with pytest.raises(PermanentModelError):
            pipeline.process_request(unasked, tried_again=True)
        with pytest.raises(PermanentModelError):
            pipeline.process_request(unasked, counted=False)
        stats = pipeline.get_cache_stats()
        assert (stats["total_requests"], stats["cache_hits"], stats["cache_misses"]) == (4, 3, 1)
    assert read_figures(reader, keys).requests == Requests(l1=3, no=1, failed=2)


def test_figures_that_are_turned_off_stay_in_the_process(
    redis_url: str,
    namespace: str,
    reader: RedisConnection,
    keys: FigureKeys,
    reporting_threads: Callable[[], list[threading.Thread]],
) -> None:
    """PERSONA_FIGURES=false: no figure is sent, and the process still knows its own. The hot set is no figure."""
    settings = settings_of(redis_url, namespace, PERSONA_FIGURES="false")
    with closing(pipeline_of(settings, PromptResponder())) as pipeline:
        for _ in range(5):
            pipeline.process("How do I begin?", "calm-flowing-planning")
        assert len(reporting_threads()) == 1
        assert pipeline.get_cache_stats()["total_requests"] == 5
    assert reporting_threads() == []
    figures = read_figures(reader, keys)
    assert (figures.ever.requests, figures.nodes) == (Requests(), ())
    assert [hot.score for hot in figures.hot] == [5.0]


def test_a_passenger_that_fails_does_not_keep_another_from_telling(redis_url: str) -> None:
    """Of equal right, and each is called on every occasion."""
    courier = Courier(lambda: RedisConnection(redis_url), threaded=False)
    occasions: list[str] = []

    def fails(_: RedisConnection, occasion: Occasion) -> None:
        raise SharedTierUnavailableError(occasion)

    courier.carry(fails)
    courier.carry(lambda _, occasion: occasions.append(occasion))
    courier.start()
    assert not courier.deliver("due")
    courier.close()
    assert occasions == ["due", "last"]


# -- the thread


@pytest.fixture
def reporting_threads() -> Callable[[], list[threading.Thread]]:
    """Those that this test has started: a program's own pipeline, which another test has made, may go on reporting."""
    foreign = set(threading.enumerate())
    return lambda: [thread for thread in threading.enumerate() if thread.name == "courier" and thread not in foreign]


def test_the_first_record_starts_the_reporting_and_close_ends_it(
    redis_url: str, keys: FigureKeys, reader: RedisConnection, reporting_threads: Callable[[], list[threading.Thread]]
) -> None:
    """Nothing runs before there is something to tell, nothing after; a later record begins anew."""
    reporter = Reporter(Courier(lambda: RedisConnection(redis_url)), keys, node="n", role="worker")
    assert reporting_threads() == []
    for expected in (1, 2):
        reporter.tally.record("l1", 0.1)
        assert len(reporting_threads()) == 1
        until(lambda expected=expected: read_figures(reader, keys).requests.l1 == expected, "it was reported")  # type: ignore[misc]
        assert len(read_figures(reader, keys).nodes) == 1
        reporter.courier.close()
        assert reporting_threads() == []
        assert read_figures(reader, keys).nodes == ()


def test_close_reports_what_is_left(redis_url: str, keys: FigureKeys, reader: RedisConnection) -> None:
    """A program that lives for less than a second counts, too."""
    reporter = Reporter(Courier(lambda: RedisConnection(redis_url)), keys, node="n", role="producer")
    record(reporter, l1=12)
    reporter.courier.close()
    assert read_figures(reader, keys).requests.l1 == 12


def test_without_a_server_it_counts_for_itself(keys: FigureKeys, reporting_threads: Callable[[], list[threading.Thread]]) -> None:
    """No thread, no error."""
    reporter = Reporter(None, keys, node="n", role="worker")
    record(reporter, l1=5000)
    reporter.invalidated("e:1", 0.0, ("a",), durable=False)
    assert reporting_threads() == []
    assert not reporter.courier.deliver()
    assert reporter.tally.snapshot()["l1"].count == 5000
    reporter.courier.close()


FORKING = """
    import os, sys, threading
    from pipeline.cache.server.connection import RedisConnection
    from pipeline.courier import Courier
    from pipeline.figures import FigureKeys, Reporter

    url, namespace = sys.argv[1:]
    reporter = Reporter(Courier(lambda: RedisConnection(url, timeout_s=5)), FigureKeys(namespace), node="n", role="worker")
    for _ in range(10):
        reporter.tally.record("l1", 0.1)
    held, over = threading.Event(), threading.Event()

    def hold():
        with reporter.courier._lock, reporter.courier._way, reporter.tally._lock:
            held.set()
            over.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(20)
    child = os.fork()
    if child == 0:
        assert threading.active_count() == 1
        reporter.tally.record("l2", 0.1)
        assert threading.active_count() == 2
        reporter.courier.close()
        os._exit(0)
    over.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    # Ends without a word: what is left is reported at exit.
"""


def test_a_forked_child_begins_from_nothing_and_the_parent_reports_at_exit(
    redis_url: str, keys: FigureKeys, reader: RedisConnection
) -> None:
    """Neither counts for the other, whatever locks were held, and no call waits for a thread that is not there."""
    done = run_program(FORKING, redis_url, keys.namespace)
    assert done.returncode == 0, done.stderr
    figures = read_figures(reader, keys)
    assert figures.requests == Requests(l1=10, l2=1)
    assert figures.nodes == ()
