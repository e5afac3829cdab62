"""Flower's page of the fleet as people see it: in a real Chromium where one is installed; and what no page of Flower shows."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from fleet import Fleet
from monitor import FlowerServer
from polling import until
from servers import ValkeyServer
from wcag import SHAPE_CONTRAST, TEXT_CONTRAST, contrast, luminance

from benchmarks.kit.browser import HOW_TO_INSTALL, Browser, find_chromium
from benchmarks.kit.endpoint import Fault
from pipeline.cache.server.connection import RedisConnection
from pipeline.courier import Courier
from pipeline.figures import FigureKeys, Reporter

COUNTS = {"l1": 1200, "l2": 300, "joined": 40, "stale": 5, "no": 155, "failed": 7}
EVIL = '<img src=x onerror="document.title=1">'

in_chromium = pytest.mark.skipif(find_chromium() is None, reason=f"no Chromium is installed ({HOW_TO_INSTALL})")


@pytest.fixture(scope="module")
def cache() -> Iterator[ValkeyServer]:
    """One that a test stops."""
    with ValkeyServer() as server:
        yield server


@pytest.fixture(scope="module")
def flower(valkey: ValkeyServer, cache: ValkeyServer) -> Iterator[FlowerServer]:
    with FlowerServer(broker_url=valkey.url_of(13), cache_url=cache.url) as server:
        yield server


@pytest.fixture(scope="module")
def reporter(cache: ValkeyServer) -> Iterator[Reporter]:
    """A node with a hostile name that has counted COUNTS and invalidated something with a hostile name."""
    made = Reporter(
        Courier(lambda: RedisConnection(cache.url, timeout_s=5)),
        FigureKeys("persona"),
        node=f"n1@{EVIL}",
        role="worker",
        l1_entries=lambda: 321,
    )
    for source, count in COUNTS.items():
        for _ in range(count):
            made.tally.record(source, 1.5)
    made.invalidated("e:1", time.time(), (f"persona:{EVIL}",), durable=True)
    made.applied("e:1", time.time() - 0.004)
    assert made.courier.deliver()
    yield made
    made.courier.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


def shown(browser: Browser, figure: str) -> float:
    return float(browser.evaluate(f"document.querySelector(\"[data-figure='{figure}']\").dataset.value"))


def is_in(browser: Browser, state: str) -> None:
    browser.wait(f"document.getElementById('fleet').dataset.state === '{state}'")


@in_chromium
def test_the_page_shows_the_figures_and_the_console_stays_clean(
    flower: FlowerServer, reporter: Reporter, browser: Browser
) -> None:
    """Reached by its link, with every figure as it was counted, live, and with everything from Flower itself."""
    browser.open(flower.url + "/workers")
    browser.evaluate("[...document.querySelectorAll('.nav-link')].find((link) => link.textContent === 'Fleet').click()")
    browser.wait("document.title === 'Fleet · Flower' && document.getElementById('fleet')")
    is_in(browser, "live")
    assert shown(browser, "total") == sum(COUNTS.values())
    assert shown(browser, "saved") == 1545
    assert shown(browser, "hit-rate") == pytest.approx(1545 / 1700)
    assert shown(browser, "hit-rate-l1") == pytest.approx(1200 / 1707)
    assert shown(browser, "staleness") == pytest.approx(4, abs=2)
    for source, count in COUNTS.items():
        cell = f"document.querySelector(\"#fleet-sources [data-source='{source}'] [data-value]\")"
        assert browser.evaluate(f"Number({cell}.dataset.value)") == count, source
        assert browser.evaluate(f"{cell}.textContent") == f"{count:,}"
    reporter.tally.record("l1", 1.5)  # its own thread tells it
    browser.wait(f"document.querySelector(\"[data-figure='total']\").dataset.value === '{sum(COUNTS.values()) + 1}'")
    # The last slot is drawn when it has ended.
    browser.wait("document.querySelectorAll('#fleet-chart path.fleet-area').length === 6")
    assert browser.errors == []
    hosts = {re.sub(r"^http://([^/]*@)?", "", address).partition("/")[0] for address in browser.requested}
    assert hosts == {f"127.0.0.1:{flower.port}"}


@in_chromium
def test_names_are_text_whatever_is_in_them(flower: FlowerServer, reporter: Reporter, browser: Browser) -> None:
    """Nodes and patterns are named by others: no element is made of a name, and none is asked for."""
    browser.open(flower.url + "/fleet")
    is_in(browser, "live")
    assert EVIL in browser.evaluate("document.getElementById('fleet-nodes').textContent")
    assert EVIL in browser.evaluate("document.getElementById('fleet-invalidations').textContent")
    assert browser.evaluate("document.querySelectorAll('#fleet img').length") == 0
    assert browser.evaluate("document.title") == "Fleet · Flower"
    assert browser.errors == []


@in_chromium
def test_it_can_be_read_in_light_and_in_dark(flower: FlowerServer, reporter: Reporter, browser: Browser) -> None:
    """By the system's theme and by Flower's own switch: text and shapes stand out as the guidelines ask (WCAG 2.2 AA), headings
    follow each other, every table and drawing has a name."""
    backgrounds = {}
    for theme in ("light", "dark"):
        browser.prefer(theme)
        browser.open(flower.url + "/fleet")
        is_in(browser, "live")
        browser.wait("document.querySelectorAll('#fleet-chart path.fleet-area').length === 6")
        card = browser.evaluate("getComputedStyle(document.querySelector('.fleet-card')).backgroundColor")
        backgrounds[theme] = luminance(card)
        texts = (
            ".fleet-card-title",
            "#fleet-sources td",
            ".fleet-beneath",
            ".metric-label",
            ".fleet-code",
            ".fleet-tick",
            ".fleet-legend li",
            ".fleet-none",
            ".fleet-windows label",
        )
        for selector in texts:
            colour = browser.evaluate(f"getComputedStyle(document.querySelector('{selector}')).color")
            assert contrast(colour, card) >= TEXT_CONTRAST, (theme, selector)
        for source in COUNTS:
            colour = browser.evaluate(f"getComputedStyle(document.querySelector('.fleet-mark.fleet-{source}')).backgroundColor")
            assert contrast(colour, card) >= SHAPE_CONTRAST, (theme, source)
    assert backgrounds["light"] > 0.8
    assert backgrounds["dark"] < 0.05
    browser.evaluate("document.querySelector('[data-bs-theme-value=light]').click()")
    assert luminance(browser.evaluate("getComputedStyle(document.querySelector('.fleet-card')).backgroundColor")) > 0.8
    browser.evaluate("document.querySelector('[data-bs-theme-value=system]').click()")
    browser.prefer("light")
    levels = browser.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((heading) => Number(heading.tagName[1]))")
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    assert browser.evaluate("[...document.querySelectorAll('#fleet th')].every((cell) => cell.scope)")
    assert browser.evaluate(
        "[...document.querySelectorAll('#fleet section, #fleet [role=img], #fleet [role=region]')].every((part) => "
        "part.ariaLabel || document.getElementById(part.getAttribute('aria-labelledby')).textContent)"
    )
    assert browser.errors == []


@in_chromium
def test_without_redis_the_page_says_so_and_comes_back_by_itself(
    flower: FlowerServer,
    cache: ValkeyServer,
    reporter: Reporter,
    browser: Browser,
) -> None:
    """Without a reload; the figures shown before are marked as old."""
    browser.open(flower.url + "/fleet")
    is_in(browser, "live")
    cache.stop()
    is_in(browser, "away")
    notice = "document.getElementById('fleet-notice')"
    assert "does not answer" in browser.evaluate(f"{notice}.textContent")
    assert browser.evaluate(f"{notice}.checkVisibility()")
    assert browser.evaluate("document.getElementById('fleet-status').textContent").startswith("As of ")
    cache.start()
    is_in(browser, "live")
    assert not browser.evaluate(f"{notice}.checkVisibility()")
    assert browser.errors == []


def test_no_page_of_flower_shows_what_somebody_asked_or_was_answered(fleet: Fleet, question: str) -> None:
    """An operator may watch, and reads no user's words: not in the lists, not of a task, not by its result, not in the
    metrics."""
    fleet.endpoint.script(Fault())
    with FlowerServer(broker_url=fleet.broker.url, cache_url=fleet.cache.url) as flower:
        until(lambda: flower.ask("/workers?json=1").json()["data"] != [], "Flower sees the node")
        answer = fleet.client.ask(question, "calm-flowing-planning", timeout_s=20).content
        words = question.rsplit(maxsplit=1)[-1].rstrip("?")
        until(lambda: "SUCCESS" in flower.ask("/api/tasks").text, "Flower sees the task and that it has ended")
        task_id = next(iter(flower.ask("/api/tasks").json()))
        until(lambda: flower.ask("/fleet/figures").json()["figures"]["requests"]["no"] > 0, "the page has figures")
        columns = "draw=1&start=0&length=99&search[value]=&order[0][column]=0&order[0][dir]=asc&columns[0][data]=name"
        for path in (
            *(f"/api/task/info/{task_id}", f"/task/{task_id}", f"/api/task/result/{task_id}", "/api/tasks"),
            *(
                f"/tasks/datatable?{columns}",
                f"/worker/{fleet.node.name}",
                "/api/workers?refresh=1",
                "/fleet/figures",
                "/metrics",
            ),
        ):
            found = flower.ask(path)
            assert found.status == (403 if "/result/" in path else 200), path
            assert words not in found.text, path
            assert answer[:20] not in found.text, path
