"""What Flower's page of the fleet says of one thing: what is asked for most, `explain`, and what to do on a first visit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote

import pytest
import redis
from fleet import Fleet
from monitor import FlowerServer
from polling import until
from servers import ValkeyServer

from benchmarks.kit.browser import HOW_TO_INSTALL, Browser, find_chromium
from benchmarks.kit.endpoint import Fault
from pipeline.cache.server.connection import RedisConnection
from pipeline.hot import Asked, HotKeys, HotSet
from pipeline.models import PersonaRequest
from workers.dashboard.explaining import NEITHER

KEY = "calm-flowing-planning"
in_chromium = pytest.mark.skipif(find_chromium() is None, reason=f"no Chromium is installed ({HOW_TO_INSTALL})")


@pytest.fixture(scope="module")
def flower(shared_fleet: Fleet) -> Iterator[FlowerServer]:
    with FlowerServer(broker_url=shared_fleet.broker.url, cache_url=shared_fleet.cache.url) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


def explained(flower: FlowerServer, subject: str) -> dict[str, object]:
    document: dict[str, object] = flower.ask(f"/fleet/explain?of={quote(subject)}").json()
    return document


def keys_of(fleet: Fleet) -> set[str]:
    """Of all answers that the cache's server has."""
    with closing(redis.Redis.from_url(fleet.cache.url, decode_responses=True)) as client:
        names = [name.partition(":e:")[2] for name in client.keys(f"persona:2:e:persona:*:{KEY}:*")]
        return set(names)


def asked(fleet: Fleet, question: str, **context: str) -> str:
    """The key of a new answer."""
    before = keys_of(fleet)
    fleet.ask_plain(question, KEY, context or None)
    (key,) = keys_of(fleet) - before
    return key


@in_chromium
def test_a_row_of_what_is_asked_for_most_is_explained_by_a_click(
    fleet: Fleet, flower: FlowerServer, browser: Browser, question: str
) -> None:
    """With persona, resonance, share, age and what is left; then what ended it, and by whom. Never what was asked or answered."""
    answer = fleet.ask_plain(question, KEY)
    key = asked(fleet, question + "?")
    with closing(RedisConnection(fleet.cache.url, timeout_s=5)) as connection:
        counted = {key: Asked(100_000, PersonaRequest.create("What?", KEY))}
        HotSet(connection, HotKeys("persona"), keeps_requests=False).count(counted)
    browser.open(flower.url + "/")
    browser.wait("document.getElementById('fleet').dataset.state === 'live'")
    row = f"document.querySelector(\"#fleet-hot [data-key='{key}']\")"
    browser.wait(row)
    cells = browser.evaluate(f"[...{row}.cells].map((cell) => cell.textContent)")
    assert cells[:3] == key.split(":")[1:]
    assert float(browser.evaluate(f"{row}.cells[3].dataset.value")) > 0.9
    assert 0 <= float(browser.evaluate(f"{row}.cells[4].dataset.value")) < 60
    assert 500 < float(browser.evaluate(f"{row}.cells[5].dataset.value")) <= 600
    browser.evaluate(f"{row}.querySelector('button').click()")
    browser.wait("document.querySelector('[data-fact=served_by]')?.textContent.startsWith('l2')")
    account = "document.getElementById('fleet-account').textContent"
    assert f"routing:{KEY}" in browser.evaluate(account)
    assert "model echo" in browser.evaluate(account)
    browser.wait("document.activeElement.id === 'fleet-account'")
    fleet.client.invalidate(f"routing:{KEY}", wait_s=2)
    until(lambda: explained(flower, key)["ended_by"]["by"], "who made it has told so")  # type: ignore[index]
    browser.evaluate("document.querySelector('#fleet-explain form').requestSubmit()")
    browser.wait("document.querySelector('[data-fact=ended_by]')?.textContent.includes('pattern')")
    assert f"pattern routing:{KEY}" in browser.evaluate("document.querySelector('[data-fact=ended_by]').textContent")
    browser.wait(f"{row}.cells[5].textContent === 'invalidated'")
    browser.evaluate("document.querySelector('#fleet-invalidations button').click()")
    browser.wait("document.querySelector('[data-fact=invalidated]')")
    assert f"routing:{KEY}" in browser.evaluate("document.querySelector('[data-fact=invalidated]').textContent")
    page = browser.evaluate("document.body.textContent")
    assert question not in page
    assert answer.content[:20] not in page
    assert browser.errors == []


@in_chromium
def test_what_cannot_be_explained_is_a_sentence(flower: FlowerServer, fleet: Fleet, browser: Browser) -> None:
    """On the page, whose field takes whatever is pasted into it."""
    browser.open(flower.url + "/fleet")
    browser.wait("document.getElementById('fleet').dataset.state === 'live'")
    assert not browser.evaluate("document.getElementById('fleet-first').checkVisibility()")
    for subject, sentence in (
        ("quote:of:nobody", "Key: nothing is known of it"),
        ("<img src=x onerror=1>", NEITHER),
        ("0123-4567", "Task: nothing is known of it"),
    ):
        browser.evaluate(f"document.querySelector('#fleet-explain [name=of]').value = {json.dumps(subject)}")
        browser.evaluate("document.querySelector('#fleet-explain form').requestSubmit()")
        browser.wait(f"document.getElementById('fleet-account').textContent.startsWith({json.dumps(sentence)})")
    assert browser.evaluate("document.querySelectorAll('#fleet img').length") == 0
    assert browser.errors == []


