"""Flower as `celery -A workers flower` serves it, on real servers: its login, its figures, and its behaviour without Redis."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from monitor import PASSWORD, USER, FlowerServer
from polling import until
from prometheus_client.parser import text_string_to_metric_families
from servers import ValkeyServer

from pipeline.cache.server.connection import RedisConnection
from pipeline.courier import Courier
from pipeline.figures import FigureKeys, FleetFigures, Reporter, read_figures

ROOT = Path(__file__).parents[3]
CANARY = "canary-of-a-prompt"


@pytest.fixture(scope="module")
def cache() -> Iterator[ValkeyServer]:
    """For one test alone, which stops and freezes it."""
    with ValkeyServer() as server:
        yield server


@pytest.fixture(scope="module")
def flower(valkey: ValkeyServer, cache: ValkeyServer) -> Iterator[FlowerServer]:
    with FlowerServer(broker_url=valkey.url_of(11), cache_url=cache.url) as server:
        yield server


@pytest.fixture
def reporter(cache: ValkeyServer) -> Iterator[Reporter]:
    made = Reporter(
        Courier(lambda: RedisConnection(cache.url, timeout_s=5), threaded=False),
        FigureKeys("persona"),
        node="n1@host",
        role="worker",
    )
    yield made
    made.courier.close()


def figures_of(cache: ValkeyServer) -> FleetFigures:
    connection = RedisConnection(cache.url, timeout_s=5)
    try:
        return read_figures(connection, FigureKeys("persona"))
    finally:
        connection.close()


def samples(flower: FlowerServer) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = flower.ask("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.text)
    return {(each.name, tuple(sorted(each.labels.items()))): each.value for family in families for each in family.samples}


def state(flower: FlowerServer) -> str:
    return str(flower.ask("/fleet/figures").json()["state"])


# -- the door


def paths() -> list[str]:
    """Every path that Flower, Tornado and we serve, and some that do not exist."""
    from flower.urls import handlers

    patterns = [entry.regex.pattern if hasattr(entry, "regex") else entry[0] for entry in handlers]
    served = {re.sub(r"\(.*?\)", "x", pattern).rstrip("$").replace("/?", "").replace(".*", "/nothing") for pattern in patterns}
    served |= {"/favicon.ico", "/robots.txt", "/static/js/flower.js", "/login/", "/socket", "/update-dashboard"}
    served |= {"/fleet", "/fleet/figures", "/fleet/static/fleet.js", "/fleet/static/../handlers.py", "/fleet/static/"}
    served |= {
        "/healthcheck/",
        "/healthcheck/../metrics",
        "/HEALTHCHECK",
        "//healthcheck",
        "/healthcheck%0a",
        "/workers/healthcheck",
    }
    return sorted(served - {"/healthcheck"})


def test_there_are_paths_to_try() -> None:
    """Else the test below would pass of nothing."""
    assert {"/", "/workers", "/tasks", "/metrics", "/api/workers", "/api/task/apply/x", "/static/x", "/logout"} <= set(paths())
    assert len(paths()) > 35


@pytest.mark.parametrize("login", ["", f"{USER}:wrong", f"wrong:{PASSWORD}", f"{USER}:", f"{USER}:{PASSWORD}x"])
def test_without_the_login_every_route_is_401_and_tells_nothing(flower: FlowerServer, login: str) -> None:
    """Whatever the path or the method; the metrics and the scripts, too."""
    for path in paths():
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH") if not login else ("GET", "POST"):
            answer = flower.ask(path, method=method, login=login)
            assert answer.status == 401, (method, path)
            assert answer.headers["WWW-Authenticate"].startswith("Basic ")
            assert answer.body in (b"", b"Access denied\n"), (method, path)
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert "Set-Cookie" not in answer.headers


def test_the_health_check_alone_is_open(flower: FlowerServer) -> None:
    """A supervisor has no login. It learns that Flower answers, and no more."""
    for login in ("", f"{USER}:wrong"):
        answer = flower.ask("/healthcheck", login=login)
        assert (answer.status, answer.body) == (200, b"OK")


def test_a_body_is_not_read_of_a_caller_that_may_not_send_one(flower: FlowerServer) -> None:
    """A stranger cannot fill the memory: the answer comes although most of the body never did."""
    answer = flower.ask("/api/task/send-task/x", method="POST", login="", headers={"Content-Length": str(50 << 20)}, body=b"{")
    assert answer.status == 401


def test_with_the_login_flowers_pages_and_ours_are_served_and_linked(flower: FlowerServer) -> None:
    """One page more; the others are as they were but for the link."""
    for path in ("/workers", "/tasks", "/broker"):
        answer = flower.ask(path)
        assert answer.status == 200
        assert re.search(r'class="nav-link"\s+href="/fleet"\s*>Fleet<', answer.text), path
        assert answer.text.count('aria-current="page"') == 1
    page = flower.ask("/fleet")
    assert page.status == 200
    assert re.search(r'class="nav-link active"\s+href="/fleet"\s+aria-current="page">Fleet<', page.text)
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    assert flower.ask("/nothing").status == 404
    assert flower.ask("/static/js/flower.js").status == flower.ask("/api/workers").status == 200


def test_the_page_needs_nothing_from_elsewhere(flower: FlowerServer) -> None:
    """A closed network is enough, and its policy allows no script in the page itself."""
    page = flower.ask("/fleet").text
    loaded = re.findall(r'<(?:script|img|link)\b[^>]*?(?:src|href)="([^"]+)"', page)
    assert len(loaded) >= 10
    assert [address for address in loaded if not address.startswith("/")] == []
    assert [address for address in loaded if flower.ask(address).status != 200] == []
    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert re.findall(r"\son\w+=", page) == []
    for path in (ROOT / "workers" / "dashboard" / "static").iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text), path.name


def test_answers_are_not_to_be_had_by_way_of_flower(flower: FlowerServer, valkey: ValkeyServer) -> None:
    """Each is for its caller alone, and may quote the request."""
    with redis.Redis.from_url(valkey.url_of(1)) as client:  # where results are kept
        client.set("celery-task-meta-some-task", json.dumps({"status": "SUCCESS", "result": CANARY, "task_id": "some-task"}))
    answer = flower.ask("/api/task/result/some-task")
    assert answer.status == 403
    assert CANARY not in answer.text


# -- the figures


def test_the_page_and_the_metrics_show_what_was_counted(flower: FlowerServer, cache: ValkeyServer, reporter: Reporter) -> None:
    """By worker and by producer; the counters only grow, and a new process of Flower has them as well."""
    producer = Reporter(
        Courier(lambda: RedisConnection(cache.url, timeout_s=5), threaded=False),
        FigureKeys("persona"),
        node="host",
        role="producer",
    )
    before = figures_of(cache).ever
    for source, count in {"l1": 70, "l2": 20, "no": 9, "failed": 1}.items():
        for _ in range(count):
            reporter.tally.record(source, 2.0)
    for _ in range(30):
        producer.tally.record("l1", 0.01)
    reporter.tally.record("queue_wait", 40.0)
    reporter.invalidated("e:1", time.time(), ("routing:*",), durable=True)
    reporter.applied("e:1", time.time() - 0.004)
    assert reporter.courier.deliver()
    assert producer.courier.deliver()

    def shown() -> Any:
        return flower.ask("/fleet/figures").json()["figures"]

    expected = figures_of(cache)
    until(lambda: shown()["requests"]["l1"] == expected.requests.l1, "the page has the figures")
    document = flower.ask("/fleet/figures")
    assert document.headers["Cache-Control"] == "no-store"
    figures = document.json()["figures"]
    assert figures["requests"] == {source: getattr(expected.requests, source) for source in figures["requests"]}
    assert [node["name"] for node in figures["nodes"]] == ["host", "n1@host"]
    assert figures["invalidations"][0]["patterns"] == ["routing:*"]
    assert document.json()["tiers"]["l1"] == pytest.approx(expected.requests.l1 / expected.requests.total)

    found = samples(flower)
    grown = {
        (source, role): found["persona_requests_total", (("role", role), ("source", source))]
        for source in ("l1", "no")
        for role in ("worker", "producer")
    }
    assert grown["l1", "worker"] == before.requests.l1 - before.by_producers.l1 + 70
    assert grown["l1", "producer"] == before.by_producers.l1 + 30
    assert found["persona_model_calls_saved_total", ()] == before.requests.saved + 120
    assert found["persona_request_seconds_count", (("source", "no"),)] == before.requests.no + 9
    assert found["persona_queue_wait_seconds_bucket", (("le", "0.048"),)] == before.counts["queue_wait"] + 1
    assert found["persona_invalidation_staleness_seconds_count", ()] == before.counts["staleness"] + 1
    assert found["persona_invalidations_total", ()] == before.invalidations + 1
    producer.courier.close()


def test_the_metrics_are_those_that_the_manual_lists_with_those_labels(
    flower: FlowerServer, cache: ValkeyServer, reporter: Reporter
) -> None:
    """Alerts and dashboards are built on the list; a label without a bound would fill Prometheus."""
    reporter.tally.record("l1", 1.0)
    reporter.tally.record("no", 1.0)
    assert reporter.courier.deliver()
    until(lambda: ("persona_cache_hit_ratio", (("tier", "l2"),)) in samples(flower), "both tiers have a ratio")
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").partition("<!-- metrics:")[2]
    rows = re.findall(r"^\| `(persona_\w+)` \| (counter|gauge|histogram) \| (.*?) \|", text, re.MULTILINE)
    listed = {}
    for name, kind, labels in rows:
        parsed = {label: set(values.split(", ")) for label, values in re.findall(r"`(\w+)`: ([\w., ]+)", labels)}
        listed[name.removesuffix("_total")] = (kind, parsed)
    assert len(listed) >= 11
    families = {family.name: family for family in text_string_to_metric_families(flower.ask("/metrics").text)}
    ours = {name: family for name, family in families.items() if name.startswith("persona_")}
    assert {name: family.type for name, family in ours.items()} == {name: kind for name, (kind, _) in listed.items()}
    for name, family in ours.items():
        found: dict[str, set[str]] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                if label != "le":
                    found.setdefault(label, set()).add(value)
        assert found == listed[name][1], name
    assert "process_resident_memory_bytes" in families
    assert any(name.startswith("flower_") for name in families)


# -- without Redis


def test_without_the_caches_server_flower_says_so_soon_and_comes_back(
    flower: FlowerServer, cache: ValkeyServer, reporter: Reporter
) -> None:
    """Gone, and frozen with its connections open: no request hangs, no old figure is shown as if it were current, and nothing
    need be restarted."""
    reporter.tally.record("l1", 1.0)
    assert reporter.courier.deliver()
    until(lambda: state(flower) == "live", "Flower has figures")
    for break_it, mend_it in ((cache.stop, cache.start), (cache.freeze, cache.thaw)):
        break_it()
        try:
            until(lambda: state(flower) == "away", "the page says so")
            began_s = time.monotonic()
            found = samples(flower)
            assert flower.ask("/fleet").status == flower.ask("/workers").status == 200
            assert time.monotonic() - began_s < 6
            assert found["persona_cache_up", ()] == 0
            assert ("persona_nodes", ()) not in found
            assert ("persona_queue_length", (("queue", "persona"),)) in found
            assert flower.ask("/fleet/figures").json()["figures"] is None
        finally:
            mend_it()
        until(lambda: state(flower) == "live", "the page is back")
        assert samples(flower)["persona_cache_up", ()] == 1


# -- started by hand


def listening(port: int) -> set[str]:
    """The local addresses, as the kernel writes them, with a listener at this port."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if Path(table).exists():
            for line in Path(table).read_text().splitlines()[1:]:
                _, local, _, how = line.split()[:4]
                if how == "0A" and int(local.rpartition(":")[2], 16) == port:
                    found.add(local.rpartition(":")[0])
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc")
def test_started_without_a_login_it_makes_one_says_it_once_and_listens_on_this_host_alone(valkey: ValkeyServer) -> None:
    """Also beneath a prefix, and without a cache, and where the API was to be open."""
    with FlowerServer(
        broker_url=valkey.url_of(12),
        environ={"FLOWER_UNAUTHENTICATED_API": "true", "FLOWER_BASIC_AUTH": ""},
        arguments=("--url_prefix=/ops/",),
        prefix="/ops",
    ) as server:
        until(lambda: "password" in server.log(), "the login is shown")
        (password,) = re.findall(r"password +(\S{32,})", server.log())
        for path in ("/", "/fleet", "/metrics", "/api/workers", "/api/tasks"):
            assert server.ask(path, login="").status == 401
            assert server.ask(path, login=f"persona:{password}").status == (302 if path == "/" else 200), path
        server.login = f"persona:{password}"
        assert 'href="/ops/fleet"' in server.ask("/workers").text
        assert 'data-figures="/ops/fleet/figures"' in server.ask("/fleet").text
        assert server.ask("/fleet/static/fleet.js").status == 200
        assert state(server) == "unconfigured"
        assert listening(server.port) == {"0100007F"}
        assert server.log().count(password) == 1


def test_a_login_that_would_not_hold_is_refused_at_the_start(valkey: ValkeyServer) -> None:
    """By the option's name, without showing it; nothing is served."""
    server = FlowerServer(broker_url=valkey.url_of(12), environ={}, arguments=("--basic_auth=canary",))
    try:
        server.start(wait=False)
        until(lambda: server.ended, "it has ended")
        assert server.process is not None
        assert server.process.exit_code == 1
        assert "--basic_auth" in server.log()
        assert "canary" not in server.log()
        assert "Traceback" not in server.log()
    finally:
        server.close()
