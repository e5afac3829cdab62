"""A secret planted in every setting that can hold one is shown nowhere: no log, page, report, event, command line or figure."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from celery import Celery
from fleet import ROOT, WorkerNode, bare_app, captured_events, persona_environ, send_plain
from monitor import FlowerServer
from polling import until
from servers import NO_STACK, ValkeyServer

from benchmarks.kit.nodes import own_environment
from pipeline.discovery import STACK_DIR
from pipeline.models import PersonaRequest
from pipeline.settings import SECRETS, load_settings
from workers.queue.censor import SHOWN, Censor

PASSWORDS = {name: f"canary/{name}?@:100%" for name in ("broker", "result", "cache")}
KEY = "sk-canary-key"
FLOWER_LOGIN = "canary-flower"


@pytest.fixture(scope="module")
def environ() -> Iterator[dict[str, str]]:
    with (
        ValkeyServer(password=PASSWORDS["broker"]) as broker,
        ValkeyServer(password=PASSWORDS["result"]) as results,
        ValkeyServer(password=PASSWORDS["cache"]) as cache,
    ):
        yield persona_environ(
            broker_url=broker.url,
            result_url=results.url_of(1),
            cache_url=cache.url,
        ) | {"PERSONA_LLM_API_KEY": KEY}


@pytest.fixture(scope="module")
def node(environ: dict[str, str]) -> Iterator[WorkerNode]:
    with WorkerNode(
        broker_url=environ["PERSONA_BROKER_URL"], environ=environ, log_level="DEBUG", arguments=["-B", "-s", NO_STACK]
    ) as node:
        yield node


@pytest.fixture(scope="module")
def app(environ: dict[str, str]) -> Iterator[Celery]:
    with closing(bare_app(environ["PERSONA_BROKER_URL"], environ["PERSONA_RESULT_URL"])) as app:
        yield app


def assert_absent(shown: object, where: str) -> None:
    text = str(shown)
    for secret in (*PASSWORDS.values(), KEY, FLOWER_LOGIN):
        for form in (secret, quote(secret, safe=""), quote(secret)):
            assert form not in text, f"{where} shows {form!r}: ...{text[max(0, text.index(form) - 200) :][:400]}"


def test_remote_control_shows_none(node: WorkerNode, app: Celery) -> None:
    with captured_events(app) as events:
        assert send_plain(app, PersonaRequest.create("How do I begin?", "calm-flowing-planning")).get(timeout=20)
        inspect = app.control.inspect([node.name], timeout=5)
        for name in ("conf", "report", "stats", "active_queues", "registered", "active"):
            reply = getattr(inspect, name)()
            assert reply, name
            assert_absent(reply, f"inspect {name}")
        assert SHOWN in str(inspect.conf()), "there was something to hide"
        assert_absent(inspect.conf(with_defaults=True), "inspect conf with defaults")
        until(lambda: any(event["type"] == "task-succeeded" for event in events), "it is told")
    assert_absent(events, "an event")
    assert_absent(node.log(), "the worker's log, at DEBUG")
    for process in (node.pid, *node.pids):
        assert_absent(Path(f"/proc/{process}/cmdline").read_bytes().decode(), "the command line")


def test_neither_celerys_report_nor_a_command_of_ours_shows_any(environ: dict[str, str], node: WorkerNode) -> None:
    environment = {**own_environment(), STACK_DIR: NO_STACK, **environ}
    assert node.running
    for words in (
        ["celery", "-A", "workers", "report"],
        ["celery", "-A", "workers", "inspect", "conf"],
        ["workers.cli", "stats", "--json"],
        ["workers.cli", "ask", "Where do I begin?", "--key", "calm-flowing-planning", "--json"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *words], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        assert_absent(done.stdout + done.stderr, " ".join(words))


def test_flower_shows_none(environ: dict[str, str], node: WorkerNode) -> None:
    login = {"FLOWER_BASIC_AUTH": f"operator:{FLOWER_LOGIN}"}
    with FlowerServer(
        broker_url=environ["PERSONA_BROKER_URL"],
        cache_url=environ["PERSONA_CACHE_URL"],
        environ=login | environ,
        arguments=["--logging=debug"],
    ) as flower:
        flower.login = f"operator:{FLOWER_LOGIN}"
        paths = (
            "/workers",
            f"/worker/{node.name}",
            "/broker",
            "/tasks",
            "/fleet",
            "/metrics",
            "/api/workers?refresh=1",
            "/api/queues/length",
        )
        until(lambda: node.name in flower.ask("/api/workers?refresh=1").text, "it knows the worker")
        for path in paths:
            answer = flower.ask(path)
            assert answer.status == 200, (path, answer.status, answer.text[:300])
            assert_absent(answer.text, path)
        assert_absent(flower.log(), "Flower's log, at DEBUG")


def test_a_censor_knows_each_setting_that_can_hold_a_secret() -> None:
    """Every URL and every key: one that is added to the settings is hidden as well."""
    assert {"broker_url", "result_url", "cache_url", "llm_url", "llm_api_key"} <= set(SECRETS)
    for name in SECRETS:
        secret = f"canary-{name}"
        scheme = "http" if name == "llm_url" else "redis"
        value = f"{scheme}://u:{secret}@h/0" if name.endswith("_url") else secret
        settings = load_settings({f"PERSONA_{name.upper()}": value, "PERSONA_LLM_MODEL": "m"})
        assert secret not in str(Censor(settings)({"a": [f"x {value} y"], value: secret}))


@pytest.mark.parametrize("option", ["password", "ssl_password"])
def test_a_password_in_a_urls_options_is_one(option: str) -> None:
    settings = load_settings({"PERSONA_CACHE_URL": f"rediss://h/0?{option}=canary%2Fx"})
    assert Censor(settings)("canary/x and canary%2Fx") == f"{SHOWN} and {SHOWN}"
