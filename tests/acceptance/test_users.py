"""Every part under a user of its own, with the rights of deploy/valkey/*.acl: nothing is refused, no right is unused, and what a
part does not need it cannot do."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
import redis
from celery.exceptions import TimeoutError as CeleryTimeoutError
from envelopes import envelope, whole
from fleet import ROOT, WorkerNode, bare_app, persona_environ, send_plain
from kombu import pools
from kombu.exceptions import OperationalError
from monitor import FlowerServer
from polling import until
from servers import NO_STACK, ValkeyServer

from benchmarks.kit.nodes import own_environment
from pipeline.discovery import STACK_DIR
from pipeline.models import PersonaRequest
from pipeline.settings import load_settings
from workers.client import PersonaClient
from workers.client.preload import FleetPreload
from workers.doctor.judging import judge
from workers.doctor.looks.beat import PREFIX, SCHEDULE
from workers.doctor.observing import observe
from workers.doctor.seen import Seen
from workers.node.fetch.claims import NODES
from workers.queue.aside.messages import ASIDE
from workers.queue.dead_letters.box import DeadLetters
from workers.queue.dead_letters.letter import DEAD_LETTERS, written
from workers.queue.errors import WorkerError
from workers.queue.factory import make_app
from workers.queue.failures.box import Failures
from workers.queue.failures.box import keep as keep_failure
from workers.queue.reach import bound_waits
from workers.stack.processes import ChildProcess

KEY: Final = "calm-flowing-planning"
ROLES: Final = ("caller", "worker", "beat", "flower", "operator")
PASSWORD: Final = secrets.token_hex(12)
"""No other program of this host has it on its command line, where the doctor looks for it."""
WAITING: Final = 12
"""More than a node claims at once."""
_SEEN: Final = re.compile(rb'\[\d+ (\S+)\] "(\w+)"')
"""A line of MONITOR: who has what run."""


def users_of(name: str) -> dict[str, list[str]]:
    """The rules of a file's users, a selector in its brackets being one rule."""
    users = {}
    for line in (ROOT / "deploy" / "valkey" / name).read_text().splitlines():
        if line.startswith("user "):
            user, *rules = re.findall(r"\([^)]*\)|\S+", line.removeprefix("user "))
            users[user] = [f">{PASSWORD}" if rule.startswith(">CHANGE_ME_") else rule for rule in rules]
    return users


class Guarded:
    """A server with the users of a file, and what each of them has it run."""

    def __init__(self, server: ValkeyServer, file: str) -> None:
        self.server, self.file = server, file
        self.admin = redis.Redis.from_url(server.url, decode_responses=True)
        self.users = users_of(file)
        # Not `default`: the test itself looks by it.
        for user in set(self.users) - {"default"}:
            self.admin.execute_command("ACL", "SETUSER", user, *self.users[user])
        self.used: defaultdict[str, set[str]] = defaultdict(set)
        self._names: dict[str, str] = {}
        threading.Thread(target=self._watch, daemon=True).start()

    def url(self, user: str, database: int = 0) -> str:
        return self.server.url_of(database).replace("redis://", f"redis://{user}:{PASSWORD}@", 1)

    def refused(self) -> list[str]:
        """What was refused, as the server has noted it."""
        return [
            f"{each['username']}: {each['object']} ({each['reason']} in {each['context']})"
            for each in self.admin.acl_log(128)
            if each["username"] != "default"
        ]

    def granted(self, user: str) -> set[str]:
        rules = " ".join(self.users[user]).replace("(", " ").replace(")", " ").split()
        return {rule[1:].partition("|")[0].upper() for rule in rules if rule.startswith("+")}

    def allows(self, user: str, *words: str) -> bool:
        return bool(self.admin.execute_command("ACL", "DRYRUN", user, *words) == "OK")

    def _watch(self) -> None:
        running = ""  # a script's own commands follow it, and run by its caller's rights
        with closing(redis.Redis.from_url(self.server.url, socket_timeout=None)) as client:
            connection = client.connection_pool.get_connection()
            connection.send_command("MONITOR")
            while True:
                try:
                    line = connection.read_response()
                except redis.RedisError:  # the server has ended
                    return
                if (seen := _SEEN.search(line)) is not None:
                    address, word = seen[1].decode(), seen[2].decode().upper()
                    if word == "CLIENT":  # what redis-py begins a connection with: the port may have been another's before
                        self._names.pop(address, None)
                    running = running if address == "lua" else self._user(address)
                    self.used[running].add(word)

    def _user(self, address: str) -> str:
        if address not in self._names:
            # Not the others' names, too: a connection that is not logged in yet is still called `default`.
            users = {client["addr"]: client["user"] for client in self.admin.client_list()}
            self._names[address] = users.get(address, "?")  # of a program that has ended before one could look
        return self._names[address]


