"""What can be done from Flower's page of the fleet: in a real Chromium where one is installed, and as a forger would try it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import redis
from envelopes import envelope, whole
from monitor import Answer, FlowerServer
from polling import until
from servers import ValkeyServer
from wcag import TEXT_CONTRAST, contrast

from benchmarks.kit.browser import HOW_TO_INSTALL, Browser, find_chromium
from pipeline.cache import RedisCache, TwoTierCache
from pipeline.models import PersonaRequest
from workers.dashboard.acting.handlers import FORGED, OVER
from workers.queue.dead_letters.box import keep as bury
from workers.queue.dead_letters.letter import DEAD_LETTERS, written
from workers.queue.failures.box import FAILURES, keep

# The words of the failed tasks that are broken within: a word's own box has one line.
BREAKS = """[...document.querySelectorAll('#fleet-failures td')].flatMap((cell) => {
    const found = [], walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        for (const word of walker.currentNode.data.matchAll(/[A-Za-z.]{2,}/g)) {
            const range = document.createRange();
            range.setStart(walker.currentNode, word.index);
            range.setEnd(walker.currentNode, word.index + word[0].length);
            if (new Set([...range.getClientRects()].map((each) => Math.round(each.top))).size > 1) {
                found.push(word[0]);
            }
        }
    }
    return found;
})"""
CANARY = "Kanarienvogel"
EVIL = "<img src=x onerror='document.title=1'>"
in_chromium = pytest.mark.skipif(find_chromium() is None, reason=f"no Chromium is installed ({HOW_TO_INSTALL})")


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[ValkeyServer, ValkeyServer]]:
    with ValkeyServer() as broker, ValkeyServer() as cache:
        yield broker, cache


@pytest.fixture(scope="module")
def flower(servers: tuple[ValkeyServer, ValkeyServer]) -> Iterator[FlowerServer]:
    with FlowerServer(broker_url=servers[0].url, cache_url=servers[1].url) as server:
        yield server


@pytest.fixture
def queue(servers: tuple[ValkeyServer, ValkeyServer]) -> Iterator[Any]:
    """The broker, empty."""
    with closing(redis.Redis.from_url(servers[0].url)) as client:
        client.delete("persona", FAILURES, DEAD_LETTERS)
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


def fail(queue: Any, *names: str, why: str = "PermanentModelError: refused") -> None:
    """A failed task of each name."""
    for name in names:
        item = envelope(whole(PersonaRequest.create(f"{CANARY} {name}?", "calm-flowing-planning").to_wire()), id=name)
        keep(queue, name, written("persona", item, why, whole=True, task="persona.process", task_id=name))


def mark_in(flower: FlowerServer, login: str | None = None) -> str:
    found = re.search(r'data-mark="(\w*)"', flower.ask("/fleet", login=login).text)
    assert found
    return found[1]


def post(flower: FlowerServer, path: str, body: Any, **headers: str) -> Answer:
    """As the page does it; `headers` win, and an empty one is left out."""
    sent = {
        "Origin": f"http://127.0.0.1:{flower.port}",
        "Content-Type": "application/json",
        "X-Fleet-Mark": mark_in(flower),
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    return flower.ask(
        path, method="POST", headers={name: value for name, value in sent.items() if value}, body=json.dumps(body).encode()
    )


def queued(queue: Any) -> list[str]:
    return sorted(json.loads(item)["headers"]["id"] for item in queue.lrange("persona", 0, -1))


@in_chromium
def test_one_is_tried_again_and_the_rest_are_dropped_each_asked_once(flower: FlowerServer, queue: Any, browser: Browser) -> None:
    """By its button and by what matches, at the width of a desk and of a pocket; nothing in the lists is what a user wrote."""
    fail(queue, "one", "two")
    fail(queue, "three", why=f"KeyError {EVIL}")
    bury(queue, written("persona", b"{", "is not a message", whole=True))
    browser.open(flower.url + "/fleet")
    rows = "document.querySelectorAll('#fleet-failures tbody tr[data-id]')"
    browser.wait(f"{rows}.length === 3")
    assert browser.evaluate("document.querySelectorAll('#fleet-dead tbody tr[data-id]').length") == 1
    text = browser.evaluate("document.getElementById('fleet-content').textContent")
    assert EVIL in text
    assert CANARY not in text
    browser.evaluate(f"{rows}[0].querySelector('button').click()")
    browser.wait("document.getElementById('fleet-dialog').open")
    assert browser.evaluate("document.getElementById('fleet-question').textContent") == "Try again 1 failed task?"
    assert queued(queue) == []
    browser.evaluate("document.getElementById('fleet-yes').click()")
    browser.wait("document.getElementById('fleet-said').textContent === 'Queued 1 failed task anew.'")
    assert queued(queue) == ["three"]
    browser.wait(f"{rows}.length === 2")
    browser.evaluate("document.querySelector('[data-letters=failures] [name=why]').value = 'ModelError'")
    browser.evaluate("document.querySelector('[data-letters=failures] [value=drop]').click()")
    browser.wait("document.getElementById('fleet-dialog').open")
    browser.evaluate("document.getElementById('fleet-no').click()")
    assert queue.zcard(FAILURES) == 2
    browser.evaluate("document.querySelector('[data-letters=failures] [value=drop]').click()")
    browser.wait("document.getElementById('fleet-dialog').open")
    assert browser.evaluate("document.getElementById('fleet-question').textContent") == "Drop 2 failed tasks?"
    browser.evaluate("document.getElementById('fleet-yes').click()")
    browser.wait("document.getElementById('fleet-said').textContent === 'Dropped 2 failed tasks.'")
    assert queue.zcard(FAILURES) == 0
    assert browser.errors == []
    log = flower.log()
    assert "dashboard.acted: again failures by reader: Queued 1 failed task anew." in log
    assert CANARY not in log


@in_chromium
def test_an_invalidation_shows_what_it_would_end_and_a_preload_is_asked_for(
    flower: FlowerServer, servers: tuple[ValkeyServer, ValkeyServer], browser: Browser, queue: Any
) -> None:
    """What matches, and what was computed from a match; one that cannot be a pattern is a sentence."""
    with closing(TwoTierCache(l2=RedisCache(url=servers[1].url, namespace="persona"))) as cache:
        cache.set("persona:lua:info", 1, ttl=600)
        cache.get_or_compute("made:of:it", lambda: 2, ttl=600, deps=("persona:lua:info",))
        cache.set("another", 3, ttl=600)
        browser.open(flower.url + "/fleet")
        browser.wait("document.getElementById('fleet').dataset.state === 'live'")
        browser.evaluate("document.querySelector('[name=pattern]').value = 'persona:lua:*'")
        browser.evaluate("document.querySelector('#fleet-invalidate [type=submit]').click()")
        browser.wait("document.getElementById('fleet-dialog').open")
        assert "would end 2 entries" in browser.evaluate("document.getElementById('fleet-question').textContent")
        lines = browser.evaluate("[...document.querySelectorAll('#fleet-details li')].map((each) => each.textContent)")
        assert lines == ["made:of:it", "persona:lua:info"]
        browser.evaluate("document.getElementById('fleet-yes').click()")
        browser.wait("document.getElementById('fleet-said').textContent.startsWith('Invalidated persona:lua:*')")
        until(lambda: not cache.get("made:of:it"), "it is a miss")
        assert cache.get("another") == 3
    browser.evaluate("document.querySelector('[name=pattern]').value = '['")
    browser.evaluate("document.querySelector('#fleet-invalidate [type=submit]').click()")
    browser.wait("document.getElementById('fleet-said').textContent.startsWith('Pattern: ')")
    browser.evaluate("document.getElementById('fleet-preload').click()")
    browser.wait("document.getElementById('fleet-dialog').open")
    browser.evaluate("document.getElementById('fleet-yes').click()")
    browser.wait("document.getElementById('fleet-said').textContent.startsWith('A worker begins within')")
    assert json.loads(queue.lrange("maintenance", 0, 0)[0])["headers"]["task"] == "cache.preload"
    assert browser.errors == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": ""},
        {"Sec_Fetch_Site": "cross-site"},
        {"Content_Type": "text/plain"},
        {"X_Fleet_Mark": "0" * 64},
        {"X_Fleet_Mark": ""},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/fleet/ask", "/fleet/confirm"])
def test_what_does_not_come_from_the_page_is_refused(
    path: str, headers: dict[str, str], flower: FlowerServer, queue: Any
) -> None:
    fail(queue, "one")
    answer = post(flower, path, {"what": "drop"} if path.endswith("ask") else {"word": "x"}, **headers)
    assert (answer.status, answer.json()["sentence"]) == (403, FORGED)
    assert queue.zcard(FAILURES) == 1


def test_a_word_confirms_once_and_for_its_login_alone(queue: Any, servers: tuple[ValkeyServer, ValkeyServer]) -> None:
    """Replayed, another user's, or made up: nothing is done. What vanished meanwhile is told, and nothing is lost."""
    users = "ann:a-password,ben:b-password"
    broker, cache = servers
    with FlowerServer(broker_url=broker.url, cache_url=cache.url, environ={"FLOWER_BASIC_AUTH": users}) as flower:
        flower.login = "ann:a-password"
        fail(queue, "one", "two")
        asked = post(flower, "/fleet/ask", {"what": "again"}).json()
        flower.login = "ben:b-password"
        assert mark_in(flower) != mark_in(flower, "ann:a-password")
        assert post(flower, "/fleet/confirm", {"word": asked["word"]}).json()["sentence"] == OVER
        flower.login = "ann:a-password"
        queue.delete(*queue.keys(f"{FAILURES}:*")[:1])
        done = post(flower, "/fleet/confirm", {"word": asked["word"]})
        assert done.json()["sentence"] == "Queued 1 failed task anew; 1 had vanished meanwhile."
        again = post(flower, "/fleet/confirm", {"word": asked["word"]})
        assert (again.status, again.json()["sentence"]) == (409, OVER)
        assert len(queued(queue)) == 1
        gone = post(flower, "/fleet/ask", {"what": "drop", "ids": ["0123"]})
        assert (gone.json()["refused"], "none of these" in gone.json()["sentence"]) == (True, True)
        for body in ([], {"what": "everything"}, {"what": "drop", "more": 1}):
            assert post(flower, "/fleet/ask", body).status == 400
        assert flower.ask("/fleet/ask").status == 405
        assert flower.ask("/fleet/letters", login="").status == 401
        assert "by ann: Queued 1 failed task anew" in flower.log()


