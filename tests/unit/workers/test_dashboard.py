"""The parts of the dashboard by themselves: the login, the counts, the shared reading, and what takes the place of Flower's
own."""

from __future__ import annotations

import asyncio
import base64
import logging
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from faults import Clock
from flower.urls import settings as flower_settings
from prometheus_client.parser import text_string_to_metric_families
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine
from tornado.web import create_signed_value

from pipeline.figures import FleetFigures
from pipeline.figures.fleet import Audit, Ever, Node, Process, Requests, nines
from pipeline.figures.histogram import WIDE_BUCKETS, count_buckets, wide_bound_ms, wide_bucket_of
from workers.dashboard.hook import COMMAND, serve_ours
from workers.dashboard.login import Login, login_of
from workers.dashboard.metrics import BOUNDS, exposition
from workers.dashboard.source import Shared
from workers.dashboard.templates import stock_and_ours

SECRET = "cookie-secret"
BASIC = ("reader:one", "writer:two")


def request(authorization: str | None = None, cookie: bytes | None = None) -> HTTPServerRequest:
    headers = HTTPHeaders()
    if authorization is not None:
        headers.add("Authorization", authorization)
    if cookie is not None:
        headers.add("Cookie", f"user={cookie.decode()}")
    headers.add("Host", "here")
    return HTTPServerRequest(headers=headers, start_line=RequestStartLine("GET", "/", "HTTP/1.1"))


def basic(credentials: bytes) -> str:
    return "Basic " + base64.b64encode(credentials).decode()


# -- the login


@pytest.mark.parametrize("credentials", BASIC)
def test_each_of_the_logins_is_admitted(credentials: str) -> None:
    """Several may be configured."""
    assert Login(BASIC).admits(request(basic(credentials.encode())))


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Basic",
        "Basic =",
        "Basic ====",
        "Basic !",
        "Basic é",
        basic(b"reader:"),
        basic(b":one"),
        basic(b"reader:two"),
        basic(b"reader:one "),
        basic("reader:öne".encode()),
        basic(b"\xff\xfe"),
        basic(b"reader:one").replace("Basic", "Bearer"),
        basic(b"reader:one,writer:two"),
    ],
)
def test_nothing_else_is(authorization: str | None) -> None:
    """Whatever is sent in its place, none of it is an error either."""
    assert not Login(BASIC).admits(request(authorization))


def test_a_session_of_oauth_counts_if_its_address_fits_and_its_signature_is_ours() -> None:
    """With both kinds of login configured, both are asked for."""
    login = Login((), "a@b.example", SECRET)
    right = create_signed_value(SECRET, "user", "a@b.example")
    assert login.admits(request(cookie=right))
    assert not login.admits(request())
    assert not login.admits(request(cookie=b"a@b.example"))
    assert not login.admits(request(cookie=create_signed_value("another", "user", "a@b.example")))
    assert not login.admits(request(cookie=create_signed_value(SECRET, "user", "a@b.example.evil")))
    both = login._replace(basic=BASIC)
    assert both.admits(request(basic(b"reader:one"), right))
    assert not both.admits(request(cookie=right))
    assert not both.admits(request(basic(b"reader:one")))


@pytest.mark.parametrize("given", [None, [], [""]])
def test_without_a_login_one_is_made_that_nobody_can_guess(given: list[str] | None) -> None:
    """And Flower's own handlers learn of it. An empty variable counts as unset."""
    options = SimpleNamespace(basic_auth=given, auth="")
    login = login_of(options, SECRET)
    assert len(login.made) >= 32
    assert options.basic_auth == [f"persona:{login.made}"]
    assert login.admits(request(basic(f"persona:{login.made}".encode())))
    assert not login.admits(request())
    assert login_of(SimpleNamespace(basic_auth=given, auth=""), SECRET).made != login.made


def test_a_login_that_is_given_is_taken_and_none_is_made() -> None:
    """By either way."""
    assert login_of(SimpleNamespace(basic_auth=["a:b"], auth=""), SECRET) == Login(("a:b",), "", SECRET)
    assert login_of(SimpleNamespace(basic_auth=None, auth="a@b"), SECRET) == Login((), "a@b", SECRET)


@pytest.mark.parametrize("credentials", ["canary", ":canary", "canary:", "reader:canäry"])
def test_a_login_that_would_not_hold_is_refused_without_being_shown(credentials: str) -> None:
    """`user:` would let in anyone with the name. A comma in a password makes two entries of it, of which the second is not
    valid."""
    with pytest.raises(click.ClickException, match=r"entry 2 .*user:password") as refused:
        login_of(SimpleNamespace(basic_auth=["a:b", credentials], auth=""), SECRET)
    assert "canary" not in str(refused.value)
    assert "canäry" not in str(refused.value)


# -- figures


