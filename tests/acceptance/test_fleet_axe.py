"""Flower's page of the fleet by axe-core, which has the accessibility guidelines as rules: no serious finding.

`make test-browser` installs axe-core beside the environment; `TEST_AXE_CORE` names another copy's axe.min.js.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from full_page import filled
from monitor import FlowerServer
from servers import ValkeyServer

from benchmarks.kit.browser import HOW_TO_INSTALL, Browser, find_chromium

AXE: Final = Path(os.environ.get("TEST_AXE_CORE") or Path(sys.prefix) / "browser" / "node_modules" / "axe-core" / "axe.min.js")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(find_chromium() is None, reason=f"no Chromium is installed ({HOW_TO_INSTALL})"),
    pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not there: `make test-browser` installs it, with npm"),
]
RUN: Final = """axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations
    .filter((each) => ['serious', 'critical'].includes(each.impact))
    .map((each) => each.id + ': ' + each.nodes.map((node) => node.target.join(' ') + ' ' + node.failureSummary).join('; ')))"""
SIZES: Final = [(width, theme) for width in (1280, 390) for theme in ("light", "dark")]


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[ValkeyServer, ValkeyServer]]:
    with ValkeyServer() as broker, ValkeyServer() as cache:
        yield broker, cache


@pytest.fixture(scope="module")
def flower(servers: tuple[ValkeyServer, ValkeyServer]) -> Iterator[FlowerServer]:
    broker, cache = servers
    with FlowerServer(broker_url=broker.url, cache_url=cache.url) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


def show(browser: Browser, flower: FlowerServer, width: int, theme: str) -> None:
    browser.command("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    browser.prefer(theme)
    browser.open(flower.url + "/fleet")
    browser.wait("document.getElementById('fleet').dataset.state === 'live'")
    browser.evaluate(AXE.read_text(encoding="utf-8") + "\ntrue")


def findings(browser: Browser) -> list[str]:
    """Once colours have come to rest."""
    browser.wait("document.getAnimations().every((each) => each.playState !== 'running')")
    found: list[str] = browser.evaluate(RUN)
    return found


def test_axe_finds_what_it_is_for(flower: FlowerServer, browser: Browser) -> None:
    """Else the tests below would hold of any page."""
    show(browser, flower, 1280, "light")
    browser.evaluate("document.querySelector('#fleet-explain label').replaceWith(document.createElement('input'))")
    browser.evaluate("document.querySelector('.fleet-card-title').style.color = '#eee'")
    found = {each.partition(":")[0] for each in findings(browser)}
    assert found == {"label", "color-contrast"}


@pytest.mark.parametrize(("width", "theme"), SIZES)
def test_the_empty_page(flower: FlowerServer, browser: Browser, width: int, theme: str) -> None:
    show(browser, flower, width, theme)
    browser.wait("!document.getElementById('fleet-first').hidden")
    assert findings(browser) == []


@pytest.mark.parametrize(("width", "theme"), SIZES)
def test_the_full_page_and_what_is_opened(
    flower: FlowerServer, browser: Browser, servers: tuple[ValkeyServer, ValkeyServer], width: int, theme: str
) -> None:
    """With an account of a key; with a question; and with a refusal."""
    broker, cache = servers
    with filled(broker.url, cache.url):
        show(browser, flower, width, theme)
        browser.wait("document.querySelectorAll('#fleet-hot [data-key]').length === 10")
        browser.wait("document.querySelectorAll('#fleet-failures [data-id]').length === 2")
        browser.wait("document.querySelectorAll('#fleet-nodes tbody tr').length > 1")
        assert findings(browser) == []
        browser.evaluate("document.querySelectorAll('#fleet-hot [data-key] button')[2].click()")
        browser.wait("document.querySelector('[data-fact=served_by]')")
        assert findings(browser) == []
        browser.evaluate("document.querySelector('[name=pattern]').value = 'persona:lua:*'")
        browser.evaluate("document.querySelector('#fleet-invalidate [type=submit]').click()")
        browser.wait("document.getElementById('fleet-dialog').open")
        assert findings(browser) == []
        browser.evaluate("document.getElementById('fleet-no').click()")
        browser.evaluate("document.querySelector('[name=pattern]').value = '['")
        browser.evaluate("document.querySelector('#fleet-invalidate [type=submit]').click()")
        browser.wait("document.getElementById('fleet-said').textContent.startsWith('Pattern: ')")
        assert findings(browser) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_with_its_cache_frozen(
    flower: FlowerServer, browser: Browser, servers: tuple[ValkeyServer, ValkeyServer], theme: str
) -> None:
    """What was shown before stays, and can be read."""
    broker, cache = servers
    with filled(broker.url, cache.url):
        show(browser, flower, 1280, theme)
        browser.wait("document.querySelectorAll('#fleet-hot [data-key]').length === 10")
        cache.freeze()
        try:
            browser.wait("document.getElementById('fleet').dataset.state === 'away'")
            assert findings(browser) == []
            browser.evaluate("new Promise((done) => setTimeout(done, 6000))")  # asked for anew meanwhile
            assert browser.evaluate("document.querySelectorAll('#fleet-hot [data-key]').length") == 10
            assert browser.errors == []
        finally:
            cache.thaw()
