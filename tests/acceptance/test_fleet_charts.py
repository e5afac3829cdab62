"""The Fleet page over time, in a real Chromium: its windows, its charts by mouse and by keys, and what it says where there is
nothing to draw."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import redis
from faults import Clock
from fleet import WorkerNode
from monitor import FlowerServer
from polling import until
from servers import ValkeyServer

from benchmarks.kit.browser import HOW_TO_INSTALL, Browser, find_chromium
from pipeline.cache.server.connection import RedisConnection
from pipeline.courier import Courier
from pipeline.figures import FigureKeys, LifeSign, Reporter, read_figures
from pipeline.figures.records import DAY_S

KEYS = FigureKeys("persona")
EVIL = '<img src=x onerror="document.title=1">'
WINDOWS = {60: "1 min", 300: "5 min", 900: "15 min", 3600: "60 min", DAY_S: "24 h"}
AGES_S = (20, 150, 700, 3000, 50_000)
"""How long ago something was counted: one more of them in each window."""
IN_EACH = {"l1": 60, "l2": 20, "no": 10, "failed": 2}

in_chromium = pytest.mark.skipif(find_chromium() is None, reason=f"no Chromium is installed ({HOW_TO_INSTALL})")


@pytest.fixture(scope="module")
def cache() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture(scope="module")
def broker() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture(scope="module")
def flower(broker: ValkeyServer, cache: ValkeyServer) -> Iterator[FlowerServer]:
    with FlowerServer(broker_url=broker.url, cache_url=cache.url) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def counted(cache: ValkeyServer) -> None:
    """IN_EACH, at each of AGES_S, by a node of a version with a hostile name; told at once."""
    with closing(RedisConnection(cache.url, timeout_s=5)) as connection:
        clock = Clock(200_000.0)
        reporter = Reporter(Courier(lambda: connection, threaded=False), KEYS, node="n1@host", role="worker", clock=clock)
        reporter.courier.deliver()
        for ago_s in sorted(AGES_S, reverse=True):
            clock.tick(-ago_s)
            for series, count in IN_EACH.items():
                for _ in range(count):
                    reporter.tally.record(series, {"l1": 0.02, "l2": 1.0}.get(series, 800.0))
            reporter.tally.record("queue_wait", 12.0)
            reporter.tally.record("staleness", 4.0)
            reporter.tally.count("invalidations", 3)
            reporter._gather()
            clock.tick(ago_s)
        assert reporter.courier.deliver()
        courier = Courier(lambda: connection, threaded=False)
        LifeSign(courier, KEYS, node="n1@host/7-0a1b", version=EVIL)
        courier.start()
        assert courier.deliver()


def show(browser: Browser, flower: FlowerServer, address: str = "/fleet") -> None:
    browser.open(flower.url + address)
    browser.wait(
        "document.getElementById('fleet').dataset.state === 'live' && document.getElementById('fleet-charts').dataset.window"
    )


def document(flower: FlowerServer, window_s: int) -> Any:
    return flower.ask(f"/fleet/figures?window={window_s}").json()


def choose(browser: Browser, window_s: int) -> None:
    browser.evaluate(f"document.querySelector('label[for=fleet-window-{window_s}]').click()")
    browser.wait(f"document.getElementById('fleet-charts').dataset.window === '{window_s}'")


def shown(browser: Browser, figure: str) -> float:
    return float(browser.evaluate(f"document.querySelector(\"[data-figure='{figure}']\").dataset.value"))


def press(browser: Browser, key: str, times: int = 1) -> None:
    for _ in range(times):
        browser.command("Input.dispatchKeyEvent", type="keyDown", key=key, code=key)
        browser.command("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)


def spoken(browser: Browser, chart: str) -> str:
    return str(browser.evaluate(f"document.querySelector('#{chart}-panel .fleet-plot').getAttribute('aria-valuetext')"))


def focus(browser: Browser, chart: str) -> None:
    """As Tab does: by keys, so that it is seen where the focus is."""
    press(browser, "Tab")
    browser.evaluate(f"document.querySelector('#{chart}-panel .fleet-plot').focus()")


@in_chromium
def test_each_window_shows_what_was_counted_in_it(flower: FlowerServer, counted: None, browser: Browser) -> None:
    """To the request, in the summary and in what is drawn; the choice is in the address, and a link with it shows the same."""
    show(browser, flower)
    for nth, window_s in enumerate(WINDOWS, start=1):
        choose(browser, window_s)
        assert browser.evaluate("document.querySelector(\"[data-figure='window']\").textContent") == WINDOWS[window_s]
        assert shown(browser, "total") == nth * sum(IN_EACH.values())
        assert shown(browser, "failed") == nth * IN_EACH["failed"]
        assert shown(browser, "hit-rate") == pytest.approx(80 / 90)
        assert shown(browser, "hit-rate-l1") == pytest.approx(60 / 92)
        assert shown(browser, "queue-wait") == pytest.approx(12, rel=0.07)
        assert browser.evaluate("new URLSearchParams(location.search).get('window')") == str(window_s)
        drawn = browser.evaluate("document.querySelectorAll('#fleet-chart path.fleet-area').length")
        assert drawn == len(IN_EACH), window_s
        for chart in ("hits", "time-l1", "time-no", "wait", "staleness"):
            assert browser.evaluate(f"document.querySelectorAll('#fleet-chart-{chart} path.fleet-marker').length") > 0, chart
        assert browser.evaluate("document.querySelectorAll('#fleet-chart path.fleet-glyph').length") >= nth
    show(browser, flower, "/fleet?window=3600")
    assert shown(browser, "window") == 3600
    assert browser.evaluate("document.querySelector('#fleet-windows input:checked').value") == "3600"
    assert browser.errors == []


@in_chromium
def test_the_windows_are_chosen_by_keys(flower: FlowerServer, counted: None, browser: Browser) -> None:
    """As any choice of one: the arrows go from one to the next."""
    show(browser, flower)
    browser.evaluate("document.querySelector('#fleet-windows input:checked').focus()")
    press(browser, "ArrowRight")
    browser.wait("document.getElementById('fleet-charts').dataset.window === '3600'")
    press(browser, "ArrowLeft", times=2)
    browser.wait("document.getElementById('fleet-charts').dataset.window === '300'")
    assert browser.errors == []


@in_chromium
def test_the_pointer_goes_through_all_charts_by_keys(flower: FlowerServer, counted: None, browser: Browser) -> None:
    """Each chart is a stop of Tab and says its values at the moment that the keys choose; the others show theirs."""
    show(browser, flower, f"/fleet?window={DAY_S}")
    focus(browser, "fleet-chart")
    press(browser, "Home")
    assert "L1 0/s, L2 0/s" in spoken(browser, "fleet-chart")
    assert browser.evaluate("document.querySelectorAll('.fleet-pointer').length") >= 8
    press(browser, "End")
    found = []
    for _ in range(7):
        if "computed 0/s" not in spoken(browser, "fleet-chart"):
            found.append([spoken(browser, f"fleet-chart{chart}") for chart in ("", "-time-l2", "-failed")])
        press(browser, "ArrowLeft")
    moments = len({int((time.time() - ago_s) // 600) for ago_s in AGES_S if ago_s < 3600})
    assert moments - 1 <= len(found) <= moments + 1, "at a slot's border it may be one more or less"
    requests, times, failed = found[-1]
    assert "L1 0.1/s" in requests
    assert "3 invalidations" in requests
    assert "p50 1.1 ms, p99 1.1 ms" in times
    assert "failed 2" in failed
    press(browser, "End")
    at_the_end = spoken(browser, "fleet-chart")
    press(browser, "ArrowLeft")
    assert spoken(browser, "fleet-chart") != at_the_end
    press(browser, "Escape")
    assert browser.evaluate("document.querySelectorAll('.fleet-pointer').length") == 0
    assert browser.evaluate("[...document.querySelectorAll('.fleet-plot')].every((each) => each.tabIndex === 0)")
    assert browser.errors == []


@in_chromium
def test_the_pointer_goes_through_all_charts_by_mouse(flower: FlowerServer, counted: None, browser: Browser) -> None:
    """And is gone with the mouse."""
    show(browser, flower)
    box = browser.evaluate(
        "(() => {const plot = document.querySelector('#fleet-chart-hits-panel .fleet-plot'); "
        "plot.scrollIntoView({block: 'center', behavior: 'instant'}); "
        "const box = plot.getBoundingClientRect(); return [box.left, box.top, box.width, box.height];})()"
    )
    left, top, width, height = box
    browser.command("Input.dispatchMouseEvent", type="mouseMoved", x=left + width / 2, y=top + height / 2)
    browser.wait("document.querySelectorAll('.fleet-pointer').length >= 5")
    assert browser.evaluate("document.querySelector('#fleet-chart-panel .fleet-moment').textContent") != ""
    browser.command("Input.dispatchMouseEvent", type="mouseMoved", x=5, y=5)
    browser.wait("document.querySelectorAll('.fleet-pointer').length === 0")
    assert browser.errors == []


@in_chromium
def test_series_are_told_apart_by_more_than_colour(flower: FlowerServer, counted: None, browser: Browser) -> None:
    """Areas by their pattern, lines by dash and marker; the legend shows the same. Axes begin at zero, and say so."""
    show(browser, flower)
    areas = "[...document.querySelectorAll('#fleet-chart path.fleet-area')]"
    fills = browser.evaluate(f"{areas}.map((each) => each.getAttribute('fill'))")
    assert len(set(fills)) == len(fills) == len(IN_EACH)
    legend = "document.querySelectorAll('#fleet-chart-panel .fleet-legend li')"
    assert browser.evaluate(f"[...{legend}].map((each) => each.children[1].textContent)") == [
        *("L1", "L2", "joined", "stale", "computed", "failed")
    ]
    lines = "[...document.querySelectorAll('#fleet-chart-hits path.fleet-line')]"
    assert len(set(browser.evaluate(f"{lines}.map((each) => each.getAttribute('stroke-dasharray'))"))) == 2
    shapes = "[...document.querySelectorAll('#fleet-chart-hits path.fleet-marker')]"
    assert len(set(browser.evaluate(f"{shapes}.map((each) => each.getAttribute('d'))"))) == 2
    axes = "[...document.querySelectorAll('.fleet-panel:not(:has(.fleet-none:not([hidden]))) svg.fleet-drawing')]"
    ticks = browser.evaluate(f"{axes}.map((each) => [...each.querySelectorAll('.fleet-tick')].map((tick) => tick.textContent))")
    assert len(ticks) >= 7
    for labels in ticks:
        assert labels[0].rstrip("/s% m") == "0", labels
        assert labels[5] == "now"
    assert browser.errors == []


@in_chromium
def test_names_in_marks_are_text(flower: FlowerServer, counted: None, browser: Browser) -> None:
    """A version's name comes from another host."""
    show(browser, flower)
    assert EVIL in browser.evaluate("document.getElementById('fleet-marks').textContent")
    assert browser.evaluate("document.querySelectorAll('#fleet img').length") == 0
    assert browser.evaluate("document.title") == "Fleet · Flower"
    assert browser.errors == []


