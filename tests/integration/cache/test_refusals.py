"""A server that answers and refuses: what the public interface reports, what is logged, and how it becomes well again."""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from front import Front, TlsFront
from polling import until
from servers import ValkeyServer, free_port

from pipeline.cache import LocalCache, RedisCache, TwoTierCache
from pipeline.cache.coherence.registry import NodeRegistry
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.connection import RedisConnection
from pipeline.cache.server.health import FORGET_S, Health
from pipeline.courier import Courier
from pipeline.figures import FigureKeys, Reporter, read_figures
from pipeline.hot import Asked, HotKeys, HotSet
from pipeline.models import PersonaRequest
from pipeline.preload import Round

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"
PASSWORD = "s3cret"
TIMEOUT_S = 2.0


def cache_at(url: str, namespace: str = "s", **options: Any) -> TwoTierCache:
    return TwoTierCache(LocalCache(), RedisCache(url=url, namespace=namespace, timeout_s=TIMEOUT_S), **options)


def told(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    """The cache's log at that level."""
    return [each.getMessage() for each in caplog.records if each.name.startswith("pipeline.cache") and each.levelno == level]


@pytest.fixture(autouse=True)
def _listen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pipeline.cache")


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer(password=PASSWORD) as server:
        with server.client() as control:
            for name, rights in RIGHTS.items():
                control.execute_command("ACL", "SETUSER", name, "on", ">pw", *rights.split())
        yield server


RIGHTS = {
    "nobody": "-@all",
    "entries": "~s:* +@all",
    "no-scripts": "~* +@all -@scripting",
    "few-commands": "~s:* ~{s:* +get +getex +set +evalsha +eval",
    "reader": "~* +@read +@connection",
}

# -- what never works


CASES = {
    "a wrong password": ("redis://:wrong@127.0.0.1:{port}/0", "WRONGPASS"),
    "no password": ("redis://127.0.0.1:{port}/0", "NOAUTH"),
    "a database that is not there": ("redis://:s3cret@127.0.0.1:{port}/99", "ERR"),
    "a user that is not there": ("redis://who:pw@127.0.0.1:{port}/0", "WRONGPASS"),
    **{f"a user with few rights: {name}": (f"redis://{name}:pw@127.0.0.1:{{port}}/0", None) for name in RIGHTS},
}


@pytest.mark.parametrize("case", CASES)
def test_a_tier_that_is_refused_is_told_once_and_shown(server: ValkeyServer, caplog: pytest.LogCaptureFixture, case: str) -> None:
    """Answers are computed as ever; the stats show why."""
    url, code = CASES[case]
    with closing(cache_at(url.format(port=server.port))) as cache:
        for number in range(5):
            cache.l1.clear()
            assert cache.get_or_compute(f"k{number}", lambda: "the value of a user") == "the value of a user"
        warnings = told(caplog)
        l2 = cache.get_stats()["l2"]
        assert cache.degraded
        assert l2["available"] is False
        assert re.fullmatch("[A-Z]+", l2["refused"])
        assert code is None or l2["refused"] == code
    assert [line.partition(":")[0] for line in warnings] == ["cache.tier_refused"] * len(warnings)
    codes = [re.sub(r" \(.*", "", line) for line in warnings]
    assert len(codes) == 1
    shown = "\n".join(told(caplog) + told(caplog, logging.INFO))
    assert not {word for word in ("pw@", PASSWORD, "wrong", "k0", "the value", "127.0.0.1") if word in shown}


def test_what_cannot_be_reached_is_told_once_and_when_it_is_there(caplog: pytest.LogCaptureFixture) -> None:
    """A host that does not answer is no better than one that refuses."""
    port = free_port()
    with closing(cache_at(f"redis://127.0.0.1:{port}/0")) as cache:
        for _ in range(3):
            cache.l1.clear()
            cache.get_or_compute("k", lambda: 1)
        assert cache.degraded
        assert cache.get_stats()["l2"]["refused"] == ""
        assert told(caplog) == ["cache.tier_unreachable: ConnectionRefusedError"]
        with ValkeyServer(port=port):
            until(lambda: cache.refresh() and not cache.degraded, "it is found back")
            assert told(caplog, logging.INFO) == ["cache.tier_well"]
    assert len(told(caplog)) == 1


def test_a_server_with_a_certificate_of_another_authority_is_told(server: ValkeyServer, caplog: pytest.LogCaptureFixture) -> None:
    """And one with a certificate that is not checked is not."""
    with TlsFront(server.port) as front:
        made = front.certificates
        url = f"rediss://:{PASSWORD}@127.0.0.1:{front.port}/0"
        for options in (f"?ssl_ca_certs={made.stranger}", ""):
            caplog.clear()
            with closing(cache_at(url + options)) as cache:
                assert cache.get_or_compute("k", lambda: 1) == 1
                assert cache.degraded
            (line,) = told(caplog)
            assert line.startswith("cache.tier_unreachable: SSLCertVerificationError (")
            assert "PERSONA_CACHE_URL" in line
        caplog.clear()
        for options in (f"?ssl_ca_certs={made.authority}", f"?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={made.authority}",
                        "?ssl_cert_reqs=none", "?ssl_cert_reqs=CERT_NONE"):  # fmt: skip
            with closing(cache_at(url + options)) as cache:
                assert cache.invalidate("k").durable
                assert cache.get_stats()["l2"]["available"]
        assert told(caplog) == []


# -- what becomes well again


def test_a_full_server_is_told_and_well_again_when_it_has_room(caplog: pytest.LogCaptureFixture) -> None:
    """It still answers reads, so the breaker stays closed; nothing can be kept, which is what `available` means."""
    with ValkeyServer(maxmemory="3mb", maxmemory_policy="noeviction") as server, server.client() as control:
        with closing(cache_at(server.url)) as cache:
            assert cache.get_or_compute("before", lambda: 1) == 1
            assert cache.l2 is not None
            control.config_set("maxmemory", "1")
            for number in range(5):
                assert cache.get_or_compute(f"k{number}", lambda: "computed") == "computed"
            assert cache.degraded
            assert cache.l2.connection.breaker.closed
            l2 = cache.get_stats()["l2"]
            assert (l2["available"], l2["refused"]) == (False, "OOM")
            figures = read_figures(cache.l2.connection, FigureKeys("s"))
            assert (figures.available, figures.refused) == (True, "OOM")
            assert len(told(caplog)) == 1
            assert told(caplog, logging.INFO) == []
            control.config_set("maxmemory", "0")
            assert cache.invalidate("k").durable
            assert cache.get_or_compute("again", lambda: 1) == 1
            assert cache.get_stats()["l2"]["available"]
            assert not cache.degraded
            assert told(caplog, logging.INFO) == ["cache.tier_well"]
            assert read_figures(cache.l2.connection, FigureKeys("s")).refused == ""
        assert len(told(caplog)) == 1


def test_a_right_that_is_given_later_makes_it_well(server: ValkeyServer, caplog: pytest.LogCaptureFixture) -> None:
    """And one that is taken away is told anew: a change of state each."""
    with server.client() as control, closing(cache_at(f"redis://later:pw@127.0.0.1:{server.port}/0")) as cache:
        for round_ in range(1, 3):
            control.execute_command("ACL", "SETUSER", "later", "reset", "on", ">pw", "~*", "+@all", "-set")
            cache.get_or_compute(f"k{round_}", lambda: 1)
            assert cache.degraded
            assert len(told(caplog)) == round_
            control.execute_command("ACL", "SETUSER", "later", "+@all")
            cache.get_or_compute(f"again{round_}", lambda: 1)
            assert cache.get_stats()["l2"]["available"]
            assert not cache.degraded
            assert len(told(caplog, logging.INFO)) == round_


def test_a_password_that_was_changed_is_taken_up_by_no_process_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """An open connection of the old login may live on; each new one is refused."""
    with ValkeyServer(password="one") as server, server.client() as control, closing(cache_at(server.url)) as cache:
        cache.get_or_compute("k", lambda: 1)
        control.config_set("requirepass", "two")
        control.client_kill_filter(_type="normal", skipme=True)
        assert cache.get_or_compute("other", lambda: 1) == 1
        assert cache.degraded
        assert told(caplog) == ["cache.tier_refused: WRONGPASS (of AUTH)"]
        with redis.Redis.from_url(server.url.replace("one", "two")) as new:
            new.config_set("requirepass", "one")
        until(lambda: cache.refresh() and not cache.degraded, "the login is good again")
        assert told(caplog, logging.INFO) == ["cache.tier_well"]


def test_a_key_of_another_type_is_no_refusal_of_the_tier(
    caplog: pytest.LogCaptureFixture, redis_url: str, namespace: str
) -> None:
    """It is one key's matter."""
    with closing(cache_at(redis_url, namespace)) as cache, redis.Redis.from_url(redis_url) as control:
        assert cache.l2 is not None
        control.rpush(cache.l2.keys.entry("k"), "x")
        assert cache.l2.get("k", None) is None
        assert not cache.degraded
        assert cache.get_stats()["l2"]["available"]
    assert told(caplog) == []


def test_a_refusal_that_nobody_meets_again_does_not_stand_for_ever() -> None:
    """A need that has gone cannot be found met again."""
    now_s = 0.0
    health = Health(clock=lambda: now_s)
    health.refused("SCAN", "NOPERM")
    now_s = FORGET_S - 1
    assert health.code == "NOPERM"
    now_s = FORGET_S
    assert health.code is None
    assert not health.ill


def test_a_line_is_written_for_each_cause_and_one_when_all_is_well(caplog: pytest.LogCaptureFixture) -> None:
    """However many commands it concerns."""
    health = Health("figures")
    for need, code in (("SET", "OOM"), ("append", "OOM"), ("SCAN", "NOPERM"), ("SET", "OOM")):
        health.refused(need, code)
    health.lost("TimeoutError")
    health.lost("TimeoutError")
    assert [line.partition(" (")[0] for line in told(caplog)] == [
        "figures.tier_refused: OOM",
        "figures.tier_refused: NOPERM",
        "figures.tier_unreachable: TimeoutError",
    ]
    for need in ("SET", "append", "SCAN"):
        health.met(need)
    assert told(caplog, logging.INFO) == []
    health.met()
    assert told(caplog, logging.INFO) == ["figures.tier_well"]


# -- not this server


def test_a_process_follows_its_address_to_the_new_master(caplog: pytest.LogCaptureFixture) -> None:
    """The old master lives on as a replica and keeps its connections. Also for a process that only ever reads."""
    with ValkeyServer() as old, ValkeyServer() as new, old.client() as control, new.client() as promoted:
        promoted.execute_command("REPLICAOF", "127.0.0.1", old.port)
        until(lambda: promoted.info("replication")["master_link_status"] == "up", "the replica follows")
        with Front(old.port) as front, closing(cache_at(front.url)) as writer, closing(cache_at(front.url)) as reader:
            assert writer.set("k", "before").durable
            assert reader.get("k") == "before"
            until(lambda: promoted.get(KeySpace("s").entry("k")) is not None, "it is replicated")
            promoted.execute_command("REPLICAOF", "NO", "ONE")
            front.target_port = new.port
            control.execute_command("REPLICAOF", "127.0.0.1", new.port)
            assert reader.l2 is not None
            made = reader.l2.connection.made
            assert writer.invalidate("k").durable
            assert not writer.degraded
            reader.l1.clear()
            assert reader.get("k", None) is None
            assert not reader.degraded
            assert reader.l2.connection.made > made
    assert told(caplog) == []


def test_a_demoted_master_confirms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """By an address that stays with it: the process is degraded and says so, and is well when the server is a master again."""
    with ValkeyServer() as server, server.client() as control, closing(cache_at(server.url, strict=True)) as cache:
        cache.get_or_compute("k", lambda: "old")
        control.execute_command("REPLICAOF", "127.0.0.1", free_port())
        cache.l1.clear()
        assert cache.get("k", None) is None
        assert cache.degraded
        assert cache.l2 is not None
        with pytest.raises(SharedTierUnavailableError):
            cache.l2.read_many(["k"])
        assert not cache.invalidate("z").durable
        assert cache.get_stats()["l2"]["refused"] == "READONLY"
        assert told(caplog) == ["cache.tier_refused: READONLY (of GETEX)"]
        control.execute_command("REPLICAOF", "NO", "ONE")
        until(lambda: cache.refresh() and not cache.degraded, "it is a master again")
        assert cache.get_or_compute("again", lambda: 1) == 1


def test_a_server_that_misses_its_replicas_or_its_disk_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Refusals that need no demotion."""
    with ValkeyServer() as server, server.client() as control, closing(cache_at(server.url)) as cache:
        assert cache.l2 is not None
        cache.get_or_compute("k", lambda: 1)
        control.config_set("min-replicas-to-write", 1)
        cache.get_or_compute("l", lambda: 1)
        assert cache.degraded
        assert cache.get_stats()["l2"]["refused"] == "NOREPLICAS"
        control.config_set("min-replicas-to-write", 0)
        until(lambda: cache.refresh() and cache.l2 is not None and cache.l2.available, "it has what it misses")
        assert not cache.degraded


# -- the rights that suffice


def acl_line() -> str:
    """As docs/operations.md has it."""
    (line,) = re.findall(r"^ACL SETUSER persona .*$", OPERATIONS.read_text(encoding="utf-8"), re.MULTILINE)
    return line


def test_the_rights_of_the_documentation_suffice_for_all_that_is_done(
    server: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """For the cache, its nodes, the figures and the hot set; and reach no other program's keys."""
    with server.client() as control:
        control.execute_command(*shlex.split(acl_line().replace("PASSWORD", "pw")))
        url = f"redis://persona:pw@127.0.0.1:{server.port}/0"
        with closing(RedisConnection(url, timeout_s=TIMEOUT_S, purpose="cache")) as connection:
            with closing(cache_at(url, "persona")) as cache:
                _use(cache)
            _tell(connection)
            assert connection.refused is None
        control.set("another program's", "kept")
        with redis.Redis.from_url(url) as user:
            for command in (("GET", "another program's"), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("SHUTDOWN",)):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    user.execute_command(*command)
    assert told(caplog) == []


def _use(cache: TwoTierCache) -> None:
    assert cache.l2 is not None
    assert cache.in_flight is not None
    cache.set("k", "v")
    cache.get_or_compute("l", lambda: 1, deps=("k",))
    cache.l1.clear()
    assert cache.get("k") == "v"
    assert cache.warm({"k": Any, "l": Any}) >= 1
    assert cache.left_s(["k"])
    registry = NodeRegistry(cache.l2.connection, cache.l2.keys)
    registry.beat("n1")
    registry.acknowledge("id", "n1")
    assert registry.wait("id", 1.0, settle_s=0.0) == (["n1"], [])
    assert registry.alive() == ["n1"]
    assert cache.in_flight.enter("q", (), "task") is None
    assert cache.in_flight.holds("q", "task")
    assert cache.in_flight.may_refresh("q", 1.0)
    cache.in_flight.leave("q", "task")
    assert cache.invalidate("l").durable
    assert cache.sweep() is not None
    assert cache.delete("k")
    cache.delete_pattern("*")
    stats = cache.get_stats()["l2"]
    assert (stats["available"], stats["refused"]) == (True, "")
    assert stats["memory_used"] != "0.0 MB"


def _tell(connection: RedisConnection) -> None:
    keys = FigureKeys("persona")
    reporter = Reporter(Courier(lambda: connection, threaded=False), keys, node="n1")
    reporter.invalidated("id", 1.0, ("a:*",), durable=True)
    reporter.applied("id", 1.0)
    assert reporter.courier.deliver()
    assert read_figures(connection, keys).refused == ""
    hot = HotSet(connection, HotKeys("persona"))
    request = PersonaRequest.create("What shall I do?", "calm-flowing-planning")
    hot.count({"key": Asked(5, request)})
    assert hot.decay() == 1
    assert hot.top() != []
    assert hot.request("key") == request
    hot.forget("key")
    round_ = Round(connection, HotKeys("persona"), "round")
    round_.tell(personas=1)
    round_.begin(["a", "b"], 2)
    assert round_.take() == "a"
    assert round_.left() == 1
    assert round_.note("renewed") == 1
    round_.stop("enough")
    assert round_.end().ended
