"""The invalidation log on a real server: its numbers, its length, and what a reader makes of a log that was damaged."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from servers import ValkeyServer

from pipeline.cache import Found, RedisCache, TwoTierCache
from pipeline.cache.coherence.log import LocalInvalidationLog, RedisInvalidationLog
from pipeline.cache.coherence.registry import NodeRegistry
from pipeline.cache.coherence.tail import Page, Tail
from pipeline.cache.coherence.view import InvalidationView
from pipeline.cache.entry import AsOf
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.connection import RedisConnection

RETENTION_S = 600.0


@pytest.fixture
def keys(namespace: str) -> KeySpace:
    return KeySpace(namespace)


@pytest.fixture
def connection(redis_url: str) -> Iterator[RedisConnection]:
    connection = RedisConnection(redis_url, timeout_s=5.0, retry_pause_s=0.0)
    yield connection
    connection.close()


@pytest.fixture
def log(connection: RedisConnection, keys: KeySpace) -> RedisInvalidationLog:
    return RedisInvalidationLog(connection, keys, retention_s=RETENTION_S)


def records(client: redis.Redis, keys: KeySpace) -> dict[str, int]:
    """The contents of the log: the seq of each pattern."""
    pairs: Any = client.zrange(keys.records, 0, -1, withscores=True)
    return {pattern.decode(): int(seq) for pattern, seq in pairs if pattern}  # '' tells since when they are whole


def stored_tail(client: redis.Redis, keys: KeySpace) -> Tail | None:
    raw: Any = client.get(keys.tail)
    return Tail.parse(raw) if raw else None


def make_marks_older(client: redis.Redis, keys: KeySpace, seconds: float) -> None:
    """Let the server's time pass for the log."""
    marks: Any = client.zrange(keys.marks, 0, -1)
    for mark in marks:
        client.zincrby(keys.marks, -seconds * 1000, mark)


# -- appending


def test_every_pattern_takes_the_next_seq(log: RedisInvalidationLog, client: redis.Redis, keys: KeySpace) -> None:
    """Without holes, in the order given, from one append to the next."""
    first = log.append(["a"])
    assert (first.seq, first.floor) == (1, 0)
    second = log.append(["b", "c", "d"])
    assert second == Tail(first.epoch, 4, 0)
    assert records(client, keys) == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert stored_tail(client, keys) == second


def test_an_equal_pattern_replaces_its_older_record(log: RedisInvalidationLog, client: redis.Redis, keys: KeySpace) -> None:
    """The log is as long as its distinct patterns; within one append, too. Its newest record always holds the tail's seq."""
    for _ in range(50):
        log.append(["a", "b"])
    tail = log.append(["a", "a"])
    assert records(client, keys) == {"b": 100, "a": 102}
    assert tail.seq == 102


@pytest.mark.parametrize("pattern", ["1", "*", "e:1:2", "한글:*", "a b\n", "\\*", "nan", "+inf", "-1"])
def test_a_pattern_travels_to_the_letter(log: RedisInvalidationLog, pattern: str) -> None:
    """Whatever it looks like to Redis or Lua."""
    log.append([pattern])
    assert log.read_since(None).records == [(pattern, 1)]


def test_the_first_reader_of_an_empty_server_begins_an_epoch(
    log: RedisInvalidationLog, client: redis.Redis, keys: KeySpace
) -> None:
    """All later readers and appenders are of that epoch."""
    page = log.read_since(None)
    assert page.restart
    assert page.records == []
    assert stored_tail(client, keys) == page.tail == Tail(page.tail.epoch, 0, 0)
    assert log.read_since(None).tail == page.tail
    assert log.append(["a"]) == Tail(page.tail.epoch, 1, 0)


def test_readers_that_race_on_an_empty_server_agree_on_one_epoch(redis_url: str, keys: KeySpace) -> None:
    """The second one finds the first one's."""
    connections = [RedisConnection(redis_url, timeout_s=5.0) for _ in range(8)]
    logs = [RedisInvalidationLog(connection, keys, retention_s=RETENTION_S) for connection in connections]
    with ThreadPoolExecutor(len(logs)) as pool:
        epochs = {page.tail.epoch for page in pool.map(lambda log: log.read_since(None), logs)}
    assert len(epochs) == 1
    for connection in connections:
        connection.close()


APPENDER = """
    import sys
    from pipeline.cache.server.connection import RedisConnection
    from pipeline.cache.keys import KeySpace
    from pipeline.cache.coherence.log import RedisInvalidationLog

    url, namespace, name = sys.argv[1:]
    log = RedisInvalidationLog(RedisConnection(url, timeout_s=5.0), KeySpace(namespace), retention_s=600.0)
    for number in range(200):
        tail = log.append([f"{name}:{number}", f"{name}:again"])
        print(tail.epoch, tail.seq)
"""


