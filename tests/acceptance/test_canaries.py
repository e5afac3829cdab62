"""A thousand users, each with words of its own that are found again wherever they come to light: in nobody else's answers, and in
nothing that is shown of the fleet."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from html import unescape
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_plus

import pytest
import redis
from envelopes import envelope, whole
from fleet import Fleet, captured_events
from lookalikes import lookalikes
from monitor import FlowerServer
from polling import until
from servers import NO_STACK

from benchmarks.kit.endpoint import Messages
from benchmarks.kit.nodes import own_environment
from pipeline.cache.keys import KeySpace
from pipeline.discovery import STACK_DIR
from pipeline.models import PersonaRequest
from workers.queue.dead_letters.letter import DEAD_LETTERS

KEY: Final = "calm-flowing-planning"
SIGN: Final = "5f1d0c"
"""In every id and in every canary, and nowhere else."""
FAMILIES: Final = 23


class User(NamedTuple):
    """`canary` is in its words, and in no other user's."""

    family: int
    id: str
    canary: str

    @property
    def request(self) -> PersonaRequest:
        words = {part: f"{self.canary}-{part}" for part in ("text", "name", "history")}
        history = [{"role": "user", "content": words["history"]}]
        context = {"user_id": self.id, "user_name": words["name"], "history": history}
        return PersonaRequest.create(f"I am {words['text']}. How do I begin?", KEY, context)

    @property
    def shared(self) -> PersonaRequest:
        """What all of a family ask alike, so that the id alone tells them apart."""
        return PersonaRequest.create(f"How do we go on, {self.family}?", KEY, {"user_id": self.id})


def users() -> list[User]:
    ids = [(family, each) for family in range(FAMILIES) for each in lookalikes(f"{SIGN}{family:02x}")]
    return [User(family, each, f"{SIGN}-{number:04d}-end") for number, (family, each) in enumerate(ids)]


def told_all(messages: Messages) -> str:
    """The whole prompt, so that an answer shows what it was made from."""
    return json.dumps([message["content"] for message in messages], ensure_ascii=False)


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    environ = {"PERSONA_HIT_EVENTS_PER_S": "10000", "PERSONA_UNKNOWN_TASK_S": "0", "PERSONA_L1_MAX_ENTRIES": "10000"}
    with Fleet(nodes=2, environ=environ, answer=told_all) as fleet:
        yield fleet


def assert_none(shown: str, where: str) -> None:
    """Also where it is written in another way: as HTML, as a URL, as JSON."""
    for text in (shown, unescape(shown), unquote_plus(shown)):
        at = text.casefold().find(SIGN)
        assert at < 0, f"{where} shows it: ...{text[max(0, at - 300) : at + 100]}"


def names(server: Any) -> list[str]:
    """Of all keys, in every database."""
    found = []
    for database in range(4):
        with closing(redis.Redis.from_url(server.url_of(database))) as client:
            found += [name.decode(errors="replace") for name in client.scan_iter(count=1000)]
            found += [each.decode(errors="replace") for each in client.pubsub_channels()]
    return found


def beside_the_answers(fleet: Fleet) -> str:
    """All that the cache's server holds but entries and the log: figures, hot set, leases."""
    shown, log = [], KeySpace("persona").records.rpartition(b":")[0]
    with closing(redis.Redis.from_url(fleet.cache.url)) as client:
        for name in client.scan_iter(count=1000):
            if b":e:" in name or name.startswith(log):
                continue
            shown.append(repr(client.dump(name)))
            read = {b"hash": client.hgetall, b"set": client.smembers, b"string": client.get}.get(client.type(name))
            if read is not None:
                shown.append(str(read(name)))
            elif client.type(name) == b"zset":
                shown.append(str(client.zrange(name, 0, -1)))
    return "\n".join(shown)