@contextmanager
def guarded() -> Iterator[tuple[Guarded, Guarded]]:
    with ValkeyServer(keep_on_disk=True) as broker, ValkeyServer() as cache:
        yield Guarded(broker, "broker.acl"), Guarded(cache, "cache.acl")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Guarded, Guarded]]:
    """After all that the product does was done once."""
    with guarded() as (broker, cache):
        environ = {
            role: persona_environ(
                broker_url=broker.url(role),
                result_url=broker.url(role, 1),
                cache_url=cache.url(role if role in ("flower", "operator") else "app"),
            )
            | {"PERSONA_UNKNOWN_TASK_S": "3"}
            for role in ROLES
        }
        login = {"FLOWER_BASIC_AUTH": "operator:a-login"}
        log = tmp_path_factory.mktemp("users") / "beat"
        with (
            WorkerNode(broker_url=broker.url("worker"), environ=environ["worker"]) as node,
            beat(environ["beat"], log),
            FlowerServer(
                broker_url=broker.url("flower"), cache_url=cache.url("flower"), environ=environ["flower"] | login
            ) as flower,
        ):
            flower.login = login["FLOWER_BASIC_AUTH"]
            ask(environ["caller"], broker)
            operate(environ["operator"], broker)
            examine(environ["operator"], broker, node)
            read = ("/fleet/figures", "/fleet/asked", "/fleet/explain?of=routing:nobody")
            for path in (*read, "/metrics", "/api/workers?refresh=1", f"/worker/{node.name}", "/broker"):
                assert flower.ask(path).status == 200, path
            until(lambda: broker.admin.hget("persona:redbeat:cache.preload", "meta"), "beat has queued a task")
            until(lambda: not broker.admin.llen("maintenance"), "it is taken")
            assert node.stop()
            assert "Traceback" not in flower.log() + log.read_text() + node.log()
        yield broker, cache


@contextmanager
def beat(environ: Mapping[str, str], log: Path) -> Iterator[None]:
    environ = {**own_environment(), STACK_DIR: NO_STACK, **environ, "PERSONA_PRELOAD_INTERVAL_S": "5"}
    command = [sys.executable, "-m", "celery", "-A", "workers", "beat", f"--pidfile={log}.pid"]
    process = ChildProcess(command, log=log, environ=environ, directory=ROOT)
    try:
        yield
        assert process.stop(10)
    finally:
        process.kill()


def ask(environ: Mapping[str, str], broker: Guarded) -> None:
    """Hits, misses, tickets, a task of a plain program, one that no worker knows, and invalidations."""
    with PersonaClient(load_settings(environ)) as client:
        for _ in range(2):
            assert client.ask("How do I begin?", KEY).persona
        tickets = [client.submit(f"How do I go on, {number}?", KEY) for number in range(4)]
        assert all(ticket.result(20).persona for ticket in tickets)
        done = client.invalidate("persona:*", wait_s=5)
        assert done.durable
        assert done.applied
        client.invalidate_user("ann")
    with bare_app(broker.url("caller"), broker.url("caller", 1)) as app:
        assert send_plain(app, PersonaRequest.create("And you?", KEY), queue="celery").get(timeout=20)
        # What one asks for later waits aside for more than a moment.
        later = app.send_task(
            "persona.process", args=[PersonaRequest.create("Later?", KEY).to_wire()], queue="persona", countdown=7
        )
        app.send_task("persona.tomorrow", queue="persona")
        assert later.get(timeout=30)