def test_appenders_of_several_processes_take_distinct_seqs(
    log: RedisInvalidationLog, client: redis.Redis, keys: KeySpace, redis_url: str, namespace: str
) -> None:
    """One order for all, without a hole: four processes that race on an empty server."""
    command = [sys.executable, "-c", textwrap.dedent(APPENDER), redis_url, namespace]
    running = [subprocess.Popen([*command, f"p{name}"], stdout=subprocess.PIPE, text=True) for name in range(4)]
    answers = [tuple(line.split()) for process in running for line in process.communicate(timeout=60)[0].splitlines()]
    assert [process.returncode for process in running] == [0] * 4
    assert len({epoch for epoch, _ in answers}) == 1
    assert sorted(int(seq) for _, seq in answers) == list(range(2, 1_601, 2))
    assert len(records(client, keys)) == 4 * 200 + 4
    assert log.read_since(None).tail.seq == 1_600


def test_a_server_that_forgot_its_scripts_is_told_them_again(log: RedisInvalidationLog) -> None:
    """As after a restart or a failover. The server here is the test's own: scripts are the whole server's."""
    with ValkeyServer() as server:
        connection = RedisConnection(server.url, timeout_s=5.0)
        log = RedisInvalidationLog(connection, KeySpace("scripts"), retention_s=RETENTION_S)
        log.append(["a"])
        with server.client() as client:
            client.script_flush()
            assert log.append(["b"]).seq == 2
            client.script_flush()
            client.delete(KeySpace("scripts").tail)
            assert log.read_since(None).restart
        assert connection.breaker.closed
        connection.close()


def test_every_key_of_the_log_ends_by_itself(log: RedisInvalidationLog, client: redis.Redis, keys: KeySpace) -> None:
    """A namespace that is no longer used leaves nothing behind; and no key ends before the entries that it judges."""
    log.read_since(None)
    left_ms: Any = client.pttl(keys.tail)
    assert left_ms > 2 * RETENTION_S * 1000
    log.append(["a"])
    for key in (keys.tail, keys.records, keys.marks, keys.moments):
        left_ms = client.pttl(key)
        assert left_ms > RETENTION_S * 1000, key


def test_the_keys_of_the_log_are_in_one_slot_of_a_cluster(keys: KeySpace, namespace: str) -> None:
    """A script may only touch one: the hash tag is the same, and is the namespace's."""
    tags = {name[name.index(b"{") : name.index(b"}") + 1] for name in (keys.tail, keys.records, keys.marks, keys.moments)}
    assert len(tags) == 1
    assert namespace.encode() in tags.pop()


def test_the_moments_of_the_last_appends_are_noted(log: RedisInvalidationLog, client: redis.Redis, keys: KeySpace) -> None:
    """From which seq to which each took the log, and when by the server's clock; of the last 2,000, so that they stay small."""
    seconds, microseconds = client.time()
    tail = log.append(["a", "b"])
    log.append(["a"])
    noted: Any = client.zrange(keys.moments, 0, -1, withscores=True)
    assert [name.decode() for name, _ in noted] == [f"{tail.epoch}:0:2", f"{tail.epoch}:2:3"]
    assert all(0 <= at - (seconds * 1e6 + microseconds) < 60e6 for _, at in noted)
    client.zadd(keys.moments, {f"old:{number}:{number + 1}": number for number in range(2_500)})
    log.append(["c"])
    assert client.zcard(keys.moments) == 2_000
    assert client.zscore(keys.moments, f"{tail.epoch}:3:4") is not None


# -- reading


def test_a_reader_gets_what_is_new_and_only_that(log: RedisInvalidationLog) -> None:
    """Records newer than the reader's position; none when it knows all."""
    first = log.append(["a", "b"])
    whole = log.read_since(None)
    assert whole.restart
    assert sorted(whole.records) == [("a", 1), ("b", 2)]
    assert log.read_since(first) == Page(first, first.seq, [], restart=False)
    second = log.append(["c", "a"])
    page = log.read_since(first)
    assert (page.tail, page.after, page.restart) == (second, first.seq, False)
    assert page.records == [("c", 3), ("a", 4)]


