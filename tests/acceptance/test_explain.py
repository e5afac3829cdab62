"""`persona explain`: what is known of a key, of a request's answer, of a task. It shows no user's text, and changes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import redis
from fleet import Fleet, send_plain
from polling import until

from benchmarks.kit.endpoint import Fault
from pipeline.cache.keys import KeySpace
from pipeline.models import PersonaRequest
from workers.cli import main
from workers.queue.names import PUBLISHED_HEADER

KEY = "calm-flowing-planning"
KEYS = KeySpace("persona")

Explain = Callable[..., dict[str, Any]]


@pytest.fixture
def explain(fleet: Fleet, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Explain:
    """The command's document, in this process."""
    for name, value in fleet.environ.items():
        monkeypatch.setenv(name, value)

    def run(*words: str) -> dict[str, Any]:
        capsys.readouterr()
        code = main(["explain", *words, "--json"])
        shown = capsys.readouterr()
        document: dict[str, Any] = json.loads(shown.out)
        assert (code == 0) == ("error" not in document), shown.err
        return document

    return run


@pytest.fixture
def server(fleet: Fleet) -> Iterator[Any]:
    with closing(redis.Redis.from_url(fleet.cache.url)) as client:
        yield client


def test_an_answer_before_it_is_there_while_it_is_served_and_when_it_was_ended(
    fleet: Fleet, question: str, explain: Explain, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its text and by its key alike; the record that ended it, and who made that."""
    before = explain(question, "--key", KEY)
    assert (before["standing"], before["fresh_until"], before["made_by"]) == ("absent", None, None)
    answer = fleet.ask_plain(question, KEY)
    there = explain(question, "--key", KEY)
    assert there["key"] == before["key"]
    assert there["standing"] == "l2"
    assert 0 < there["fresh_until"] - time.time() <= 600
    assert there["kept_until"] > there["fresh_until"]
    assert there["made_by"]["persona"] == answer.persona
    assert there["made_by"]["model"] == "echo"
    assert f"routing:{KEY}" in there["computed_from"]
    assert there["ended_by"] is there["computed_by"] is None
    by_key = explain(there["key"])
    assert {name: by_key[name] for name in ("standing", "computed_from", "made_by")} == {
        name: there[name] for name in ("standing", "computed_from", "made_by")
    }
    assert main(["explain", there["key"]]) == 0
    assert "served by: l2" in capsys.readouterr().out
    made = fleet.client.invalidate(f"routing:{KEY}", wait_s=2)
    ended = explain(there["key"])
    assert ended["standing"] == "ended"
    assert ended["fresh_until"] is None
    by = ended["ended_by"]
    assert (by["pattern"], by["means"], by["seq"]) == (f"routing:{KEY}", f"routing:{KEY}", made.seq)
    assert by["at"] == pytest.approx(time.time(), abs=30)
    until(lambda: explain(there["key"])["ended_by"]["by"], "who made it has told so")
    assert question not in json.dumps([before, there, ended])


def test_one_that_is_gone_says_what_was_the_last_to_mean_it(fleet: Fleet, question: str, explain: Explain, server: Any) -> None:
    fleet.ask_plain(question, KEY)
    key = explain(question, "--key", KEY)["key"]
    slug = key.split(":")[1]
    fleet.client.invalidate(f"persona:{slug}:info", wait_s=2)
    server.delete(KEYS.entry(key))
    gone = explain(key)
    assert gone["standing"] == "absent"
    assert gone["ended_by"]["pattern"] == gone["ended_by"]["means"] == f"persona:{slug}:info"


def test_who_computes_it_now_and_where_its_task_is(fleet: Fleet, question: str, explain: Explain) -> None:
    """Running, then ended with its times; and who computes is no entry yet."""
    fleet.endpoint.script(Fault("hang"))
    ticket = fleet.client.submit(question, KEY)
    until(lambda: explain(question, "--key", KEY)["computed_by"], "it is computed")
    now = explain(question, "--key", KEY)["computed_by"]
    assert now["process"] is not None
    (task,) = now["tasks"]
    running = explain(task)
    assert (running["state"], running["worker"]) == ("running", fleet.node.name)
    assert running["begun_at"] == pytest.approx(time.time(), abs=60)
    fleet.endpoint.script(Fault())
    assert ticket.result(40).content
    ended = explain(task)
    assert (ended["state"], ended["source"], ended["model"]) == ("success", "no", "echo")
    assert ended["model_s"] > 0
    assert ended["ended_at"] == pytest.approx(time.time(), abs=60)
    assert question not in json.dumps([running, ended])


@pytest.mark.long
def test_a_task_that_waits_and_one_that_has_failed(fleet: Fleet, question: str, explain: Explain) -> None:
    """Its place, and for how long; why it failed, without what its caller was told."""
    fleet.endpoint.script(Fault("status", status=401))
    failed = send_plain(fleet.app, PersonaRequest.create(question, KEY))
    with pytest.raises(Exception, match="API_KEY"):
        failed.get(timeout=20)
    told = explain(failed.id)
    assert (told["state"], told["queue"]) == ("failed", "persona")
    assert told["why"].startswith("PermanentModelError")
    fleet.endpoint.script(Fault("hang"))
    busy = [send_plain(fleet.app, PersonaRequest.create(f"{question}{number}", KEY)) for number in range(8)]
    waiting = fleet.app.send_task(
        "persona.process",
        args=[PersonaRequest.create(f"{question}!", KEY).to_wire()],
        queue="persona",
        headers={PUBLISHED_HEADER: time.time()},
    )
    told = explain(waiting.id)
    assert (told["state"], told["queue"]) == ("queued", "persona")
    assert 0 <= told["queue_s"] < 60
    assert question not in json.dumps(told)
    fleet.endpoint.script(Fault())
    for each in [*busy, waiting]:
        each.get(timeout=40)


def test_what_is_unknown_or_cannot_be_meant_is_a_sentence(fleet: Fleet, explain: Explain, server: Any) -> None:
    """And nothing was changed by any of it: no key is new."""
    before = {*server.keys("*log*"), *server.keys("*:2:*")}
    for words, kind in (
        (("quote:of:nobody",), "unknown_key"),  # no pattern of another test means it
        (("0123-4567",), "unknown_task"),
        (("How?", "--key", "so-so"), "invalid_request"),
        (("a:b", "--user", "ann"), "usage"),
        (("x" * 300 + ":",), "invalid_pattern"),
    ):
        assert explain(*words)["error"]["kind"] == kind, words
    assert {*server.keys("*log*"), *server.keys("*:2:*")} <= before, "others may have ended meanwhile"