@in_chromium
def test_in_a_pocket_and_in_the_dark_nothing_is_cut_off(flower: FlowerServer, counted: None, browser: Browser) -> None:
    """At 390 pixels no chart, legend or choice reaches beyond the page, and no label beyond its drawing."""
    try:
        for theme in ("light", "dark"):
            browser.prefer(theme)
            browser.command("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=False)
            show(browser, flower, "/fleet?window=3600")
            assert browser.evaluate("document.documentElement.scrollWidth") <= 390
            parts = ".fleet-panel, .fleet-legend li, .fleet-windows label, .fleet-drawing, .fleet-marks li, .fleet-tick"
            beyond = browser.evaluate(
                f"[...document.querySelectorAll('{parts}')].filter((part) => {{const box = part.getBoundingClientRect(); "
                "return box.width && (box.left < 0 || box.right > 390)}).map((part) => part.textContent)"
            )
            assert beyond == []
    finally:
        browser.prefer("light")
        browser.command("Emulation.clearDeviceMetricsOverride")
    assert browser.errors == []


@in_chromium
def test_a_cache_that_stands_still_is_said_and_the_page_comes_back(
    flower: FlowerServer, counted: None, cache: ValkeyServer, browser: Browser
) -> None:
    """Also when another window is chosen meanwhile: it is shown once there are figures again."""
    show(browser, flower)
    cache.freeze()
    try:
        browser.wait("document.getElementById('fleet').dataset.state === 'away'")
        assert "does not answer" in browser.evaluate("document.getElementById('fleet-notice').textContent")
        browser.evaluate("document.querySelector('label[for=fleet-window-300]').click()")
        assert browser.evaluate("document.getElementById('fleet-charts').dataset.window") == "900"
    finally:
        cache.thaw()
    browser.wait("document.getElementById('fleet').dataset.state === 'live'")
    browser.wait("document.getElementById('fleet-charts').dataset.window === '300'")
    assert browser.errors == []


@pytest.mark.long
@in_chromium
def test_a_window_without_figures_says_so(broker: ValkeyServer, browser: Browser) -> None:
    """Each chart a sentence, in place of an empty box; a window that there is not is said, and the usual one shown."""
    with ValkeyServer() as empty, FlowerServer(broker_url=broker.url, cache_url=empty.url) as flower:
        show(browser, flower, "/fleet?window=7")
        assert shown(browser, "window") == 900
        assert "1 min, 5 min, 15 min, 60 min, 24 h" in browser.evaluate(
            "document.getElementById('fleet-window-notice').textContent"
        )
        said = "[...document.querySelectorAll('.fleet-none:not([hidden])')].map((each) => each.textContent)"
        sentences = browser.evaluate(said)
        assert "No request was made in the last 15 min." in sentences
        assert len(sentences) >= 10
        assert all(sentence.endswith("in the last 15 min.") for sentence in sentences)
        assert browser.evaluate("document.querySelectorAll('.fleet-plot:not([hidden]) svg:empty').length") == 0
        assert "None in the last 15 min." in browser.evaluate("document.getElementById('fleet-marks').textContent")
        assert browser.errors == []


def test_the_document_has_the_windows_that_there_are_and_names_them_otherwise(flower: FlowerServer, counted: None) -> None:
    """No other can be asked for, so that nobody makes Flower read thousands of slots."""
    for window_s in WINDOWS:
        until(lambda at=window_s: document(flower, at)["state"] == "live", "also when the cache was away a moment ago")  # type: ignore[misc]
        assert document(flower, window_s)["figures"]["window_s"] == window_s
    assert flower.ask("/fleet/figures").json()["figures"]["window_s"] == 900
    for wrong in ("0", "61", "-60", "1e3", "9" * 400, "", "60&window=7", "a%00b", "<script>"):
        answer = flower.ask(f"/fleet/figures?window={wrong}")
        assert answer.status == 400, wrong
        assert answer.text == "the window is one of 60, 300, 900, 3600, 86400 seconds\n"
        assert answer.headers["Content-Type"].startswith("text/plain")


def test_queues_are_watched_while_no_node_lives(flower: FlowerServer, broker: ValkeyServer, cache: ValkeyServer) -> None:
    """That is when they grow. A broker that stands still leaves a gap, and no error."""

    def queued() -> int:
        figures = document(flower, 60)["figures"] or {"slots": []}
        return max((slot["queued"].get("persona", -1) for slot in figures["slots"]), default=-1)

    with broker.client() as client:
        client.lpush("persona", *(b"a message" for _ in range(17)))
        until(lambda: queued() == 17, "Flower has seen them")
        client.delete("persona")
    broker.freeze()
    try:
        assert flower.ask("/fleet/figures?window=60").status == 200
    finally:
        broker.thaw()
    assert "Traceback" not in flower.log()


@pytest.mark.long
def test_a_node_tells_its_version_and_leaves_or_is_missed(broker: ValkeyServer) -> None:
    """A stop in order leaves no mark; a node that is killed stays on the list, to be marked a minute later."""
    with ValkeyServer() as cache, cache.client() as client, closing(RedisConnection(cache.url, timeout_s=5)) as connection:

        def heard() -> list[str]:
            return [name.decode() for name in client.zrange(KEYS.heard, 0, -1)]

        for ends_well in (True, False):
            with WorkerNode(broker_url=broker.url, cache_url=cache.url, concurrency=1) as node:
                until(heard, "the node has told that it lives")
                assert heard()[0].startswith(f"{node.name}/{node.pid}-")
                if ends_well:
                    assert node.stop()
                    assert heard() == []
        (lost,) = heard()
        assert [mark.kind for mark in read_figures(connection, KEYS, 300).marks] == ["version"]
        assert isinstance(client, redis.Redis)
        assert lost.startswith(node.name)
