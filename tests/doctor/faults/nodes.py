"""Faults of the nodes: one more, which is other than the rest; one that is frozen; a password that shows."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Final

from fleet import API_KEY
from servers import free_port

from benchmarks.kit.nodes import own_environment
from doctor.faults.planted import NAMESPACE, Fault, Given, ailing, node_with
from doctor.stacks import Stack
from pipeline.cache.coherence.log import RedisInvalidationLog
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.connection import RedisConnection
from workers.stack.processes import ChildProcess
from workers.stack.servers.valkey_server import HOST


@contextmanager
def frozen_node(stack: Stack) -> Iterator[Given]:
    stack.nodes[0].freeze()
    try:
        yield {}
    finally:
        stack.nodes[0].thaw()


@contextmanager
def deaf_node(stack: Stack) -> Iterator[Given]:
    with ExitStack() as resources:
        resources.enter_context(ailing("deaf")(stack))
        keys = KeySpace(NAMESPACE)
        with closing(RedisConnection(stack.environ["PERSONA_CACHE_URL"])) as connection:
            RedisInvalidationLog(connection, keys, retention_s=86_400).append(["persona:lua:*"])
        yield {}


@contextmanager
def node_at_another_log(stack: Stack) -> Iterator[Given]:
    with stack.another_node(environ={"PERSONA_CACHE_URL": stack.cache.url_of(3)}):
        yield {}


@contextmanager
def shown_key(_: Stack) -> Iterator[Given]:
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-c", "import time; time.sleep(600)", f"--key={API_KEY}"]
        process = ChildProcess(command, log=f"{directory}/log", environ=own_environment(), directory=directory)  # type: ignore[arg-type]
        try:
            yield {}
        finally:
            process.kill()


FAULTS: Final = (
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
)
