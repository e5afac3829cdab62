"""The faults: how each is planted in a stack that is well, and by which name the doctor is to call it."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple

import redis
from fleet import API_KEY, bare_app, send_plain
from polling import until
from servers import ValkeyServer, free_port

from benchmarks.kit.nodes import own_environment
from doctor.stacks import Stack
from pipeline.cache.keys import KeySpace
from pipeline.figures import FigureKeys
from pipeline.models import PersonaRequest
from workers.doctor.looks.beat import PREFIX, SCHEDULE
from workers.node.fetch.claims import CLAIMS, NODES
from workers.queue.aside.messages import ASIDE
from workers.queue.dead_letters.letter import DEAD_LETTERS, written
from workers.stack.processes import ChildProcess
from workers.stack.servers.valkey_server import HOST

NAMESPACE: Final = "persona"
KEY: Final = "calm-flowing-planning"

Given = Mapping[str, str]
"""What the doctor is given beside the stack's settings; `flower` is its option."""
Plant = Callable[[Stack], AbstractContextManager[Given]]


class Fault(NamedTuple):
    """`names`: of the findings that it must lead to, `part: name`. `plant` undoes it at the end of its block."""

    what: str
    names: tuple[str, ...]
    plant: Plant


def set_at(server: str, **options: str) -> Plant:
    """By CONFIG SET, `_` for `-`."""

    @contextmanager
    def plant(stack: Stack) -> Iterator[Given]:
        client = stack.queue if server == "broker" else stack.entries
        names = {name.replace("_", "-"): value for name, value in options.items()}
        before = {name: client.config_get(name)[name] for name in names}
        for name, value in names.items():
            client.config_set(name, value)
        try:
            yield {}
        finally:
            for name, value in before.items():
                client.config_set(name, value)

    return plant


def filled(server: str, share: float, **options: str) -> Plant:
    """So that this share of its memory is used."""

    @contextmanager
    def plant(stack: Stack) -> Iterator[Given]:
        memory = (stack.queue if server == "broker" else stack.entries).info("memory")
        counted = memory["used_memory"] - memory.get("mem_not_counted_for_evict", 0)
        with set_at(server, **options, maxmemory=str(int(counted / share)))(stack) as given:
            yield given

    return plant


def asked_with(**environ: str) -> Plant:
    """The settings here are others."""

    @contextmanager
    def plant(_: Stack) -> Iterator[Given]:
        yield environ

    return plant


def with_server(
    variable: str, prepare: Callable[[Stack, ValkeyServer], None] = lambda _stack, _server: None, **options: Any
) -> Plant:
    """That setting here names another server."""

    @contextmanager
    def plant(stack: Stack) -> Iterator[Given]:
        with ValkeyServer(**options) as server:
            prepare(stack, server)
            yield {variable: server.url}

    return plant


def follow(which: str) -> Callable[[Stack, ValkeyServer], None]:
    """Make it a replica of that server of the stack."""

    def prepare(stack: Stack, server: ValkeyServer) -> None:
        with closing(server.client()) as client:
            client.replicaof(HOST, (stack.broker if which == "broker" else stack.cache).port)
            until(lambda: client.info("replication")["master_link_status"] == "up", "the replica follows")

    return prepare


def added(change: Callable[[Stack], Any], undo: Callable[[Stack], Any]) -> Plant:
    """Something at one of the servers."""

    @contextmanager
    def plant(stack: Stack) -> Iterator[Given]:
        change(stack)
        try:
            yield {}
        finally:
            undo(stack)

    return plant


def node_with(**options: Any) -> Plant:
    """One more node, which is other than the rest."""

    @contextmanager
    def plant(stack: Stack) -> Iterator[Given]:
        with stack.another_node(**options):
            yield {}

    return plant


def ailing(fault: str) -> Plant:
    return node_with(app="ailing_app", environ={"AILING": fault, "C_FORCE_ROOT": "1"})


@contextmanager
def closed_port(_: Stack) -> Iterator[Given]:
    yield {"PERSONA_LLM_URL": f"http://{HOST}:{free_port()}/v1"}


@contextmanager
def mute_model(_: Stack) -> Iterator[Given]:
    """It takes connections, and says nothing."""
    with closing(socket.create_server((HOST, 0))) as listening:
        yield {"PERSONA_LLM_URL": f"http://{HOST}:{listening.getsockname()[1]}/v1"}