def test_a_log_keeps_what_is_younger_than_the_retention(log: RedisInvalidationLog, client: redis.Redis, keys: KeySpace) -> None:
    """Older records go with the next append and the floor rises to them: no living entry needs them."""
    old = log.append(["old:1", "old:2"])
    make_marks_older(client, keys, RETENTION_S - 5)
    kept = log.append(["kept"])
    assert kept.floor == 0
    make_marks_older(client, keys, 10)
    tail = log.append(["new"])
    assert tail == Tail(old.epoch, 4, 2)
    assert records(client, keys) == {"kept": 3, "new": 4}
    assert not log.read_since(kept).restart
    behind = log.read_since(Tail(old.epoch, 1, 0))
    assert behind.restart
    assert dict(behind.records) == {"kept": 3, "new": 4}
    assert log.read_since(old).restart is False  # it has seen all that is gone


def test_marks_are_few_however_often_is_appended(log: RedisInvalidationLog, client: redis.Redis, keys: KeySpace) -> None:
    """The log's own book-keeping does not grow with the invalidations."""
    for number in range(200):
        log.append([f"p{number}"])
    assert client.zcard(keys.marks) == 1


def test_an_entry_is_judged_rightly_across_a_trim(log: RedisInvalidationLog, client: redis.Redis, keys: KeySpace) -> None:
    """Entries from after the trimmed records are served on; those from before them are not, for their judges are gone."""
    view = InvalidationView()
    epoch = log.append(["x"]).epoch
    log.append(["a", "b"])
    make_marks_older(client, keys, RETENTION_S + 1)
    log.append(["c"])
    view.apply(log.read_since(None), 0.0)
    floor = view.known.floor if view.known else -1
    assert floor == 1  # the only mark stood there
    assert not view.valid(AsOf(epoch, 0), "k", ())
    assert view.valid(AsOf(epoch, 1), "k", ())
    assert not view.valid(AsOf(epoch, 1), "b", ())
    assert view.valid(AsOf(epoch, 3), "b", ())
    assert not view.valid(AsOf(epoch, 3), "k", ("c",))


@pytest.mark.parametrize("batch", [1, 7, 50])
def test_a_log_is_never_longer_than_its_limit(
    connection: RedisConnection, client: redis.Redis, keys: KeySpace, batch: int
) -> None:
    """Also when one append brings more than the limit; the floor tells the reader what is gone, and a reader behind it starts
    anew."""
    log = RedisInvalidationLog(connection, keys, retention_s=RETENTION_S, max_records=20)
    first = log.append(["first"])
    for number in range(6):
        tail = log.append([f"p:{number}:{part}" for part in range(batch)])
        kept = records(client, keys)
        assert len(kept) <= 20
        assert max(kept.values()) == tail.seq
        assert min(kept.values()) > tail.floor
    expected = range(tail.floor + 1, tail.seq + 1)
    assert sorted(kept.values()) == list(expected)
    assert log.read_since(first).restart == (tail.floor > first.seq)


@pytest.mark.parametrize("batch", [1, 7, 50])
def test_a_log_without_a_server_is_never_longer_than_its_limit(batch: int) -> None:
    """The same rules, shared with no other process."""
    log = LocalInvalidationLog(max_records=20)
    first = log.read_since(None).tail
    for number in range(6):
        tail = log.append([f"p:{number}:{part}" for part in range(batch)])
        page = log.read_since(None)
        assert len(page.records) <= 20
        assert all(seq > tail.floor for _, seq in page.records)
    assert log.read_since(first).restart == (tail.floor > 0)
    assert log.read_since(tail) == Page(tail, tail.seq, [], restart=False)


# -- a log that was damaged


def test_records_that_were_evicted_raise_the_readers_floor(
    log: RedisInvalidationLog, client: redis.Redis, keys: KeySpace
) -> None:
    """A full server may drop them: then only entries as new as the tail can be trusted, and nothing else is served."""
    log.append(["a"])
    view = InvalidationView()
    view.apply(log.read_since(None), 0.0)
    tail = log.append(["k"])
    client.delete(keys.records)
    page = log.read_since(view.known)
    assert page.tail.floor == tail.seq
    view.apply(page, 1.0)
    assert not view.valid(AsOf(tail.epoch, 1), "k", ())
    assert not view.valid(AsOf(tail.epoch, 1), "other", ())
    assert view.valid(AsOf(tail.epoch, 2), "k", ())
    assert view.confirm(client.get(keys.tail), 2.0), "what the server holds is what was seen: no further reading"  # type: ignore[arg-type]