def persona(fleet: Fleet, *words: str) -> str:
    environ = {**own_environment(), STACK_DIR: NO_STACK, **fleet.environ}
    done = subprocess.run(
        [sys.executable, "-m", "workers.cli", *words], env=environ, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout + done.stderr


@pytest.mark.long
def test_nobody_is_told_what_another_has_written(fleet: Fleet) -> None:
    everyone = users()
    assert len(everyone) >= 1000
    assert len({user.id for user in everyone}) == len(everyone)
    with (
        FlowerServer(broker_url=fleet.broker.url, cache_url=fleet.cache.url) as flower,
        captured_events(fleet.app) as events,
    ):
        until(lambda: len(flower.ask("/api/workers?refresh=1").json()) == 2, "Flower knows the nodes")
        for family in range(FAMILIES):
            theirs = [user for user in everyone if user.family == family]
            for user, answer in zip(theirs, fleet.plain(*(user.request for user in theirs)), strict=True):
                assert answer.cached == "no"
                assert f"{user.canary}-text" in answer.content
                assert f"{user.canary}-name" in answer.content
                assert answer.content.count(SIGN) == answer.content.count(user.canary), f"{user} has another's words"
            computed = fleet.plain(*(user.shared for user in theirs))
            assert [answer.cached for answer in computed] == ["no"] * len(theirs), "an answer for one id is one for no other"
        ends_them_alone(fleet, everyone)
        refused(fleet, everyone)
        until(lambda: sum(event["type"] == "task-succeeded" for event in events) >= 2 * len(everyone), "all is told")
        look_everywhere(fleet, flower, everyone)
    assert_none(json.dumps(events, ensure_ascii=False, default=repr), "an event")
    assert_none(flower.log(), "Flower's log")


def ends_them_alone(fleet: Fleet, everyone: list[User]) -> None:
    """Of the last family, whose answers live still."""
    theirs = [user for user in everyone if user.family == FAMILIES - 1]
    again = [fleet.client.pipeline.seek(user.shared).response for user in theirs]
    for number, user in enumerate(theirs):
        fleet.client.invalidate_user(user.id, wait_s=1.0)
        gone = fleet.client.pipeline.seek(user.shared).response is None
        others = [fleet.client.pipeline.seek(other.shared).response for other in theirs[number + 1 :]]
        assert gone, f"{user.id!r} was forgotten, and is answered"
        assert [other is None for other in others] == [before is None for before in again[number + 1 :]], (
            f"{user.id!r} was forgotten, and others with it"
        )
    assert sum(before is not None for before in again) > len(theirs) // 2, "there was something to forget"


def refused(fleet: Fleet, everyone: list[User]) -> None:
    """Messages that no worker takes: dead letters, with canaries in every part."""
    for user in everyone[::50]:
        wire = user.request.to_wire()
        fleet.queue.lpush("persona", envelope(whole(wire), task="persona.tomorrow"))
        fleet.queue.lpush("persona", envelope(whole(*[wire] * 300)))
        fleet.queue.lpush("persona", json.dumps(wire)[:-1])
        with pytest.raises(Exception, match="expected an object"):
            fleet.app.send_task("persona.process", args=[[wire]], queue="persona").get(timeout=20)
    until(lambda: fleet.queue.llen(DEAD_LETTERS) >= 3 * len(everyone[::50]), "they are refused")


def look_everywhere(fleet: Fleet, flower: FlowerServer, everyone: list[User]) -> None:
    assert any(SIGN in letter for letter in fleet.queue.lrange(DEAD_LETTERS, 0, -1)), "there is something to show"
    for words in (
        ["dead-letters"],
        ["dead-letters", "list", "--json"],
        ["dead-letters", "count"],
        ["stats"],
        ["stats", "--json"],
    ):
        assert_none(persona(fleet, *words), "persona " + " ".join(words))
    for server in (fleet.broker, fleet.cache):
        assert_none("\n".join(names(server)), "the name of a key or of a channel")
    assert_none(beside_the_answers(fleet), "what the cache's server holds beside answers and log")
    pages = ["/", "/workers", "/tasks", "/broker", "/fleet", "/fleet/figures", "/metrics", "/api/workers", "/api/task/types"]
    pages += ["/fleet/asked", "/fleet/letters"]
    pages += ["/api/workers?refresh=1", "/api/tasks?limit=10000", "/api/queues/length"]
    pages += [f"/worker/{node.name}" for node in fleet.nodes]
    tasks = list(flower.ask("/api/tasks?limit=20").json())
    assert tasks, "Flower knows tasks"
    for task in tasks:
        pages += [f"/task/{task}", f"/api/task/info/{task}", f"/api/task/result/{task}"]
    entries = [name.partition(":e:")[2] for name in names(fleet.cache) if ":e:persona:" in name]
    pages += [f"/fleet/explain?of={each}" for each in [*tasks[:2], *entries[:20]]]
    table = "draw=1&start=0&length=5000&search[value]=&order[0][column]=0&order[0][dir]=asc&columns[0][data]=name"
    for path in [*pages, f"/tasks/datatable?{table}"]:
        answer = flower.ask(path)
        assert_none(answer.body.decode(errors="replace"), f"Flower's {path.partition('?')[0]} ({answer.status})")
    for node in fleet.nodes:
        inspect = fleet.app.control.inspect([node.name])
        for name in ("active", "reserved", "scheduled", "stats", "conf", "report"):
            assert_none(str(getattr(inspect, name)()), f"inspect {name}")
        assert_none(node.log(), "a node's log")
    for answer in (base64.b64encode(user.canary.encode()).decode() for user in everyone[:1]):
        assert answer not in fleet.logs(), "a log shows it encoded"