@pytest.mark.long
def test_read_only_there_are_the_lists_alone(queue: Any, servers: tuple[ValkeyServer, ValkeyServer]) -> None:
    broker, cache = servers
    fail(queue, "one")
    environ = {"FLOWER_BASIC_AUTH": "ann:a-password", "PERSONA_FLOWER_READ_ONLY": "1"}
    with FlowerServer(broker_url=broker.url, cache_url=cache.url, environ=environ) as flower:
        flower.login = "ann:a-password"
        page = flower.ask("/fleet").text
        assert "fleet-dialog" not in page
        before, _, rest = page.partition('id="fleet-explain"')
        assert "<form" not in before + rest.partition("</section>")[2]
        listed = flower.ask("/fleet/letters")
        assert listed.json()["failures"]["count"] == 1
        assert CANARY not in listed.text
        for path in ("/fleet/ask", "/fleet/confirm"):
            assert post(flower, path, {"what": "drop"}).status == 404
        assert queue.zcard(FAILURES) == 1


def size(browser: Browser, width: int) -> None:
    browser.command("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)


@pytest.mark.long
@in_chromium
def test_at_390_and_1280_pixels_nothing_is_cut_off(flower: FlowerServer, queue: Any, browser: Browser) -> None:
    """In light and in dark; and the forms' fields have names."""
    fail(queue, "one", why="PermanentModelError: " + "the model endpoint answered HTTP 401, " * 5)
    try:
        for width in (390, 1280):
            size(browser, width)
            for theme in ("light", "dark"):
                browser.prefer(theme)
                browser.open(flower.url + "/fleet")
                browser.wait("document.querySelectorAll('#fleet-failures tbody tr[data-id]').length === 1")
                assert browser.evaluate("document.documentElement.scrollWidth") <= width, (width, theme)
                cards = "[...document.querySelectorAll('#fleet-content .fleet-card')]"
                assert browser.evaluate(f"{cards}.every((each) => each.scrollWidth <= each.clientWidth + 1)"), (width, theme)
                assert browser.evaluate(
                    "[...document.querySelectorAll('.fleet-form input')].every((each) => each.labels.length === 1)"
                )
                assert browser.evaluate(BREAKS) == [], (width, theme)
                buttons = "[...document.querySelectorAll('#fleet-content button')]"
                assert browser.evaluate(f"{buttons}.every((each) => each.getBoundingClientRect().right <= {width})"), (
                    width,
                    theme,
                )
                for button in (".fleet-form .btn-outline-primary", "td .btn-outline-danger"):
                    style = f"getComputedStyle(document.querySelector('{button}')).color"
                    card = browser.evaluate("getComputedStyle(document.querySelector('.fleet-card')).backgroundColor")
                    assert contrast(browser.evaluate(style), card) >= TEXT_CONTRAST, (button, theme)
    finally:
        browser.command("Emulation.clearDeviceMetricsOverride")
        browser.prefer("light")
    assert browser.errors == []