def operate(environ: Mapping[str, str], broker: Guarded) -> None:
    environ = {**own_environment(), STACK_DIR: NO_STACK, **environ}
    with closing(redis.Redis.from_url(broker.url("worker"))) as worker:
        again = envelope(whole(PersonaRequest.create("And now?", KEY).to_wire()))
        keep_failure(worker, "failed", written("persona", again, "KeyError", whole=True, task_id="failed"))
    until(lambda: broker.admin.llen(DEAD_LETTERS) or broker.refused(), "there is a dead letter")
    assert broker.refused() == []
    for words in (
        ["stats"],
        ["preload"],
        ["invalidate", "persona:*"],
        ["dead-letters"],
        ["dead-letters", "count"],
        ["dead-letters", "requeue", "--all", "--yes"],
        ["dead-letters", "drop", "--all", "--yes"],
        ["explain", "How do I begin?", "--key", KEY],
        ["failures"],
        ["failures", "count"],
        ["failures", "retry", "--all", "--yes"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "workers.cli", *words, "--json"],
            env=environ,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)


OF_THESE_SERVERS: Final = {"cache: unbounded", "results: endless", "queues: waits-long"}
"""What the doctor is right to say of them: `examine` has queued and kept something."""


REFUSED_TO_THE_DOCTOR: Final = {"operator: celery-task-meta-none", "operator: lindex", "operator: subscribe"}
"""Results, which an operator does not wait for; a look at a message, of which the nodes tell how long it waits."""


def examine(environ: Mapping[str, str], broker: Guarded, node: WorkerNode) -> None:
    """The doctor sees all of it under an operator's user, also how long a message waits that this user may not read."""
    old = {"persona_published_at": time.time() - 900}
    children = node.pids
    for pid in children:
        node.freeze(pid)
    try:
        for number in range(WAITING):
            request = PersonaRequest.create(f"For how long, {number}?", KEY)
            broker.admin.lpush("persona", envelope(whole(request.to_wire()), **old))
        broker.admin.zadd(ASIDE, {"persona\n{}": 1e15})
        broker.admin.zadd(NODES, {"gone@host/1/abcdef01": 1000 * (time.time() - 60)})
        with closing(redis.Redis.from_url(broker.server.url_of(1))) as results:
            results.set("celery-task-meta-endless", "1")
        looks: list[Seen] = []

        def sees_the_wait() -> bool:
            looks.append(observe(load_settings(environ), 20.0))
            return any(one.name == "waits-long" for one in judge(looks[-1]))

        # For a moment the next message may be the one that `operate` has queued anew: no worker knows it, and it goes back.
        until(sees_the_wait, "the doctor sees how long a message waits", bound_s=60)
    finally:
        for pid in children:
            node.thaw(pid)
    broker.admin.zrem(ASIDE, "persona\n{}")
    assert {line.partition(" (")[0] for line in broker.refused()} == REFUSED_TO_THE_DOCTOR
    broker.admin.execute_command("ACL", "LOG", "RESET")
    seen = looks[-1]
    assert seen.unseen == ("flower: its address is not known; give it by --flower",)
    again = {"queues: dead-letters"}  # `operate` has queued one anew, which no worker knows
    assert {f"{one.part}: {one.name}" for one in judge(seen)} - again == OF_THESE_SERVERS, judge(seen)


def test_nothing_that_a_part_does_is_refused(servers: tuple[Guarded, Guarded]) -> None:
    for server in servers:
        assert server.refused() == []