def answering(status: int, body: bytes = b"") -> Plant:
    """An endpoint that says that."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    @contextmanager
    def plant(_: Stack) -> Iterator[Given]:
        with ThreadingHTTPServer((HOST, 0), Answers) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield {"PERSONA_LLM_URL": f"http://{HOST}:{server.server_address[1]}/v1"}
            finally:
                server.shutdown()
                thread.join()

    return plant


@contextmanager
def frozen_broker(stack: Stack) -> Iterator[Given]:
    stack.broker.freeze()
    try:
        yield {}
    finally:
        stack.broker.thaw()


@contextmanager
def frozen_node(stack: Stack) -> Iterator[Given]:
    stack.nodes[0].freeze()
    try:
        yield {}
    finally:
        stack.nodes[0].thaw()


@contextmanager
def crowded(stack: Stack) -> Iterator[Given]:
    """So many connections that a few more are the last."""
    with ExitStack() as held:
        for _ in range(600):
            held.enter_context(socket.create_connection((HOST, stack.broker.port)))
        until(lambda: stack.queue.info("clients")["connected_clients"] > 600, "all are taken in")
        most = stack.queue.info("clients")["connected_clients"] + 50  # the doctor's own, and the nodes'
        with set_at("broker", maxclients=str(most))(stack) as given:
            yield given


@contextmanager
def no_password(_: Stack) -> Iterator[Given]:
    with ValkeyServer(password="a-password") as server:
        yield {"PERSONA_BROKER_URL": f"redis://{HOST}:{server.port}/0"}


@contextmanager
def narrow_user(stack: Stack) -> Iterator[Given]:
    stack.queue.execute_command("ACL", "SETUSER", "narrow", "on", ">narrow-password", "~*", "&*", "+@all", "-lpush", "-publish")
    try:
        yield {"PERSONA_BROKER_URL": f"redis://narrow:narrow-password@{HOST}:{stack.broker.port}/0"}
    finally:
        stack.queue.execute_command("ACL", "DELUSER", "narrow")


@contextmanager
def narrow_cache_user(stack: Stack) -> Iterator[Given]:
    stack.entries.execute_command("ACL", "SETUSER", "narrow", "on", ">narrow-password", "~*", "&*", "+@all", "-evalsha", "-getex")
    try:
        yield {"PERSONA_CACHE_URL": f"redis://narrow:narrow-password@{HOST}:{stack.cache.port}/0"}
    finally:
        stack.entries.execute_command("ACL", "DELUSER", "narrow")


@contextmanager
def narrow_worker(stack: Stack) -> Iterator[Given]:
    stack.queue.execute_command("ACL", "SETUSER", "default", "-lrem", "-lpos")
    try:
        yield {}
    finally:
        stack.queue.execute_command("ACL", "SETUSER", "default", "+@all")


@contextmanager
def open_to_all(stack: Stack) -> Iterator[Given]:
    with set_at("cache", protected_mode="no", bind="* -::*")(stack) as given:
        yield given


@contextmanager
def from_outside(stack: Stack) -> Iterator[Given]:
    """The broker by an address that is not loopback; of a host that has none, by a name."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.connect(("192.0.2.1", 9))  # nothing is sent
        address = probe.getsockname()[0]
    with set_at("broker", protected_mode="no", bind="* -::*")(stack):
        yield {"PERSONA_BROKER_URL": f"redis://{address}:{stack.broker.port}/0"}


@contextmanager
def unread_queue(stack: Stack) -> Iterator[Given]:
    with closing(bare_app(stack.broker.url)) as app:
        app.control.cancel_consumer("persona.bulk", reply=True)
        try:
            yield {}
        finally:
            app.control.add_consumer("persona.bulk", exchange="persona.bulk", routing_key="persona.bulk", reply=True)


@contextmanager
def shown_key(_: Stack) -> Iterator[Given]:
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-c", "import time; time.sleep(600)", f"--key={API_KEY}"]
        process = ChildProcess(command, log=f"{directory}/log", environ=own_environment(), directory=directory)  # type: ignore[arg-type]
        try:
            yield {}
        finally:
            process.kill()


