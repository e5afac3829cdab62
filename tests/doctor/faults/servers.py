"""Faults of the servers: their settings, their memory, their users, how they are reached."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Final

from polling import until
from servers import ValkeyServer, free_port

from doctor.faults.planted import Fault, Given, asked_with, filled, follow, set_at, with_server
from doctor.stacks import Stack
from workers.stack.servers.valkey_server import HOST


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
def frozen_broker(stack: Stack) -> Iterator[Given]:
    stack.broker.freeze()
    try:
        yield {}
    finally:
        stack.broker.thaw()


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
def cache_beside_the_queue(stack: Stack) -> Iterator[Given]:
    yield {"PERSONA_CACHE_URL": stack.broker.url_of(2)}


FAULTS: Final = (
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
)