RARELY: Final[dict[tuple[str, str], set[str]]] = {
    # PERSONA_FETCH=pop, and what an older release has left; a node that has died; a task that asks another one.
    ("broker.acl", "worker"): {"HSET", "HGET", "HDEL", "SET", "ZRANGE"} | {"ZSCORE", "LINDEX"} | {"SUBSCRIBE", "UNSUBSCRIBE"},
    ("broker.acl", "beat"): {"SREM", "ZREM", "LLEN"},  # a release that schedules less than the one before; a queue that is new
    ("broker.acl", "flower"): {"ZREM"},  # another Flower that was killed
    ("broker.acl", "operator"): {"UNWATCH", "ZREM"} | {"CONFIG"},  # two operators at once; MONITOR shows no CONFIG
    # Another database than 0; a sweep; the hot set, now and then, and a full one; a server that was away; a caller that gives up;
    # a preload that ends early; two processes that miss one key at the same moment.
    ("cache.acl", "app"): {"SELECT", "SCAN", "ZUNIONSTORE", "ZREMRANGEBYRANK", "PING", "PTTL", "HSETNX"}
    | {"GETRANGE", "STRLEN", "XADD", "XREAD"},
    # A server that has begun anew, or was away; a node that fell silent.
    ("cache.acl", "flower"): {"SELECT", "EVAL", "PING"} | {"ZREM", "LPUSH", "LTRIM"},
}
"""What only a fault, another release or another setting needs."""


def test_no_right_is_unused(servers: tuple[Guarded, Guarded]) -> None:
    """Without any one of them something above would have failed."""
    _, cache = servers
    cache.used["app"] |= cache.used["operator"]  # the same rights, but for two
    unused = {
        (server.file, user): server.granted(user) - server.used[user] - server.used["?"] - RARELY.get((server.file, user), set())
        for server in servers
        for user in set(server.users) - {"default", "health"} - ({"operator"} if server is cache else set())
    }
    assert not any(unused.values()), unused


def test_an_operator_at_the_cache_may_do_what_callers_may_and_see_how_it_is_set() -> None:
    """Two long lines of one file, which are to stay alike."""
    app, operator = (users_of("cache.acl")[user] for user in ("app", "operator"))
    assert [rule for rule in operator if rule not in ("+client|setinfo", "+config|get")] == app


def test_every_command_that_the_cache_has_is_granted() -> None:
    """Also those that only a fault needs, which nothing above asks for: by the sources, scripts included."""
    source = (ROOT / "pipeline" / "cache" / "server" / "commands.py").read_text()
    words = {
        word
        for name, body in re.findall(r"    def (\w+)\(self.*?\n(.*?)(?=\n    def |\nclass |\Z)", source, re.DOTALL)
        for word in re.findall(r'self\._run\([^")]*"([A-Z]+)"', body)
        if any(f".{name}(" in path.read_text() for path in (ROOT / "pipeline").rglob("*.py"))
    }
    for path in (ROOT / "pipeline").rglob("*.lua"):
        words |= {word.upper() for word in re.findall(r"redis\.p?call\(\s*['\"](\w+)", path.read_text())}
    assert len(words) > 30
    granted = {rule[1:].partition("|")[0].upper() for rule in users_of("cache.acl")["app"] if rule.startswith("+")}
    assert words - granted == set()


@pytest.mark.parametrize(
    ("user", "words"),
    [
        *[
            (user, words)
            for user in ("caller", "flower", "operator", "beat")
            for words in (
                ("LRANGE", "persona", "0", "-1"),
                ("LINDEX", "persona", "-1"),
                ("RPOP", "persona"),
                ("BRPOP", "persona", "1"),
                ("BLMOVE", "persona", "elsewhere", "RIGHT", "LEFT", "1"),
                ("DEL", "persona"),
                ("LREM", "persona", "1", "x"),
            )
        ],
        *[
            (user, words)
            for user in ROLES
            for words in (
                ("FLUSHALL",),
                ("CONFIG", "SET", "save", ""),
                ("ACL", "LIST"),
                ("KEYS", "*"),
                ("MONITOR",),
                ("DEBUG", "SLEEP", "1"),
            )
        ],
        *[(user, words) for user in ROLES if user != "operator" for words in (("CONFIG", "GET", "*"), ("SCAN", "0"))],
        ("operator", ("ZRANGE", "persona.fetch.aside", "0", "0")),
        ("operator", ("LRANGE", "persona.fetch.claims:a/1/b:persona", "0", "-1")),
        ("operator", ("HGET", "celery-task-meta-x", "x")),
        ("caller", ("GET", "persona.dead.count")),
        ("caller", ("SET", "celery-task-meta-x", "forged")),
        ("caller", ("EVAL", "return 1", "0")),
        ("caller", ("PUBLISH", "celery-task-meta-x", "forged")),
        ("flower", ("LPUSH", "persona", "forged")),
        ("flower", ("GET", "celery-task-meta-x")),
        ("beat", ("LPUSH", "persona", "forged")),
        ("operator", ("GET", "celery-task-meta-x")),
    ],
    ids=str,
)
def test_what_a_part_does_not_need_it_cannot_do(user: str, words: tuple[str, ...], servers: tuple[Guarded, Guarded]) -> None:
    broker, _ = servers
    assert not broker.allows(user, *words)
    assert broker.allows(user, "PING")


