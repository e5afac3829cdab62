"""The main job, end to end: a request goes through a real queue, a real worker and both tiers, and comes back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import redis
from fleet import Fleet, Pool
from polling import until

from benchmarks.kit.endpoint import Fault
from pipeline.models import PersonaRequest, PersonaResponse

KEY = "frustrated-burst-seek_advice"

FOREIGN_PROGRAM = """
import json, sys
import celery

app = celery.Celery(broker=sys.argv[1], backend=sys.argv[2])
answer = app.send_task("persona.process", args=[json.loads(sys.argv[3])]).get(timeout=20)
ours = sorted(name for name in sys.modules if name.partition(".")[0] in ("pipeline", "workers", "celeryconfig"))
print(json.dumps({"answer": answer, "queue": app.conf.task_default_queue, "ours": ours}))
"""


def test_the_same_request_is_computed_once_and_then_served_50_times_faster(fleet: Fleet, question: str) -> None:
    """The purpose of the cache. The figure is a ratio of the worker's own times, so that a slow machine does not matter."""
    fleet.endpoint.script(Fault(delay_ms=500))
    calls = fleet.endpoint.calls
    first = fleet.ask_plain(question, KEY)
    again = [fleet.ask_plain(question, KEY) for _ in range(3)]
    assert (first.cached, first.persona, first.degraded) == ("no", "Lua", False)
    assert question in first.content
    for answer in again:
        assert answer.cached in ("l1", "l2")
        assert (answer.persona, answer.content, answer.scores) == (first.persona, first.content, first.scores)
    assert fleet.endpoint.calls == calls + 1
    assert first.execution_time_ms >= 50 * min(answer.execution_time_ms for answer in again)


def test_without_use_cache_every_request_is_computed(fleet: Fleet, question: str) -> None:
    """A caller who wants a fresh answer gets one, and leaves none behind."""
    calls = fleet.endpoint.calls
    answers = [fleet.ask_plain(question, KEY, use_cache=False) for _ in range(2)]
    answers.append(fleet.ask_plain(question, KEY))
    answers.append(fleet.ask_plain(question, KEY, use_cache=False))
    assert [answer.cached for answer in answers] == ["no"] * 4
    assert fleet.endpoint.calls == calls + 4


def test_a_restarted_worker_finds_the_answer_in_the_shared_tier(question: str) -> None:
    """L2 outlives the worker: a deployment does not cost the model anything."""
    with Fleet() as fleet:
        first = fleet.ask_plain(question, KEY)
        fleet.node.restart()
        second = fleet.ask_plain(question, KEY)
        assert (first.cached, second.cached) == ("no", "l2")
        assert second.content == first.content
        assert fleet.endpoint.calls == 1


@pytest.mark.parametrize("fault", ["kill", pytest.param("freeze", marks=pytest.mark.long)])
def test_without_the_caches_server_answers_go_on_and_recover_when_it_returns(fault: str, question: str) -> None:
    """Promise 7: nothing raises because Redis is away, the response says so, and no restart is needed."""
    with Fleet(concurrency=1) as fleet:
        assert fleet.ask_plain(question, KEY).cached == "no"
        children = fleet.node.pids
        getattr(fleet.cache, fault)()
        # The lease of a second may still hold; once it has run out, the answer cannot be confirmed any more.
        until(lambda: fleet.ask_plain(question, KEY).degraded, "L1 is served unconfirmed")
        known, unknown = fleet.ask_plain(question, KEY), fleet.ask_plain(question + "!", KEY)
        assert (known.cached, known.degraded) == ("l1", True)
        assert (unknown.cached, unknown.degraded) == ("no", True)
        fleet.cache.thaw() if fault == "freeze" else fleet.cache.start()
        fresh = (f"{question} {number}" for number in count())
        until(lambda: not fleet.ask_plain(next(fresh), KEY).degraded, "the same child has recovered")
        later = [fleet.ask_plain(question + "?", KEY) for _ in range(2)]
        assert [(answer.cached, answer.degraded) for answer in later] == [("no", False), ("l2", False)]  # its node, by now
        with fleet.cache.client() as cache:
            assert any(b"persona:lua:" in name for name in cache.scan_iter()), "the shared tier is filled again"
        assert fleet.node.pids == children