def test_evicted_records_are_missed_only_by_readers_that_did_not_have_them(
    log: RedisInvalidationLog, client: redis.Redis, keys: KeySpace
) -> None:
    """A reader that knows them already goes on; one that stands behind them, or comes later, trusts only entries that are newer.
    That holds after the next append, too, and after the next reading."""
    before = log.append(["a", "k"])
    client.delete(keys.records)
    tail = log.append(["later"])
    assert tail == Tail(before.epoch, 3, 0)
    assert log.read_since(before) == Page(tail, 2, [("later", 3)], restart=False)
    for behind in (None, Tail(before.epoch, 1, 0)):
        assert log.read_since(behind) == Page(tail._replace(floor=2), 0, [("later", 3)], restart=True)
    client.delete(keys.records)
    for reader in (None, before):
        assert log.read_since(reader) == Page(tail._replace(floor=3), 0, [], restart=True)
    assert log.read_since(tail) == Page(tail, 3, [], restart=False)


@pytest.mark.parametrize("records_a_call", [1, 2, 3, 7])
def test_a_long_log_is_read_in_portions(
    log: RedisInvalidationLog, connection: RedisConnection, keys: KeySpace, records_a_call: int
) -> None:
    """The server serves others in between. Their appends are in the page, once, and in order."""
    for number in range(6):
        log.append([f"p{number}"])
    portions = RedisInvalidationLog(connection, keys, retention_s=RETENTION_S, records_a_call=records_a_call)
    read, calls = portions._read, itertools.count()

    def busy(epoch: str, after: int) -> tuple[Tail, int, list[tuple[str, int]]]:
        portion = read(epoch, after)
        if next(calls) == 0:
            log.append(["p0", "p5", "new"])
        return portion

    portions._read = busy  # type: ignore[method-assign]
    page = portions.read_since(None)
    newest = {"p1": 2, "p2": 3, "p3": 4, "p4": 5, "p0": 7, "p5": 8, "new": 9}
    if records_a_call == 7:  # all of it before that
        newest = {f"p{number}": number + 1 for number in range(6)}
    assert page.restart
    assert {pattern: seq for pattern, seq in page.records if newest[pattern] == seq} == newest
    assert [seq for _, seq in page.records] == sorted(seq for _, seq in page.records)
    assert page.tail.seq == max(newest.values())


def test_a_log_that_loses_its_records_while_it_is_read_is_read_anew(
    log: RedisInvalidationLog, connection: RedisConnection, client: redis.Redis, keys: KeySpace
) -> None:
    """Half of a log must not pass for the whole."""
    log.append([f"p{number}" for number in range(6)])
    portions = RedisInvalidationLog(connection, keys, retention_s=RETENTION_S, records_a_call=2)
    read, calls = portions._read, itertools.count()

    def losing(epoch: str, after: int) -> tuple[Tail, int, list[tuple[str, int]]]:
        portion = read(epoch, after)
        if next(calls) == 0:
            client.delete(keys.records)
            log.append(["new"])
        return portion

    portions._read = losing  # type: ignore[method-assign]
    page = portions.read_since(None)
    assert (page.tail.seq, page.tail.floor, page.restart, page.records) == (7, 6, True, [("new", 7)])


def test_a_log_of_another_history_begins_anew(client: redis.Redis) -> None:
    """A server that was started from an old snapshot, or promoted, may lack records that another one acknowledged: its numbers
    are not given out again. The first to come begins anew: a reader, an appender or a beat."""
    keys = KeySpace("history")
    for first in ("append", "read", "beat"):
        with ValkeyServer(keep_on_disk=True) as server:
            connection = RedisConnection(server.url, timeout_s=5.0)
            log = RedisInvalidationLog(connection, keys, retention_s=RETENTION_S)
            before = log.append(["a", "b"])
            assert log.append(["c"]).epoch == before.epoch
            server.stop()
            server.start()
            if first == "append":
                tail = log.append(["d"])
                assert (tail.seq, tail.floor) == (1, 0)
            elif first == "beat":
                assert NodeRegistry(connection, keys).beat("node") is None
            page = log.read_since(before)
            assert page.restart
            assert page.tail.epoch != before.epoch
            assert [pattern for pattern, _ in page.records] == (["d"] if first == "append" else [])
            assert NodeRegistry(connection, keys).beat("node") == bytes(page.tail)
            assert log.append(["e"]).epoch == page.tail.epoch
            connection.close()


def test_a_tail_that_is_gone_is_a_new_epoch(log: RedisInvalidationLog, client: redis.Redis, keys: KeySpace) -> None:
    """Its records are of no use any more; the first to ask makes the epoch, reader or appender."""
    before = log.append(["a", "b"])
    client.delete(keys.tail)
    page = log.read_since(before)
    assert page.restart
    assert page.tail.epoch != before.epoch
    assert page.tail.seq == 0
    assert page.records == []
    assert records(client, keys) == {}
    log.append(["x", "y"])
    client.delete(keys.tail)
    after = log.append(["c"])
    assert after.epoch not in (before.epoch, page.tail.epoch)
    assert after.seq == 1
    assert records(client, keys) == {"c": 1}