def test_a_right_that_is_missing_is_told_by_its_name(servers: tuple[Guarded, Guarded]) -> None:
    """Not that the broker may not be running, which it is."""
    broker, cache = servers
    environ = persona_environ(broker_url=broker.url("operator"), result_url=broker.url("operator", 1), cache_url=cache.url("app"))
    environ = {**own_environment(), STACK_DIR: NO_STACK, **environ}
    command = [sys.executable, "-m", "workers.cli", "dead-letters", "--json"]
    broker.admin.execute_command("ACL", "SETUSER", "operator", "clearselectors")
    try:
        done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=False)
    finally:
        broker.admin.execute_command("ACL", "SETUSER", "operator", *[rule for rule in broker.users["operator"] if rule[0] == "("])
        broker.admin.execute_command("ACL", "LOG", "RESET")
    error = json.loads(done.stdout)["error"]
    assert (error["kind"], error["field"]) == ("queue_refused", "broker")
    assert "lrange" in error["message"]
    assert "running" not in error["message"]


def test_nobody_comes_in_without_a_name(servers: tuple[Guarded, Guarded]) -> None:
    for server in servers:
        assert server.users["default"] == ["off"]


def test_the_health_check_has_no_password_and_can_do_nothing_else(servers: tuple[Guarded, Guarded]) -> None:
    for server in servers:
        assert server.allows("health", "PING")
        for words in (("GET", "persona"), ("INFO",), ("LLEN", "persona"), ("PUBLISH", "x", "y"), ("CLIENT", "LIST")):
            assert not server.allows("health", *words), words


@pytest.mark.long
@pytest.mark.timeout(600)
def test_each_right_that_is_taken_from_an_operator_is_missed() -> None:
    """One at a time: a command fails, or the doctor says what it could not see, or finds its own rights too few."""
    with guarded() as (broker, cache):
        environ = {
            role: persona_environ(
                broker_url=broker.url(role),
                result_url=broker.url(role, 1),
                cache_url=cache.url("operator" if role == "operator" else "app"),
            )
            for role in ("operator", "worker")
        }
        unnoticed = []
        with WorkerNode(broker_url=broker.url("worker"), environ=environ["worker"]):
            assert noticed(environ["operator"], broker) == set()
            for rule, right in rights_of(broker, "operator"):
                without(broker, "operator", rule, right)
                if not noticed(environ["operator"], broker):
                    unnoticed.append(right if "pidbox" not in rule else f"{right} of remote control")
        assert {*unnoticed} <= SELDOM_MISSED, "\n".join(unnoticed)


SELDOM_MISSED: Final = {
    "+unwatch",  # two operators at once
    # Kombu's: a server that has begun anew; a lock that is given back; replies that a program left behind that was killed.
    *(f"+{word} of remote control" for word in ("script|load", "get", "zrem", "zrange")),
}


def rights_of(server: Guarded, user: str) -> list[tuple[str, str]]:
    """Each with the rule that gives it."""
    return [(rule, right) for rule in server.users[user] for right in re.findall(r"\+[\w|]+", rule)]


