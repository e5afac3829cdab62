"""Flower's page of the fleet at the width of a pocket and of a desk: no word is broken, nothing is cut off, measured in a real
Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from full_page import LONG_HOST, filled
from monitor import FlowerServer
from servers import ValkeyServer

from benchmarks.kit.browser import HOW_TO_INSTALL, Browser, find_chromium

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(find_chromium() is None, reason=f"no Chromium is installed ({HOW_TO_INSTALL})"),
]

WIDTHS: Final = (390, 1280)
SHOWN: Final = "const shown = (each) => each.checkVisibility() && !each.closest('.visually-hidden, svg, thead');"
BROKEN: Final = """[...document.querySelectorAll('#fleet *')].filter(shown).flatMap((element) => {
    const found = [];
    [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE).forEach((node) => {
        for (const word of node.data.matchAll(/[^\\s:@\\/._=&?,-]+[:@\\/._=&?,-]*/g)) {
            const range = document.createRange();
            range.setStart(node, word.index);
            range.setEnd(node, word.index + word[0].length);
            const lines = new Set([...range.getClientRects()].filter((box) => box.width).map((box) => Math.round(box.top)));
            if (lines.size > 1) {
                found.push(word[0]);
            }
        }
    });
    return found;
})"""
"""The words that have a box on more than one line. A name's words end where its parts do."""
BEYOND: Final = """[...document.querySelectorAll('#fleet *')].filter(shown).filter((each) => {
    const box = each.getBoundingClientRect();
    return box.width > 1 && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map((each) => each.tagName + '.' + each.className + ' ' + each.textContent.slice(0, 40))"""
"""The elements that are beyond an edge of the screen."""
CUT: Final = """[...document.querySelectorAll('#fleet .table-responsive, #fleet .fleet-card, #fleet td, #fleet .metric-card')]
    .filter((each) => each.checkVisibility() && each.scrollWidth > each.clientWidth + 1)
    .map((each) => each.tagName + '.' + each.className + ' ' + each.scrollWidth + ' in ' + each.clientWidth)"""
"""What has more in it than it shows: it would have to be scrolled."""
LONG_PART: Final = 42
"""A part of so many characters fits into no line of a pocket's screen."""


@pytest.fixture(scope="module")
def flower() -> Iterator[FlowerServer]:
    with (
        ValkeyServer() as broker,
        ValkeyServer() as cache,
        filled(broker.url, cache.url),
        FlowerServer(broker_url=broker.url, cache_url=cache.url) as server,
    ):
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


def show(browser: Browser, flower: FlowerServer, width: int, theme: str) -> None:
    browser.command("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    browser.prefer(theme)
    browser.open(flower.url + "/fleet")
    browser.wait("document.querySelectorAll('#fleet-hot [data-key]').length === 10")
    browser.wait("document.querySelectorAll('#fleet-failures [data-id]').length === 2")
    browser.wait("document.querySelectorAll('#fleet-nodes tbody tr').length > 1")


def measured(browser: Browser, script: str) -> list[str]:
    found: list[str] = browser.evaluate(f"(() => {{ {SHOWN} return {script}; }})()")
    return found


def faults(browser: Browser, width: int) -> dict[str, list[str]]:
    found = {
        "broken": [word for word in measured(browser, BROKEN) if len(word) < LONG_PART],
        "beyond": measured(browser, BEYOND),
        "cut": measured(browser, CUT),
        "page": [] if browser.evaluate("document.documentElement.scrollWidth") <= width else ["it scrolls sideways"],
    }
    return {name: each for name, each in found.items() if each}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_word_is_broken_and_nothing_is_cut_off(flower: FlowerServer, browser: Browser, width: int, theme: str) -> None:
    """In every table, with long names and such as look like markup; each cell of a narrow table bears its column's name."""
    show(browser, flower, width, theme)
    assert LONG_HOST in browser.evaluate("document.getElementById('fleet-nodes').textContent")
    assert faults(browser, width) == {}
    rows = "[...document.querySelectorAll('#fleet table tbody tr')].filter((row) => row.cells.length > 1)"
    assert browser.evaluate(f"{rows}.length") > 20
    labels = (
        "[...row.cells].filter((cell) => cell.tagName === 'TD' && cell.textContent && !cell.querySelector('.fleet-buttons'))"
        ".every((cell) => cell.dataset.label && getComputedStyle(cell, '::before').content"
    )
    shown = "=== JSON.stringify(cell.dataset.label)" if width == WIDTHS[0] else "=== 'none'"
    assert browser.evaluate(f"{rows}.every((row) => {labels} {shown}))")
    assert browser.errors == []


@pytest.mark.parametrize("width", WIDTHS)
def test_nor_in_what_is_opened(flower: FlowerServer, browser: Browser, width: int) -> None:
    """An account of a key, one of an invalidation, and a question."""
    show(browser, flower, width, "light")
    browser.evaluate("document.querySelectorAll('#fleet-hot [data-key] button')[2].click()")
    browser.wait("document.querySelector('[data-fact=served_by]')")
    assert faults(browser, width) == {}
    browser.evaluate("document.querySelectorAll('#fleet-invalidations button')[1].click()")
    browser.wait("document.querySelector('[data-fact=invalidated]')")
    assert faults(browser, width) == {}
    browser.evaluate("document.querySelector('[name=pattern]').value = 'persona:lua:*'")
    browser.evaluate("document.querySelector('#fleet-invalidate [type=submit]').click()")
    browser.wait("document.getElementById('fleet-dialog').open")
    assert faults(browser, width) == {}
    assert browser.errors == []


def test_a_table_in_blocks_is_a_table_to_those_who_hear_it(flower: FlowerServer, browser: Browser) -> None:
    """By its roles: a browser takes them from a table whose cells are no boxes of a grid."""
    show(browser, flower, 390, "light")
    tree = browser.command("Accessibility.getFullAXTree")["nodes"]
    roles = [node["role"]["value"] for node in tree if not node.get("ignored")]
    assert roles.count("table") == 6
    assert roles.count("columnheader") > 20
    assert roles.count("row") > 20
    assert roles.count("cell") > 80
