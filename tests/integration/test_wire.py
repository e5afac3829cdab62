"""The way of a read to L2, on a real server: every exchange has its own answer, whatever became of the one before."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from broken_off import BrokenOffError, broken_off_at
from servers import ValkeyServer
from supervised import eventually

from pipeline.cache.address import Address
from pipeline.cache.connection import RedisConnection
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.link import ReplyError, encode
from pipeline.cache.wire import Wire

TIMEOUT_S = 0.25
NAME = "persona-test-wire"


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    """One that may be frozen and killed."""
    with ValkeyServer(keep_on_disk=True, password="secret") as server:
        yield server


@pytest.fixture
def wire(server: ValkeyServer) -> Iterator[Wire]:
    with server.client() as control:
        control.mset({"a": "of a", "b": "of b"})
    with closing(Wire(Address.parse(f"{server.url}?client_name={NAME}"), timeout_s=TIMEOUT_S)) as wire:
        yield wire


def ask(wire: Wire, command: bytes) -> Any:
    """The reply to one command."""
    return wire.exchange(command, ("test",))[0]


def get(key: str) -> bytes:
    return encode(b"GET", key.encode())


def connections(server: ValkeyServer) -> int:
    with server.client() as control:
        return sum(each["name"] == NAME for each in control.client_list())


def test_a_command_is_encoded_as_the_server_reads_it(server: ValkeyServer, wire: Wire) -> None:
    """Any bytes, also none, and those that look like the protocol's own."""
    key, value = b"k\r\n$3\r\n\x00\xff", bytes(range(256)) * 4_096
    assert ask(wire, encode(b"SET", key, value)) == b"OK"
    assert ask(wire, encode(b"MGET", key, b"", b"absent")) == [value, None, None]
    assert ask(wire, encode(b"SET", b"empty", b"")) == b"OK"
    assert ask(wire, get("empty")) == b""


def test_a_late_answer_is_not_taken_for_the_next_ones(server: ValkeyServer, wire: Wire) -> None:
    """The server answers after the time-out, when nobody reads it any more."""
    assert ask(wire, get("a")) == b"of a"
    server.freeze()
    try:
        with pytest.raises(TimeoutError):
            ask(wire, get("a"))
    finally:
        server.thaw()
    assert ask(wire, get("b")) == b"of b"


def test_an_exchange_that_is_broken_off_at_any_step_leaves_no_answer_behind(wire: Wire) -> None:
    """Also where it had been sent and not been read, with nothing wrong with the connection."""
    for step in range(1, 100):
        assert ask(wire, get("a")) == b"of a"
        went_on = not broken_off_at(step, lambda: ask(wire, get("a")), "cache/wire.py", "cache/link.py")
        assert ask(wire, get("b")) == b"of b"
        if went_on:
            assert step > 5
            return
    pytest.fail("the exchange has no end")


def test_an_exchange_that_a_signal_broke_off_leaves_no_answer_behind(server: ValkeyServer, wire: Wire) -> None:
    """It had been sent and not been read."""

    def broken_off(*_: object) -> None:
        raise BrokenOffError

    before = signal.signal(signal.SIGUSR1, broken_off)
    main = threading.get_ident()
    assert ask(wire, get("a")) == b"of a"
    server.freeze()
    timer = threading.Timer(TIMEOUT_S / 4, signal.pthread_kill, (main, signal.SIGUSR1))
    try:
        timer.start()
        with pytest.raises(BrokenOffError):
            ask(wire, get("a"))
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
        server.thaw()
    assert ask(wire, get("b")) == b"of b"


def test_a_server_that_was_restarted_costs_one_more_try_and_no_error(server: ValkeyServer, wire: Wire) -> None:
    """Its connections were closed meanwhile."""
    assert ask(wire, get("a")) == b"of a"
    server.stop()
    server.start()
    assert ask(wire, get("a")) == b"of a"


def test_a_refusal_is_an_answer(wire: Wire) -> None:
    """The connection goes on with the next command: no new one for each error."""
    own_id = encode(b"CLIENT", b"ID")
    first = ask(wire, own_id)
    assert ask(wire, encode(b"SET", b"text", b"1")) == b"OK"
    with pytest.raises(ReplyError, match="WRONGTYPE"):
        ask(wire, encode(b"LPUSH", b"text", b"1"))
    assert ask(wire, own_id) == first


def test_threads_have_each_their_own_answers(server: ValkeyServer, wire: Wire) -> None:
    """And no more connections than there are threads, closed when it is closed."""
    wrong: list[Any] = []
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        key = f"of-thread-{number}"
        try:
            barrier.wait(20)
            ask(wire, encode(b"SET", key.encode(), key.encode()))
            wrong.extend(answer for answer in (ask(wire, get(key)) for _ in range(300)) if answer != key.encode())
        except Exception as error:  # noqa: BLE001 - any at all fails the test, in the main thread
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # they take turns between any two steps
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval_s)
    assert wrong == []
    assert 1 <= connections(server) <= 8
    wire.close()
    eventually(lambda: connections(server) == 0, "the connections are closed")


def test_a_connection_asks_behind_its_breaker(server: ValkeyServer) -> None:
    """As `call` does: it fails as unavailable, then at once, and heals by itself."""
    with server.client() as control:
        control.set("a", "of a")
    with closing(RedisConnection(server.url, timeout_s=TIMEOUT_S, retry_pause_s=0.2)) as connection:
        assert connection.ask(get("a"), ("GET",)) == [b"of a"]
        server.freeze()
        try:
            with pytest.raises(SharedTierUnavailableError, match="TimeoutError"):
                connection.ask(get("a"), ("GET",))
            began_s = time.monotonic()
            with pytest.raises(SharedTierUnavailableError, match="a moment ago"):
                connection.ask(get("a"), ("GET",))
            assert time.monotonic() - began_s < TIMEOUT_S / 2
        finally:
            server.thaw()

        def healed() -> bool:
            try:
                return bool(connection.ask(get("a"), ("GET",)) == [b"of a"])
            except SharedTierUnavailableError:
                return False

        eventually(healed, "the server is asked again")
        connection.close()
        assert connection.ask(get("a"), ("GET",)) == [b"of a"]