@contextmanager
def stock_flower(stack: Stack) -> Iterator[Given]:
    port = free_port()
    url = f"http://{HOST}:{port}"
    with tempfile.TemporaryDirectory() as directory:
        command = [
            sys.executable,
            "-m",
            "celery",
            f"--broker={stack.broker.url}",
            "flower",
            f"--port={port}",
            f"--address={HOST}",
        ]
        process = ChildProcess(command, log=f"{directory}/log", environ=own_environment(), directory=directory)  # type: ignore[arg-type]
        try:
            until(lambda: _connects(port), "Flower listens")
            yield {"flower": url}
        finally:
            process.kill()


@contextmanager
def second_beat(stack: Stack) -> Iterator[Given]:
    with (
        tempfile.TemporaryDirectory() as directory,
        stack.beat("--scheduler=celery.beat.PersistentScheduler", f"--schedule={directory}/schedule"),
    ):
        yield {}


@contextmanager
def stuck_beat(stack: Stack) -> Iterator[Given]:
    """As the schedule looks when its beat has stood still for ten minutes."""
    name = f"{PREFIX}cache.preload"
    due_s = stack.queue.zscore(SCHEDULE, name)
    stack.queue.zadd(SCHEDULE, {name: time.time() - 600})
    stack.queue.zadd(SCHEDULE, {f"{PREFIX}cache.maintain": time.time() - 600})
    try:
        yield {}
    finally:
        stack.queue.zadd(SCHEDULE, {name: due_s})


@contextmanager
def foreign_variable(_: Stack) -> Iterator[Given]:
    os.environ["CELERY_BROKER_URL"] = "redis://elsewhere:6379/0"
    try:
        yield {}
    finally:
        del os.environ["CELERY_BROKER_URL"]


@contextmanager
def deaf_node(stack: Stack) -> Iterator[Given]:
    with ExitStack() as resources:
        resources.enter_context(ailing("deaf")(stack))
        keys = KeySpace(NAMESPACE)
        from pipeline.cache.coherence.log import RedisInvalidationLog
        from pipeline.cache.server.connection import RedisConnection

        with closing(RedisConnection(stack.environ["PERSONA_CACHE_URL"])) as connection:
            RedisInvalidationLog(connection, keys, retention_s=86_400).append(["persona:lua:*"])
        yield {}