def without(server: Guarded, user: str, rule: str, right: str) -> None:
    """Give that user anew all rights but that one of that rule, as a new program would find them."""
    pools.reset()  # an old one's connections have their queues declared
    server.admin.execute_command("ACL", "LOG", "RESET")
    server.admin.execute_command("ACL", "DELUSER", user)
    less = re.sub(rf"(?<=[ (]){re.escape(right)}(?=[ )])", "", f" {rule} ").strip()
    rules = [less if each == rule else each for each in server.users[user]]
    server.admin.execute_command("ACL", "SETUSER", user, *[each for each in rules if each])


def noticed(environ: Mapping[str, str], broker: Guarded) -> set[str]:
    """What an operator's work is refused that is not refused to one with all rights."""
    settings = load_settings(environ)
    for number in range(2):
        letter = written("persona", envelope(b"[[], {}, {}]"), "KeyError", whole=True, task_id=f"one-{number}")
        broker.admin.lpush(DEAD_LETTERS, letter)
        with closing(redis.Redis.from_url(broker.url("worker"))) as worker:
            keep_failure(worker, f"failed-{number}", letter)
    with suppress(WorkerError, OperationalError, redis.RedisError), closing(make_app(settings)) as app:
        bound_waits(app)
        for box in (Failures(app), DeadLetters(app)):
            box.count(), box.ever()
            first, *rest = box.all()
            assert box.retry([first])["queued"] == 1
            box.drop(rest)
        box = Failures(app)
        assert box.find("nothing") is None
    with suppress(WorkerError, OperationalError, redis.RedisError), closing(FleetPreload(settings)) as preload:
        preload.ask(None, 1.0)
    with suppress(WorkerError, OperationalError, redis.RedisError), PersonaClient(settings) as client:
        client.invalidate("persona:*", wait_s=0)
    broker.admin.zadd(NODES, {"gone@host/1/abcdef01": 1000 * (time.time() - 60)})
    broker.admin.zadd(SCHEDULE, {f"{PREFIX}cache.maintain": time.time() + 60})
    with closing(redis.Redis.from_url(broker.server.url_of(1))) as results:
        results.set("celery-task-meta-some", "1", ex=60)
    seen = observe(settings, 10.0)
    return {line.partition(" (")[0] for line in broker.refused()} - REFUSED_TO_THE_DOCTOR | {*seen.unseen[:-1]}


@pytest.mark.long
def test_each_right_that_is_taken_from_a_caller_is_missed() -> None:
    """One at a time, on a fleet that runs: the server refuses what needs it, and the caller fails, or is told in its log."""
    with guarded() as (broker, cache):
        environ = {
            role: persona_environ(broker_url=broker.url(role), result_url=broker.url(role, 1), cache_url=cache.url("app"))
            for role in ("caller", "worker")
        }
        unnoticed = []
        with WorkerNode(broker_url=broker.url("worker"), environ=environ["worker"]):
            call(environ["caller"], broker, "with all")
            assert broker.refused() == []
            for rule, right in rights_of(broker, "caller"):
                without(broker, "caller", rule, right)
                with suppress(WorkerError, OperationalError, redis.RedisError, CeleryTimeoutError, RuntimeError):
                    call(environ["caller"], broker, right)
                if not any(line.startswith("caller: ") for line in broker.refused()):
                    unnoticed.append(right)
        assert {*unnoticed} <= SELDOM_MISSED, "\n".join(unnoticed)


def call(environ: Mapping[str, str], broker: Guarded, about: str) -> None:
    """What a caller does, shortly: a request, an invalidation, a plain program's task and one for later."""
    with PersonaClient(load_settings(environ)) as client:
        done = client.invalidate("persona:*", wait_s=0)
        assert done.durable
        with bare_app(broker.url("caller"), broker.url("caller", 1)) as app:
            app.conf.update(broker_connection_max_retries=1, redis_socket_timeout=2)
            sent = send_plain(app, PersonaRequest.create(f"And you, {about}?", KEY), queue="celery")
            assert client.submit(f"How do I begin, {about}?", KEY).result(5).persona
            assert sent.get(timeout=5)
