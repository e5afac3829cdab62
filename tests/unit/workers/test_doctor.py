"""The doctor's checks: each is silent of what is well, and names what is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from pipeline.settings import Settings, load_settings
from workers.doctor.checks import cache, keeping, servers
from workers.doctor.checks.servers import pubsub_limits
from workers.doctor.judging import COUNT, OF_ALL, judge
from workers.doctor.loopback import is_local_url, is_loopback
from workers.doctor.observing import with_told
from workers.doctor.report import lines_of, report_of
from workers.doctor.seen import Beat, Entry, Kept, Log, Nodes, Orphan, Seen, Server, Site, Stranger, Told, Waiting
from workers.install.standing import secrets_of, shows_secret
from workers.queue.names import QUEUES


def settings(**environ: str) -> Settings:
    given = {
        "PERSONA_CACHE_URL": "redis://127.0.0.1:6380/0",
        "PERSONA_LLM_URL": "http://127.0.0.1:1/v1",
        "PERSONA_LLM_MODEL": "m",
    }
    return load_settings({**given, **environ})


def server(part: str, **fields: Any) -> Server:
    info = {
        "run_id": part,
        "redis_version": "7.2.4",
        "valkey_version": "9.1.0",
        "role": "master",
        "maxmemory": 2**28,
        "used_memory": 2**20,
        "maxmemory_policy": "allkeys-lfu" if part == "cache" else "noeviction",
        "aof_enabled": int(part != "cache"),
        "aof_last_write_status": "ok",
        "rdb_last_bgsave_status": "ok",
        "connected_clients": 10,
        "maxclients": 10_000,
        **fields.pop("info", {}),
    }
    config = {"save": "", "appendfsync": "everysec", "timeout": "0", "bind": "127.0.0.1", "protected-mode": "yes"}
    config |= {"client-output-buffer-limit": "normal 0 0 0 pubsub 33554432 8388608 60"}
    return Server(
        part=part, where=f"{part}:1", cli="redis-cli", info=info, config={**config, **fields.pop("config", {})}, **fields
    )


def told(**fields: Any) -> Told:
    given: dict[str, Any] = {
        "name": "a@h",
        "product": True,
        "node": "a@h/1-abcd",
        "epoch": "abcdefgh12345678",
        "seq": 5,
        "release": "0.1.0",
        "namespace": "persona",
        "bound_s": 1.0,
        "max_ttl_s": 86_400.0,
        "model": "m",
        "fetch": "claims",
        "pool": "prefork",
        "queues": QUEUES,
        "steps": (0, 3, 6, 9),
        "accepts": ("json",),
        "result_expires_s": 3600.0,
        "prefetch": 1,
        "limit_s": 85.0,
        "visible_s": 180.0,
    }
    return Told(**{**given, **fields})


def well(**fields: Any) -> Seen:
    broker = server("broker")
    given: dict[str, Any] = {
        "settings": settings(),
        "broker": broker,
        "results": replace(broker, part="results"),
        "cache": server("cache"),
        "log": Log(tail="abcdefgh12345678:5:0", epoch="abcdefgh12345678", seq=5, alive=("a@h/1-abcd",), checks=100),
        "nodes": Nodes(told=(told(),)),
        "beat": Beat(locked=True, entries=(Entry(name="cache.preload", task="cache.preload", overdue_s=-3.0),)),
        "model": Site(url="http://127.0.0.1:1/v1", status=200, models=("m",)),
        "flower": Site(url="http://127.0.0.1:2", status=401),
        "waiting": Waiting(lists={("persona", 3): 2}, oldest_s={"persona": 4.0, "persona.bulk": 600.0}, aside=3),
        "kept_entries": Kept(looked_at=20),
    }
    return Seen(**{**given, **fields})


def test_how_long_messages_wait_is_told_by_the_workers_where_a_user_may_not_look_at_one() -> None:
    """The longest that one of ours has seen; of strangers nothing is believed, and what nobody tells stays unseen."""
    denied = Waiting(lists={("persona", 0): 3}, denied=("LINDEX", "ZRANGE"))
    ours = (told(waits_s={"persona": 70.0}), told(name="b@h", waits_s={"persona": 71.0}))
    other = told(name="c@h", product=False, waits_s={"persona": 900.0})
    seen = with_told(denied, Nodes(told=(*ours, other)))
    assert (seen.oldest_s, seen.denied) == ({"persona": 71.0}, ("ZRANGE",))
    assert with_told(denied, Nodes()) == denied
    looked = Waiting(oldest_s={"persona": 4.0})
    assert with_told(looked, Nodes(told=ours)) == looked


def nodes(*given: Told, **fields: Any) -> dict[str, Nodes]:
    return {"nodes": Nodes(told=given or (told(**fields),))}


def broker(**fields: Any) -> dict[str, Server]:
    return {"broker": server("broker", **fields)}


def cached(**fields: Any) -> dict[str, Server]:
    return {"cache": server("cache", **fields)}


ILL: dict[str, dict[str, Any]] = {
    "broker: away": broker(away="ConnectionError"),
    "broker: refuses-login": broker(login="WRONGPASS"),
    "broker: too-old": broker(info={"redis_version": "6.0.16", "valkey_version": ""}) | {"results": None},
    "broker: replica": broker(info={"role": "slave"}),
    "broker: cluster": broker(info={"cluster_enabled": 1}),
    "broker: cuts-idle": broker(config={"timeout": "30"}),
    "broker: cuts-listeners": broker(config={"client-output-buffer-limit": "pubsub 1024 512 1"}),
    "broker: clients-full": broker(info={"connected_clients": 95, "maxclients": 100}),
    "broker: rights": broker(refused=("LPUSH",)),
    "broker: open": broker(is_open=True, config={"bind": "* -::*", "protected-mode": "no"}),
    "broker: unencrypted": broker(remote=True),
    "broker: unverified": broker(tls=True, verified=False),
    "broker: skewed": broker(skew_s=-3.0),
    "broker: evicts": broker(info={"maxmemory_policy": "volatile-lru"}),
    "broker: keeps-no-file": broker(info={"aof_enabled": 0}),
    "broker: snapshots-only": broker(info={"aof_enabled": 0}, config={"save": "3600 1"}),
    "broker: cannot-write": broker(info={"aof_last_write_status": "err"}),
    "broker: never-syncs": broker(config={"appendfsync": "no"}),
    "broker: full": broker(info={"used_memory": 2**28}),
    "broker: nearly-full": broker(info={"used_memory": int(0.8 * 2**28)}),
    "results: rights": {"results": replace(server("broker"), part="results", refused=("GET",))},
    "results: evicts": {"results": server("results", info={"maxmemory_policy": "allkeys-lru"})},
    "results: endless": {"kept_results": Kept(looked_at=9, endless=("x",), endless_count=2)},
    "cache: none": {"settings": settings(PERSONA_CACHE_URL=""), "cache": None, "log": None},
    "cache: is-brokers": {"cache": replace(server("broker"), part="cache")},
    "cache: persists": cached(info={"aof_enabled": 1}),
    "cache: never-evicts": cached(info={"maxmemory_policy": "noeviction"}),
    "cache: unbounded": cached(info={"maxmemory": 0}),
    "cache: evicts-blindly": cached(info={"maxmemory_policy": "volatile-ttl"}),
    "cache: full": cached(info={"maxmemory_policy": "noeviction", "used_memory": 2**28}),
    "cache: endless": {"kept_entries": Kept(looked_at=9, endless=("persona:2:e:x",), endless_count=1)},
    "queues: unread": nodes(queues=("persona", "celery")),
    "queues: unread-priority": {"waiting": Waiting(lists={("persona", 5): 1})},
    "queues: orphans": {"waiting": Waiting(orphans=(Orphan(node="h/1/ab", claims=2, silent_s=60.0),))},
    "queues: overdue": {"waiting": Waiting(aside=3, overdue=1, overdue_s=30.0)},
    "queues: dead-letters": {"waiting": Waiting(letters=1)},
    "queues: waits-long": {"waiting": Waiting(oldest_s={"persona": 61.0})},
    "queues: taken-by-strangers": {"nodes": Nodes(told=(told(),), strangers=(Stranger(name="x@h", queues=("persona",)),))},
    "nodes: none": {"nodes": Nodes()},
    "nodes: unasked": {"nodes": Nodes(away="OperationalError")},
    "nodes: bound": nodes(bound_s=5.0),
    "nodes: namespace": nodes(namespace="other"),
    "nodes: retention": nodes(max_ttl_s=7200.0),
    "nodes: model": nodes(told(), told(name="b@h", sampling="temperature 1")),
    "nodes: release": nodes(told(), told(name="b@h", release="0.2.0")),
    "nodes: pops": nodes(fetch="pop"),
    "nodes: accepts-pickle": nodes(accepts=("json", "pickle")),
    "nodes: acks-early": nodes(acks_late=False),
    "nodes: drops-lost": nodes(returns_lost=False),
    "nodes: results-without-end": nodes(result_expires_s=0.0),
    "nodes: results-unlike": nodes(result_expires_s=60.0),
    "nodes: takes-ahead": nodes(prefetch=4),
    "nodes: no-limits": nodes(pool="thread"),
    "nodes: no-limit-set": nodes(limit_s=0.0),
    "nodes: runs-twice": nodes(fetch="pop", visible_s=60.0),
    "nodes: rights": nodes(refused=("LREM",)),
    "host: shows-secret": {"showing": ("celery (7)",)},
    "coherence: log-unreadable": {"log": Log(tail="x", malformed=True)},
    "coherence: log-missing": {"log": Log(alive=("a@h/1-abcd",))},
    "coherence: log-of-another": {"log": Log(tail="x:1:0", epoch="x", of_here=False, alive=("a@h/1-abcd",))},
    "coherence: log-long": {"log": Log(tail="x:1:0", epoch="abcdefgh12345678", records=95_000, alive=("a@h/1-abcd",))},
    "coherence: other-log": nodes(epoch="another"),
    "coherence: follows-none": nodes(epoch=""),
    "coherence: lags": nodes(lags=2),
    "coherence: silent": nodes(node="b@h/2-abcd"),
    "coherence: stale": {"log": Log(tail="x:1:0", epoch="abcdefgh12345678", alive=("a@h/1-abcd",), checks=9, stale=1)},
    "clocks: nodes-skewed": nodes(skew_s=-3.0),
    "clocks: servers-apart": broker(skew_s=1.5) | cached(skew_s=-1.5),
    "beat: none": {"beat": Beat()},
    "beat: unlocked": {"beat": Beat(locked=True, unlocked=("celery beat (7)",))},
    "beat: foreign": {"beat": Beat(locked=True, entries=(Entry(name="shop", task="shop.report", overdue_s=-1.0),))},
    "beat: overdue": {"beat": Beat(locked=True, entries=(Entry(name="cache.preload", task="cache.preload", overdue_s=90.0),))},
    "flower: open": {"flower": Site(url="http://f", status=200)},
    "flower: away": {"flower": Site(url="http://f", away="refused")},
    "model: away": {"model": Site(url="http://m", away="no answer")},
    "model: fails": {"model": Site(url="http://m", status=503)},
    "model: refuses-key": {"model": Site(url="http://m", status=401)},
    "model: unknown": {"model": Site(url="http://m", status=200, models=("gpt",))},
    "model: in-clear": {"settings": settings(PERSONA_LLM_URL="http://far.example/v1", PERSONA_LLM_API_KEY="sk-1234567")},
    "settings: foreign-variables": {"variables": ("CELERY_BROKER_URL",)},
    "settings: results-end-early": {"settings": settings(PERSONA_RESULT_TTL_S="30", PERSONA_STALE_GRACE_S="0")},
    "settings: bound-below-timeout": {"settings": settings(PERSONA_STALENESS_BOUND_S="0.2")},
    "settings: renewed-too-late": {"settings": settings(PERSONA_PRELOAD_INTERVAL_S="3600")},
    "settings: lock-outlasts-interval": {"settings": settings(PERSONA_BEAT_LOCK_S="3600")},
    "settings: model-unused": {"settings": settings(PERSONA_RESPONDER="a:b")},
    "settings: shares-a-database": {"settings": settings(PERSONA_RESULT_URL="redis://127.0.0.1:6380/0")},
    "settings: unaudited": {"settings": settings(PERSONA_FIGURES="false")},
    "log: late": {"late": ("log",)},
}
"""By the finding that it leads to: what is other than in a stack that is well."""


def named(seen: Seen) -> list[str]:
    return [f"{finding.part}: {finding.name}" for finding in judge(seen)]


def test_of_a_stack_that_is_well_nothing_is_said() -> None:
    """Else nobody would read the rest."""
    assert named(well()) == []


@pytest.mark.parametrize("name", ILL)
def test_what_is_not_well_is_named(name: str) -> None:
    """By one finding that tells all four things, in a line each."""
    (finding,) = [one for one in judge(well(**ILL[name])) if f"{one.part}: {one.name}" == name]
    assert finding.seen
    assert finding.why.endswith(".")
    assert finding.why[0].isupper()
    assert finding.mend
    assert not any("\n" in text for text in msgspec.structs.astuple(finding))


def test_every_check_can_speak() -> None:
    """Of each there is a case above: one that never speaks would be no check. Shared ones speak of the broker."""
    spoken = {name.partition(": ")[2] for name in ILL}
    shared = [*servers.CHECKS, *keeping.CHECKS, *keeping.BY_SETTINGS, *cache.CHECKS]
    assert len(ILL) >= COUNT > 30
    assert len({check.__module__ + check.__name__ for check in [*OF_ALL, *shared]}) == COUNT - 1
    assert len(spoken) >= 70


@pytest.mark.parametrize("name", sorted({name.partition(":")[0] for name in ILL if name.startswith(("broker", "cache"))}))
def test_a_server_that_is_away_leads_to_one_finding_of_its_own(name: str) -> None:
    """What cannot be known of it is not made up."""
    gone = {"broker": {"results": None}, "cache": {"log": None}}[name]
    fields = {name: replace(server(name), away="ConnectionError", info={}, config=None, is_open=True), **gone}
    assert named(well(**fields)) == [f"{name}: away"]


def test_a_server_that_takes_no_more_connections_is_called_full_and_not_away() -> None:
    """It runs: to start another is no mend."""
    full = replace(server("broker"), away="ConnectionError", crowded=True, info={}, config=None)
    assert named(well(broker=full, results=None)) == ["broker: clients-full"]


def test_what_may_not_be_read_is_no_finding() -> None:
    """A user without CONFIG, INFO and SCAN, as a managed server gives: the rest is judged."""
    blind = {name: replace(server(name), info={}, config=None, has_login=True) for name in ("broker", "cache")}
    assert named(well(**blind, results=None, kept_entries=Kept(denied=True), waiting=Waiting(denied=("LLEN",)))) == []


def test_errors_come_first() -> None:
    """As they are read."""
    found = judge(well(**ILL["nodes: acks-early"], **ILL["beat: none"], **ILL["broker: cuts-idle"]))
    assert [finding.severity for finding in found] == ["error", "warning", "warning"]


def test_a_server_of_two_parts_is_judged_once() -> None:
    """Queue and results on one server: what is wrong with it is said once."""
    ill = server("broker", info={"maxmemory_policy": "allkeys-lru"})
    assert named(well(broker=ill, results=replace(ill, part="results"))) == ["broker: evicts"]


def test_other_apps_nodes_are_judged_by_the_cache_alone() -> None:
    """How they fetch and acknowledge is their own affair; which bound they keep is not."""
    other = told(
        name="shop@h", product=False, acks_late=False, pool="thread", queues=("shop",), bound_s=60.0, node="shop@h/2-abcd"
    )
    log = replace(well().log, alive=("a@h/1-abcd", "shop@h/2-abcd"))
    assert named(well(nodes=Nodes(told=(told(), other)), log=log)) == ["nodes: bound"]
    apart = msgspec.structs.replace(other, namespace="shop", epoch="another")
    assert named(well(nodes=Nodes(told=(told(), apart)))) == []


@pytest.mark.parametrize(
    ("value", "limits"),
    [("normal 0 0 0 slave 1 1 1 pubsub 32 8 60", (32, 8)), ("", (0, 0)), ("pubsub", (0, 0)), ("pubsub x 1 1", (0, 0))],
)
def test_the_limits_of_listeners_are_read(value: str, limits: tuple[int, int]) -> None:
    """As the server writes them."""
    assert pubsub_limits(value) == limits


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.3", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("db", False)]
)
def test_a_host_is_this_one_by_its_name(host: str, loopback: bool) -> None:
    """Nothing is looked up."""
    assert is_loopback(host) is loopback
    assert is_local_url(f"http://{'[::1]' if host == '::1' else host}:1/v1") is loopback


def test_secrets_are_those_of_the_settings_and_long_enough() -> None:
    """A short one may stand on a command line by chance."""
    given = settings(
        PERSONA_BROKER_URL="redis://u:long-password@h/0", PERSONA_RESULT_URL="redis://:abc@h/1", PERSONA_LLM_API_KEY="sk-1234567"
    )
    assert secrets_of(given) == {"long-password", "sk-1234567"}
    assert shows_secret(["celery", "--broker=redis://u:long-password@h/0"], secrets_of(given))
    assert not shows_secret(["celery", "abc"], secrets_of(given))


def longest_lines(seen: Seen) -> Iterator[str]:
    report = report_of(seen, judge(seen), 1.0)
    yield from (line for line, _ in lines_of(report, 80) if not line.startswith("  mend"))


@pytest.mark.parametrize("name", ILL)
def test_the_report_fits_80_columns_but_for_commands(name: str) -> None:
    """These are not broken, so that they can be copied."""
    assert max(map(len, longest_lines(well(**ILL[name])))) <= 80


def test_the_document_is_json_and_holds_what_is_shown() -> None:
    """For programs."""
    seen = well(**ILL["broker: evicts"], unseen=("flower: unknown",))
    document = json.loads(msgspec.json.encode(report_of(seen, judge(seen), 1.5)))
    assert (document["healthy"], document["errors"], document["warnings"], document["checks"]) == (False, 1, 0, COUNT)
    assert document["findings"][0]["name"] == "evicts"
    assert set(document["parts"]) == {"broker", "results", "cache", "nodes", "log", "beat", "flower", "model"}
    assert document["unseen"] == ["flower: unknown"]