def test_a_seq_that_went_back_is_a_new_epoch_for_all(log: RedisInvalidationLog, client: redis.Redis, keys: KeySpace) -> None:
    """An older tail, put there by whatever means: invalidations are forgotten, and every older entry must go, everywhere."""
    log.append(["a"])
    ahead = log.append(["b", "c"])
    client.set(keys.tail, bytes(ahead._replace(seq=1)), ex=600)
    page = log.read_since(ahead)
    assert page.restart
    assert page.tail.epoch != ahead.epoch
    assert log.read_since(None).tail == page.tail
    assert log.append(["d"]).epoch == page.tail.epoch


@pytest.mark.parametrize(
    "garbage", [b"garbage", b"", b"a:b:c", b"e:1", b"e:1:0:0", b"\xff\x00", b":1:0", b"e:-1:0", b"e:1_0:0", b"e: 1:0", b"e:1.5:0"]
)
def test_a_tail_that_is_none_is_replaced(log: RedisInvalidationLog, client: redis.Redis, keys: KeySpace, garbage: bytes) -> None:
    """Reader and appender agree on what a tail is: both begin a new epoch, and go on from there."""
    before = log.append(["a"])
    client.set(keys.tail, garbage, ex=600)
    page = log.read_since(before)
    assert page.restart
    assert page.tail == stored_tail(client, keys)
    assert page.tail.epoch not in (before.epoch, "e", "")
    client.set(keys.tail, garbage, ex=600)
    tail = log.append(["b"])
    assert tail.seq == 1
    assert tail.epoch not in (page.tail.epoch, "e", "")
    assert log.read_since(None).tail == tail


@pytest.mark.parametrize("spoilt", ["tail", "records", "marks"])
def test_a_key_of_another_type_costs_no_answer_and_heals_when_it_is_gone(
    client: redis.Redis, keys: KeySpace, redis_url: str, namespace: str, spoilt: str
) -> None:
    """Another program's list in the log's place: nothing raises, no invalidation claims to be durable, nothing old is served."""
    cache = TwoTierCache(None, RedisCache(url=redis_url, namespace=namespace, timeout_s=5.0))
    cache.get_or_compute("k", lambda: "old")
    name = getattr(keys, spoilt)
    client.delete(name)
    client.rpush(name, "foreign")
    done = cache.invalidate("k")
    assert not done.durable
    assert cache.get_or_compute("k", lambda: "new") == "new"
    assert cache.get("k") == "new"
    assert client.lrange(name, 0, -1) == [b"foreign"]
    client.delete(name)
    assert cache.invalidate("k").durable
    other = TwoTierCache(None, RedisCache(url=redis_url, namespace=namespace, timeout_s=5.0))
    other.get_or_compute("k", lambda: "newer")
    assert cache.lookup("k") == Found("newer", "l2")
    for each in (cache, other):
        each.clear()
        each.close()


@pytest.mark.parametrize(
    ("member", "score"), [(b"\xff\xfe", 2), (b"", 2), (b"[open", 2), (b"x" * 9_000, 2), (b"a", "inf"), (b"a", "2.5")], ids=repr
)
def test_a_record_that_is_none_costs_entries_and_no_answer(
    log: RedisInvalidationLog, client: redis.Redis, keys: KeySpace, redis_url: str, namespace: str, member: bytes, score: Any
) -> None:
    """Nothing of ours writes such a record. It is taken for one that means every key; no read raises for it."""
    cache = TwoTierCache(None, RedisCache(url=redis_url, namespace=namespace, timeout_s=5.0))
    cache.get_or_compute("k", lambda: "old")
    log.append(["x", "y"])
    client.zadd(keys.records, {member: float(score)})
    cache.l1.clear()
    assert cache.get("k") in ("old", cache.get("absent"))
    assert cache.get_or_compute("k2", lambda: "new") == "new"
    assert cache.invalidate("k").durable
    cache.clear()
    cache.close()


def test_a_log_that_goes_away_while_it_is_read_is_an_outage(log: RedisInvalidationLog, keys: KeySpace) -> None:
    """One error of the cache's own, with its cause; never one of the client's."""
    away = RedisInvalidationLog(RedisConnection("redis://127.0.0.1:1/0", timeout_s=0.1), keys, retention_s=RETENTION_S)
    for _ in range(2):
        with pytest.raises(SharedTierUnavailableError):
            away.append(["a"])
        with pytest.raises(SharedTierUnavailableError):
            away.read_since(None)
