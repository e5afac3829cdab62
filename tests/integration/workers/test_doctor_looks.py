"""How the doctor looks at a real server: what it sees, and that it leaves nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis
from servers import ValkeyServer

from workers.doctor.looks.beat import PREFIX, SCHEDULE, beat_at
from workers.doctor.looks.log import log_at
from workers.doctor.looks.server import client_of, look_at
from workers.doctor.looks.waiting import SEP, kept_under, waiting_at
from workers.install.rights import refused, to_ask, to_be_answered, to_cache, to_work
from workers.node.fetch.claims import CLAIMS, NODES, SOURCES
from workers.queue.aside.messages import ASIDE
from workers.queue.names import QUEUES

NEEDS = (*to_ask("persona", 0), *to_be_answered(), *to_work(0), *to_cache("persona", 0))
PASSWORD = "a-password"


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def client(server: ValkeyServer) -> Iterator[redis.Redis]:
    """Of an empty server."""
    with closing(server.client()) as client:
        client.flushall()
        yield client


def test_rights_are_asked_for_and_not_used(server: ValkeyServer, client: redis.Redis) -> None:
    """Of every command that is needed, the blocking and the writing ones, too."""
    client.acl_setuser("narrow", enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"], channels=["*"], commands=["+@all"])
    client.execute_command("ACL", "SETUSER", "narrow", "-blmove", "-publish", "-getex")
    assert refused(client, NEEDS) == ()
    with closing(client_of(f"redis://narrow:{PASSWORD}@127.0.0.1:{server.port}/0", 2.0)) as narrow:
        assert refused(narrow, NEEDS) == ("BLMOVE", "GETEX", "PUBLISH")
        assert narrow.ping(), "its connections are of use"
    assert client.dbsize() == 0


def test_keys_and_channels_that_a_user_lacks_are_refused_rights(server: ValkeyServer, client: redis.Redis) -> None:
    """Not the commands alone."""
    client.execute_command("ACL", "SETUSER", "fenced", "on", f">{PASSWORD}", "+@all", "resetkeys", "~celery*", "resetchannels")
    with closing(client_of(f"redis://fenced:{PASSWORD}@127.0.0.1:{server.port}/0", 2.0)) as fenced:
        assert refused(fenced, to_be_answered()) == ("SUBSCRIBE",)
        assert "LPUSH" in refused(fenced, to_ask("persona", 0))


def test_a_server_is_seen_with_its_words_and_its_clock(server: ValkeyServer) -> None:
    """And one that is frozen as one that is away, within the bound."""
    seen = look_at("broker", server.url, NEEDS, 5.0)
    assert (seen.known, seen.refused, seen.is_open, seen.remote) == (True, (), True, False)
    assert seen.text("role") == "master"
    assert seen.config is not None
    assert seen.config["save"] == ""
    assert abs(seen.skew_s) <= 1.0 + seen.round_trip_s
    server.freeze()
    frozen = look_at("broker", server.url, NEEDS, 0.2)
    server.thaw()
    assert frozen.away
    assert not frozen.known


def test_what_waits_is_counted_by_list(client: redis.Redis) -> None:
    """Lists of every priority, what is aside, and claims that nobody gives back."""
    now_ms = time.time() * 1000
    client.lpush("persona", b'{"headers": {"persona_published_at": %d}}' % (time.time() - 100))
    client.lpush(f"persona.bulk{SEP}5", "{}", "{}")
    client.zadd(ASIDE, {"persona\na": now_ms - 60_000, "persona\nb": now_ms + 60_000})
    client.zadd(NODES, {"dead/1/aabbccdd": now_ms - 60_000, "living/2/aabbccdd": now_ms})
    for node in ("dead/1/aabbccdd", "living/2/aabbccdd", "unknown/3/aabbccdd"):
        client.sadd(SOURCES + node, "persona")
        client.lpush(f"{CLAIMS}{node}:persona", "{}")
    seen = waiting_at(client, QUEUES)
    assert seen.lists == {("persona", 0): 1, ("persona.bulk", 5): 2}
    assert 99 <= seen.oldest_s["persona"] <= 300
    assert (seen.aside, seen.overdue, seen.letters, seen.denied) == (2, 1, 0, ())
    assert {(orphan.node, orphan.claims) for orphan in seen.orphans} == {("dead/1/aabbccdd", 1), ("unknown/3/aabbccdd", 1)}


def test_keys_without_an_end_are_those_under_the_prefix(client: redis.Redis) -> None:
    """A namespace with characters that a pattern would read is taken as it is."""
    client.set("a[b]:2:e:x", 1)
    client.set("a[b]:2:e:y", 1, ex=60)
    client.set("ab:2:e:x", 1)
    seen = kept_under(client, b"a[b]:2:")
    assert (seen.looked_at, seen.endless_count, seen.endless) == (2, 1, ("a[b]:2:e:x",))


def test_an_empty_server_has_no_log_and_no_beat(client: redis.Redis) -> None:
    """And to look at it begins none."""
    log, beat = log_at(client, "persona"), beat_at(client)
    assert (log.tail, log.alive, log.stale, log.denied) == (None, (), 0, "")
    assert (beat.locked, beat.entries, beat.known) == (False, (), True)
    assert client.dbsize() == 0


def test_the_schedule_is_read_with_its_tasks(client: redis.Redis) -> None:
    """One whose definition is not there stays without a task."""
    client.zadd(SCHEDULE, {f"{PREFIX}one": time.time() - 50, f"{PREFIX}two": time.time() + 50})
    client.hset(f"{PREFIX}one", "definition", '{"task": "shop.report"}')
    one, two = beat_at(client).entries
    assert (one.name, one.task, two.task) == ("one", "shop.report", "")
    assert one.overdue_s > 40 > two.overdue_s