def _connects(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _garbled(stack: Stack, server: ValkeyServer) -> None:
    del stack
    with closing(server.client()) as client:
        client.set(KeySpace(NAMESPACE).tail, "not a tail")


def _old_message() -> bytes:
    return b'{"headers": {"persona_published_at": %d}, "body": ""}' % (time.time() - 600)


@contextmanager
def cache_beside_the_queue(stack: Stack) -> Iterator[Given]:
    yield {"PERSONA_CACHE_URL": stack.broker.url_of(2)}


@contextmanager
def endless_result(stack: Stack) -> Iterator[Given]:
    with closing(redis.Redis.from_url(stack.broker.url_of(1))) as results:
        results.set("celery-task-meta-endless", "1")
        try:
            yield {}
        finally:
            results.delete("celery-task-meta-endless")


@contextmanager
def node_at_another_log(stack: Stack) -> Iterator[Given]:
    with stack.another_node(environ={"PERSONA_CACHE_URL": stack.cache.url_of(3)}):
        yield {}


EVER: Final = FigureKeys(NAMESPACE).ever

FAULTS: Final = (
    # -- the servers
    Fault("the broker evicts", ("broker: evicts",), set_at("broker", maxmemory_policy="allkeys-lru")),
    Fault("the broker keeps no file", ("broker: keeps-no-file",), set_at("broker", appendonly="no")),
    Fault("the broker keeps snapshots alone", ("broker: snapshots-only",), set_at("broker", appendonly="no", save="3600 1")),
    Fault("the broker never syncs its file", ("broker: never-syncs",), set_at("broker", appendfsync="no")),
    Fault("the broker is full", ("broker: full",), filled("broker", 0.95)),
    Fault("the broker is nearly full", ("broker: nearly-full",), filled("broker", 0.8)),
    Fault(
        "the broker is a replica", ("broker: replica",), with_server("PERSONA_BROKER_URL", follow("broker"), keep_on_disk=True)
    ),
    Fault("the broker is away", ("broker: away",), asked_with(PERSONA_BROKER_URL=f"redis://{HOST}:{free_port()}/0")),
    Fault("the broker is frozen", ("broker: away",), frozen_broker),
    Fault("the broker cuts idle connections", ("broker: cuts-idle",), set_at("broker", timeout="30")),
    Fault(
        "the cache cuts listeners",
        ("cache: cuts-listeners",),
        set_at("cache", client_output_buffer_limit="pubsub 65536 32768 1"),
    ),
    Fault("the broker takes no more programs", ("broker: clients-full",), crowded),
    Fault("the broker's password is missing", ("broker: refuses-login",), no_password),
    Fault("a user at the broker is too narrow", ("broker: rights",), narrow_user),
    Fault("a user at the cache is too narrow", ("cache: rights",), narrow_cache_user),
    Fault("the workers' user is too narrow", ("nodes: rights",), narrow_worker),
    Fault("the cache is open to all", ("cache: open",), open_to_all),
    Fault("the broker is reached in clear", ("broker: unencrypted", "broker: open"), from_outside),
    Fault(
        "the results' server evicts, and keeps no file",
        ("results: evicts", "results: keeps-no-file"),
        with_server("PERSONA_RESULT_URL", maxmemory="64mb", maxmemory_policy="allkeys-lru"),
    ),
    Fault("the cache keeps a file", ("cache: persists",), set_at("cache", save="3600 1")),
    Fault("the cache never evicts", ("cache: never-evicts",), set_at("cache", maxmemory_policy="noeviction")),
    Fault("the cache has no bound", ("cache: unbounded",), set_at("cache", maxmemory="0")),
    Fault("the cache evicts at random", ("cache: evicts-blindly",), set_at("cache", maxmemory_policy="allkeys-random")),
    Fault("the cache is full", ("cache: full",), filled("cache", 0.97, maxmemory_policy="noeviction")),
    Fault("the cache is a replica", ("cache: replica",), with_server("PERSONA_CACHE_URL", follow("cache"), maxmemory="64mb")),
    Fault("the cache is away", ("cache: away",), asked_with(PERSONA_CACHE_URL=f"redis://{HOST}:{free_port()}/0")),
    Fault("the cache is on the broker's server", ("cache: is-brokers",), cache_beside_the_queue),
    # -- what lies there
    Fault("a result without an end", ("results: endless",), endless_result),
    Fault(
        "an entry without an end",
        ("cache: endless",),
        added(lambda stack: stack.entries.set("persona:2:e:x", "1"), lambda stack: stack.entries.delete("persona:2:e:x")),
    ),
    Fault(
        "dead letters",
        ("queues: dead-letters",),
        added(
            lambda stack: stack.queue.lpush(DEAD_LETTERS, written("persona", b"{}", "not a task", whole=True)),
            lambda stack: stack.queue.delete(DEAD_LETTERS),
        ),
    ),
    Fault("a queue that nobody reads", ("queues: unread",), unread_queue),
    Fault(
        "a list of a priority that nobody reads",
        ("queues: unread-priority",),
        added(lambda stack: stack.queue.lpush("persona\x06\x165", "{}"), lambda stack: stack.queue.delete("persona\x06\x165")),
    ),
    Fault(
        "claims of a node that is on no list",
        ("queues: orphans",),
        added(
            lambda stack: stack.queue.lpush(f"{CLAIMS}ghost/1/abcdef01:persona", "{}"),
            lambda stack: stack.queue.delete(f"{CLAIMS}ghost/1/abcdef01:persona"),
        ),
    ),
    Fault("the log's key is another program's", ("coherence: log-unreadable",), with_server("PERSONA_CACHE_URL", _garbled)),
    Fault(
        "the auditor has found stale serves",
        ("coherence: stale",),
        added(
            lambda stack: stack.entries.hset(EVER, mapping={"n.audited": 1000, "n.stale_serves": 3}),
            lambda stack: stack.entries.hdel(EVER, "n.audited", "n.stale_serves"),
        ),
    ),
    # -- the nodes
    Fault("a node with another bound", ("nodes: bound",), node_with(environ={"PERSONA_STALENESS_BOUND_S": "5"})),
    Fault("a node in another namespace", ("nodes: namespace",), node_with(environ={"PERSONA_CACHE_NAMESPACE": "other"})),
    Fault("a node with another model", ("nodes: model",), node_with(environ={"PERSONA_LLM_MODEL": "other"})),
    Fault("a node of another release", ("nodes: release",), ailing("older")),
    Fault("a node that pops", ("nodes: pops",), node_with(environ={"PERSONA_FETCH": "pop"})),
    Fault("a node whose log is shorter", ("nodes: retention",), node_with(environ={"PERSONA_MAX_TTL_S": "7200"})),
    Fault("a pool without time limits", ("nodes: no-limits",), node_with(pool="threads")),
    Fault(
        "a foreign celeryconfig",
        ("nodes: accepts-pickle", "nodes: acks-early", "nodes: results-without-end", "nodes: takes-ahead"),
        ailing("configured"),
    ),
    Fault("a node that gives up lost tasks", ("nodes: drops-lost",), ailing("drops")),
    Fault("a node whose clock is wrong", ("clocks: nodes-skewed",), ailing("skewed")),
    Fault("a node that does not follow", ("coherence: lags",), deaf_node),
    Fault("a node at another log", ("coherence: other-log",), node_at_another_log),
    Fault(
        "a node that never reached the log",
        ("coherence: follows-none",),
        node_with(environ={"PERSONA_CACHE_URL": f"redis://{HOST}:{free_port()}/0"}),
    ),
    Fault("a node that is frozen", ("coherence: silent",), frozen_node),
    Fault("a password on a command line", ("host: shows-secret",), shown_key),
    # -- beat, Flower, model, settings
    Fault("a second beat, without the lock", ("beat: unlocked",), second_beat),
    Fault("a beat that stands still", ("beat: overdue",), stuck_beat),
    Fault(
        "another app's schedule",
        ("beat: foreign",),
        added(
            lambda stack: stack.queue.zadd(SCHEDULE, {f"{PREFIX}shop.report": time.time() + 9000}),
            lambda stack: stack.queue.zrem(SCHEDULE, f"{PREFIX}shop.report"),
        ),
    ),
    Fault("Flower without a login", ("flower: open",), stock_flower),
    Fault("the model's endpoint is away", ("model: away",), closed_port),
    Fault("the model's endpoint is mute", ("model: away",), mute_model),
    Fault("the model's endpoint fails", ("model: fails",), answering(503)),
    Fault("the model's endpoint wants a key", ("model: refuses-key",), answering(401)),
    Fault("the endpoint has other models", ("model: unknown",), answering(200, b'{"data": [{"id": "gpt"}]}')),
    Fault("Celery's variable names another broker", ("settings: foreign-variables",), foreign_variable),
    Fault(
        "results that end early",
        ("settings: results-end-early",),
        asked_with(PERSONA_RESULT_TTL_S="30", PERSONA_STALE_GRACE_S="0"),
    ),
    Fault(
        "a bound below a call's time-out",
        ("settings: bound-below-timeout",),
        asked_with(PERSONA_STALENESS_BOUND_S="0.2"),
    ),
    Fault(
        "answers that end before they are renewed", ("settings: renewed-too-late",), asked_with(PERSONA_PRELOAD_INTERVAL_S="3600")
    ),
    Fault("nobody audits", ("settings: unaudited",), asked_with(PERSONA_AUDIT_PER_S="0")),
)


def killed(stack: Stack) -> None:
    """The only node dies with a task, and what waits grows old."""
    with closing(bare_app(stack.broker.url)) as app:
        send_plain(app, PersonaRequest.create("How do I begin?", KEY))
    until(lambda: sum(stack.queue.llen(name) for name in stack.queue.keys(f"{CLAIMS}*")), "a task is claimed")
    node = stack.nodes[0]
    node.kill()
    for name in stack.queue.zrange(NODES, 0, -1):
        stack.queue.zincrby(NODES, -60_000, name)
    stack.queue.zadd(ASIDE, {"persona\n{}": (time.time() - 120) * 1000})
    stack.queue.rpush("persona", _old_message())


OF_THE_DEAD: Final = ("nodes: none", "queues: orphans", "queues: overdue", "queues: waits-long", "beat: none")
"""The names of what is wrong with a stack whose only node was killed, and which has no beat."""