def test_a_tiers_hit_ratio_is_of_the_requests_that_looked_there() -> None:
    """L2 is asked for what L1 had not; a stale answer, one that was joined, one that failed: no hits."""
    assert Requests(l1=60, l2=20, joined=5, stale=5, no=8, failed=2).hit_ratios == {"l1": 0.6, "l2": 0.5}
    assert Requests(l1=3).hit_ratios == {"l1": 1.0, "l2": None}
    assert Requests().hit_ratios == {"l1": None, "l2": None}


@pytest.mark.parametrize(
    ("checks", "stale", "least", "text"),
    [
        (1, 0, 0.05, "5.0%"),
        (9_812, 0, 0.99969, "99.96%"),
        (10_000_000, 0, 0.9999997, "99.99997%"),
        (1_000, 1, 0.9955, "99.5%"),
        (1_000, 1_000, 0.0, "0.0%"),
        (100, 50, 0.419, "41.8%"),
    ],
)
def test_the_share_of_fresh_answers_is_told_with_its_bound(checks: int, stale: int, least: float, text: str) -> None:
    """Without a fault it is the exact bound, which the rule of three comes near; with faults Wilson's. Never more nines than it
    has."""
    found = Audit(checks, stale).least_fresh
    assert found is not None
    assert found == pytest.approx(least, abs=1e-3 if stale else max(1e-8, 0.2 / checks))
    assert nines(found) == text


def test_nothing_is_told_without_checks() -> None:
    """Undecided ones are none."""
    assert Audit(undecided=7).least_fresh is None