def test_a_task_where_it_is_and_what_it_took(fleet: Fleet, flower: FlowerServer, question: str) -> None:
    """Running, then ended with its times."""
    fleet.endpoint.script(Fault("hang"))
    ticket = fleet.client.submit(question, KEY)
    running: dict[str, object] = {}
    until(lambda: running.update(explained(flower, str(ticket.task_id))) or running.get("state") == "running", "it runs")
    assert running["worker"] == fleet.node.name
    fleet.endpoint.script(Fault())
    assert ticket.result(40).content
    ended = explained(flower, str(ticket.task_id))
    assert (ended["state"], ended["source"], ended["model"]) == ("success", "no", "echo")
    assert isinstance(ended["model_s"], float)
    assert question not in json.dumps([running, ended])


def test_no_account_names_a_user(fleet: Fleet, flower: FlowerServer, question: str) -> None:
    """Neither what an answer was computed from, nor what has ended it."""
    key = asked(fleet, question, user_id="kanarienvogel")
    there = explained(flower, key)
    assert "user:(an id)" in there["computed_from"]  # type: ignore[operator]
    fleet.client.invalidate_user("kanarienvogel", wait_s=2)
    ended = explained(flower, key)
    assert ended["ended_by"]["pattern"] == "user:(an id)"  # type: ignore[index]
    assert "kanarienvogel" not in json.dumps([there, ended])


def test_bad_questions_are_sentences_and_none_changes_anything(fleet: Fleet, flower: FlowerServer) -> None:
    """By whatever address; and nothing without the login, or from another site."""
    with closing(redis.Redis.from_url(fleet.cache.url)) as cache, closing(redis.Redis.from_url(fleet.broker.url)) as broker:
        # The probe of the figures' reader comes and goes.
        before = {*cache.keys("*:2:?:*"), *cache.keys("*log*")}, {*broker.keys("persona*")}
        for query in (
            "",
            "?of=",
            "?of=a%20b",
            "?of=" + "x" * 300,
            "?of=" + "x:" * 300,
            "?of=%FF",
            "?of=a:%00b",
            "?of=a&of=b%20c",
        ):
            answer = flower.ask("/fleet/explain" + query)
            assert answer.status in (200, 400), query
            assert answer.json()["refused"], query
            assert answer.json()["sentence"].endswith("."), query
            assert answer.headers["Content-Type"].startswith("application/json")
        assert {*cache.keys("*:2:?:*"), *cache.keys("*log*")} <= before[0]
        assert {*broker.keys("persona*")} <= before[1]
    assert flower.ask("/fleet/explain?of=a:b", login="").status == 401
    assert flower.ask("/fleet/asked", login="").status == 401
    assert flower.ask("/fleet/explain?of=a:b", headers={"Sec-Fetch-Site": "cross-site"}).status == 403
    assert flower.ask("/fleet/explain?of=a:b", method="POST", body=b"").status in (403, 405)


def test_flowers_address_leads_to_the_fleet(flower: FlowerServer) -> None:
    """And to nobody who has no login."""
    answer = flower.ask("/")
    assert (answer.status, answer.headers["Location"]) == (302, "/fleet")
    assert flower.ask("/", login="").status == 401
    assert flower.ask("/workers").status == 200


@pytest.mark.long
@pytest.mark.parametrize(("landing", "prefix"), [("fleet", "/ops"), ("workers", ""), ("workers", "/ops")])
def test_where_it_leads_is_a_setting_that_a_prefix_does_not_change(landing: str, prefix: str, valkey: ValkeyServer) -> None:
    environ = {"FLOWER_BASIC_AUTH": "ann:a-password", "PERSONA_FLOWER_LANDING": landing}
    with FlowerServer(
        broker_url=valkey.url_of(12),
        cache_url=valkey.url_of(13),
        environ=environ,
        prefix=prefix,
        arguments=[f"--url_prefix={prefix}"] if prefix else [],
    ) as flower:
        flower.login = "ann:a-password"
        answer = flower.ask("/")
        if landing == "fleet":
            assert (answer.status, answer.headers["Location"]) == (302, f"{prefix}/fleet")
            bare = flower.ask("")
            assert (bare.status, bare.headers["Location"]) == (302, f"{prefix}/fleet")
        else:
            assert answer.status == 200
            assert "workers-table" in answer.text
        assert flower.ask("/fleet").status == 200


@pytest.mark.long
@in_chromium
def test_a_first_visit_says_what_to_do(browser: Browser, question: str) -> None:
    """Which command starts a worker, which asks; each until it is done."""
    with Fleet(nodes=0) as fleet, FlowerServer(broker_url=fleet.broker.url, cache_url=fleet.cache.url) as flower:
        browser.open(flower.url + "/")
        browser.wait("document.getElementById('fleet-first').checkVisibility()")
        text = browser.evaluate("document.getElementById('fleet-first').innerText")
        for words in ("celery -A workers worker", "persona ask", "docs/how-to.md"):
            assert words in text
        fleet.add_node()
        browser.wait("!document.getElementById('fleet-first-worker').checkVisibility()")
        assert browser.evaluate("document.getElementById('fleet-first-request').checkVisibility()")
        fleet.client.ask(question, KEY, timeout_s=30)
        browser.wait("!document.getElementById('fleet-first').checkVisibility()")
        assert browser.errors == []
