"""What a fault is, and the ways in which faults are planted in a stack that is well."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any, Final, NamedTuple

from polling import until
from servers import ValkeyServer

from doctor.stacks import Stack
from workers.stack.servers.valkey_server import HOST

NAMESPACE: Final = "persona"


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