def samples(figures: FleetFigures, **lengths: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(exposition(figures, lengths).decode())
    return {(each.name, tuple(sorted(each.labels.items()))): each.value for family in families for each in family.samples}


def fleet_of(**requests: int) -> FleetFigures:
    process = Process(1, "worker", 0.0, Requests(), None)
    nodes = (
        Node("a", True, (process, Process(2, "main", 0.0, Requests(), None))),
        Node("h", False, (Process(3, "producer", 0.0, Requests(), None),)),
    )
    counts = [0] * (wide_bucket_of(*count_buckets([3.0])) + 1)
    counts[-1] = 4
    ever = Ever(
        audit=Audit(900, 2, 30),
        requests=Requests(**requests),
        by_producers=Requests(l1=40),
        invalidations=7,
        ms={"no": 12_000.0},
        buckets={"no": tuple(counts)},
    )
    return FleetFigures(available=True, requests=Requests(l1=3, l2=1, no=0), nodes=nodes, ever=ever)


def test_the_metrics_say_what_the_figures_say() -> None:
    """Sums without an end for the counters, the present state for the gauges, seconds for milliseconds."""
    found = samples(fleet_of(l1=100, l2=10, no=4, failed=1), persona=3)
    assert found["persona_requests_total", (("role", "producer"), ("source", "l1"))] == 40
    assert found["persona_requests_total", (("role", "worker"), ("source", "l1"))] == 60
    assert found["persona_requests_total", (("role", "worker"), ("source", "failed"))] == 1
    assert found["persona_model_calls_saved_total", ()] == 110
    assert found["persona_invalidations_total", ()] == 7
    assert [found[f"persona_audit_{name}_total", ()] for name in ("checks", "stale", "undecided")] == [900, 2, 30]
    assert found["persona_cache_hit_ratio", (("tier", "l1"),)] == 0.75
    assert found["persona_cache_hit_ratio", (("tier", "l2"),)] == 1.0
    assert (found["persona_nodes", ()], found["persona_processes", ()], found["persona_cache_up", ()]) == (1, 1, 1)
    assert found["persona_queue_length", (("queue", "persona"),)] == 3
    assert found["persona_request_seconds_sum", (("source", "no"),)] == 12
    assert found["persona_request_seconds_count", (("source", "no"),)] == 4
    buckets = {
        float(dict(labels)["le"]): value
        for (name, labels), value in found.items()
        if name == "persona_request_seconds_bucket" and ("source", "no") in labels
    }
    assert list(buckets.values()) == sorted(buckets.values())
    assert all(value == (4 if bound_s > 0.003 else 0) for bound_s, value in buckets.items())
    assert max(buckets) == float("inf")


def test_without_a_cache_there_is_one_thing_to_say() -> None:
    """No counter falls to 0, which would be the reset of a counter."""
    found = samples(FleetFigures(available=False), persona=3)
    assert found == {("persona_cache_up", ()): 0, ("persona_queue_length", (("queue", "persona"),)): 3}


def test_the_buckets_shown_cover_what_alerts_ask_for_and_are_few() -> None:
    """Each is a series for each source, for every scrape, for ever."""
    bounds_s = [wide_bound_ms(wide) / 1000 for wide in BOUNDS]
    assert len(bounds_s) <= 52
    assert bounds_s[0] < 1e-5
    assert bounds_s[-1] > 85
    assert all(later / earlier <= 1.5001 for earlier, later in pairwise(bounds_s))
    assert wide_bucket_of(*count_buckets([1e12])) == WIDE_BUCKETS - 1


# -- one answer for many


def test_requests_at_one_time_share_one_reading_and_later_ones_get_another() -> None:
    """Ten viewers cost as much as one."""

    async def scenario() -> None:
        clock, readings = Clock(), 0

        async def read() -> int:
            nonlocal readings
            readings += 1
            await asyncio.sleep(0)
            return readings

        shared = Shared(read, fresh_s=1.0, bound_s=5.0, clock=clock)
        assert await asyncio.gather(*(shared.latest() for _ in range(10))) == [1] * 10
        clock.tick(0.99)
        assert await shared.latest() == 1
        clock.tick(0.02)
        assert await asyncio.gather(*(shared.latest() for _ in range(10))) == [2] * 10

    asyncio.run(scenario())


def test_how_long_an_answer_serves_may_depend_on_it() -> None:
    """That a server is away is asked anew sooner than what it told is."""

    async def scenario() -> None:
        clock, answers = Clock(), ["away", "there", "there"]

        async def read() -> str:
            return answers.pop(0)

        shared = Shared(read, fresh_s=lambda answer: 1.0 if answer == "away" else 5.0, bound_s=5.0, clock=clock)
        assert await shared.latest() == "away"
        clock.tick(1.0)
        assert await shared.latest() == "there"
        clock.tick(4.9)
        assert await shared.latest() == "there"
        assert len(answers) == 1

    asyncio.run(scenario())


def test_a_reading_that_takes_too_long_or_fails_is_no_answer_for_the_next_one() -> None:
    """And one who goes away takes nothing from the others."""

    async def scenario() -> None:
        outcomes: list[Any] = [OSError("away"), asyncio.Event(), 3]

        async def read() -> int:
            outcome = outcomes.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            if isinstance(outcome, asyncio.Event):
                await outcome.wait()
            return 3

        shared = Shared(read, fresh_s=1.0, bound_s=0.02, clock=Clock())
        with pytest.raises(OSError, match="away"):
            await shared.latest()
        with pytest.raises(TimeoutError):
            await shared.latest()
        gone = asyncio.ensure_future(shared.latest())
        stays = asyncio.ensure_future(shared.latest())
        await asyncio.sleep(0)
        gone.cancel()
        assert await stays == 3

    asyncio.run(scenario())


# -- in Flower's place


def test_the_link_is_the_last_of_the_navigation_and_all_else_is_flowers() -> None:
    """In the template that all its pages share."""
    stock = Path(flower_settings["template_path"])
    ours = stock_and_ours(str(stock))
    found = ours.dict["navbar.html"]
    original = (stock / "navbar.html").read_text(encoding="utf-8")
    first_list = found[: found.index("</ul>")]
    assert [label for label in (">Workers<", ">Tasks<", ">Broker<", ">Fleet<") if label in first_list][-1] == ">Fleet<"
    assert "</ul>" + found.partition("</ul>")[2] == "</ul>" + original.partition("</ul>")[2]
    assert {path.name for path in stock.glob("*.html")} | {"fleet.html", "letters.html"} == set(ours.dict)


def test_a_navigation_that_is_not_as_it_was_gets_no_link_and_breaks_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A release of Flower may look otherwise."""
    (tmp_path / "navbar.html").write_text("<nav></nav>")
    with caplog.at_level(logging.WARNING):
        assert stock_and_ours(str(tmp_path)).dict["navbar.html"] == "<nav></nav>"
    assert "dashboard.no_link" in caplog.text


def fake_command(**names: Any) -> Any:
    ran: list[Any] = []
    command = SimpleNamespace(callback=lambda *arguments: ran.append(arguments))
    return SimpleNamespace(flower=command, ran=ran, **names)


def test_the_command_runs_with_our_class_in_place_of_flowers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, however often the app is loaded, and not before it runs."""
    module = fake_command(Flower=object)
    monkeypatch.setitem(sys.modules, COMMAND, module)
    serve_ours()
    once = module.flower.callback
    serve_ours()
    assert module.flower.callback is once
    assert module.Flower is object
    module.flower.callback("argument")
    assert module.Flower.__name__ == "Dashboard"
    assert module.ran == [("argument",)]


def test_a_flower_that_cannot_be_replaced_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock Flower would serve everything to everyone."""
    module = fake_command()
    monkeypatch.setitem(sys.modules, COMMAND, module)
    serve_ours()
    with pytest.raises(click.ClickException, match=r"Flower 2\.\d"):
        module.flower.callback()
    assert module.ran == []


def test_where_no_command_is_run_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker needs no web server."""
    monkeypatch.delitem(sys.modules, COMMAND, raising=False)
    serve_ours()
    assert COMMAND not in sys.modules