def test_a_program_that_knows_only_celery_gets_its_answer(fleet: Fleet, question: str, tmp_path: Path) -> None:
    """No package of ours, no queue, no routing: any Celery application can send this, from the default queue."""
    request = json.dumps({"user_input": question, "resonance_key": KEY})
    arguments = [fleet.broker.url, fleet.broker.url_of(1), request]
    ran = subprocess.run(
        [sys.executable, "-c", FOREIGN_PROGRAM, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert (told["queue"], told["ours"]) == ("celery", [])
    assert set(told["answer"]) == set(PersonaResponse.__struct_fields__)
    assert told["answer"]["persona"] == "Lua"
    assert question in told["answer"]["content"]


def test_two_users_never_share_an_answer(fleet: Fleet, question: str) -> None:
    """Promise 8, through the fleet: equal questions, even under one name, are answered for each user apart, in a worker and in
    the client itself."""
    calls = fleet.endpoint.calls
    contexts = [{"user_id": "u-1", "user_name": "Mina"}, {"user_id": "u-2", "user_name": "Mina"}, {"user_name": "Joon"}, None]
    first = [fleet.client.ask(question, KEY, context) for context in contexts]
    assert [answer.cached for answer in first] == ["no"] * 4
    for ask in (fleet.ask_plain, fleet.client.ask, fleet.client.ask):
        again = [ask(question, KEY, context) for context in contexts]
        assert all(answer.cached in ("l1", "l2") for answer in again)
        assert [answer.content for answer in again] == [answer.content for answer in first]
    # A user without a name is not told another's, and the endpoint was asked for each of them.
    assert first[3].content not in {answer.content for answer in first[:3]}
    assert fleet.endpoint.calls == calls + 4


@pytest.fixture(
    scope="module",
    params=["prefork", "threads", pytest.param("solo", marks=pytest.mark.long), pytest.param("gevent", marks=pytest.mark.long)],
)
def pool_fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    pool: Pool = request.param
    concurrency = {"prefork": 2, "threads": 4, "solo": 1, "gevent": 50}[pool]
    with Fleet(pool=pool, concurrency=concurrency, delay_ms=5) as fleet:
        yield fleet


def test_every_pool_gives_each_of_many_concurrent_requests_its_own_answer(pool_fleet: Fleet) -> None:
    """Shared clients, connections and caches must not mix up answers, whatever the pool is made of."""
    requests = [PersonaRequest.create(f"Question {number // 2}, please", KEY) for number in range(80)]
    for _ in range(2):
        answers = pool_fleet.plain(*requests)
        for number, answer in enumerate(answers):
            assert answer.content.endswith(f": Question {number // 2}, please")
    assert all(answer.cached != "no" for answer in answers)


def test_every_pool_refuses_and_fails_alike(pool_fleet: Fleet) -> None:
    """An error is the same whichever pool met it, and the worker goes on after it."""
    bad = pool_fleet.app.send_task("persona.process", args=[{"user_input": "x", "resonance_key": "calm"}])
    with pytest.raises(Exception, match="resonance_key: 'calm' has 1 part") as refused:
        bad.get(timeout=20)
    assert type(refused.value).__name__ == "InvalidRequestError"
    assert pool_fleet.ask_plain("Question 1, please", KEY).persona == "Lua"


def test_each_pool_child_has_connections_of_its_own() -> None:
    """A socket that two processes read from gives one the other's replies. A fork copies the parent's: none may be used."""
    with Fleet(concurrency=3) as fleet:
        fleet.plain(*(PersonaRequest.create(f"Question {number}", KEY) for number in range(30)))
        for server in (fleet.cache, fleet.broker):
            used = used_sockets(server.client(), server.port)
            for pid in fleet.node.pids:
                others = [other for other in (fleet.node.pid, *fleet.node.pids) if other != pid]
                mine = sockets_of(pid) & used
                assert mine - set().union(*map(sockets_of, others)), f"child {pid} has no connection of its own"


def used_sockets(client: redis.Redis, port: int) -> set[str]:
    """The inodes of the connections to the server that have carried a command, as the clients' side holds them."""
    with client:
        ports = {int(entry["addr"].rpartition(":")[2]) for entry in client.client_list() if entry["cmd"] != "NULL"}
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote = (int(address.rpartition(":")[2], 16) for address in fields[1:3])
        if remote == port and local in ports:
            inodes.add(fields[9])
    return inodes


def sockets_of(pid: int) -> set[str]:
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue  # closed since it was listed
        if target.startswith("socket:["):
            found.add(target[len("socket:[") : -1])
    return found
