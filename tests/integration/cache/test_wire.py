"""The way of a read to L2, on a real server: every exchange has its own answer, whatever became of the one before."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from broken_off import BrokenOffError, broken_off_at
from polling import until
from servers import ValkeyServer

from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.server.address import Address
from pipeline.cache.server.connection import RedisConnection
from pipeline.cache.server.link import Link, ReplyError, encode
from pipeline.cache.server.wire import Wire

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
    """The server answers after the time-out, when no caller reads the answer any more."""
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
        went_on = not broken_off_at(step, lambda: ask(wire, get("a")), "server/wire.py", "server/link.py")
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
    until(lambda: connections(server) == 0, "the connections are closed")


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

        until(healed, "the server is asked again")
        connection.close()
        assert connection.ask(get("a"), ("GET",)) == [b"of a"]


# -- a bounded number of connections


def test_threads_share_the_connections_that_there_may_be(server: ValkeyServer) -> None:
    """A limit of this process's own is no outage: a caller that finds none free waits for one."""
    url = f"{server.url}?max_connections=2&client_name={NAME}"
    with closing(RedisConnection(url, timeout_s=10.0)) as connection:
        wrong: list[Any] = []
        most: list[int] = []

        def work(number: int) -> None:
            try:
                for turn in range(100):
                    words = (f"of-thread-{number}", f"{number}-{turn}")
                    connection.call(lambda client, words=words: client.set(*words))
                    got = connection.call(lambda client, words=words: client.get(words[0]))
                    if got != words[1].encode():
                        wrong.append(got)
            except Exception as error:  # noqa: BLE001 - any at all fails the test, in the main thread
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            most.append(connections(server))
            threads[-1].join(0.05)
        assert wrong == []
        assert max(most) <= 2
        assert connection.breaker.opened_count == 0
        assert connection.refused is None


def test_who_waits_too_long_for_a_connection_misses_and_the_server_is_not_blamed(server: ValkeyServer) -> None:
    """The only connection is in use for longer than the time-out."""
    with closing(RedisConnection(f"{server.url}?max_connections=1", timeout_s=TIMEOUT_S)) as connection:
        assert connection.call(lambda client: client.ping()) == b"PONG"
        waiting = threading.Thread(target=lambda: connection.call(lambda client: client.blpop(["nobody's"], 4 * TIMEOUT_S)))
        waiting.start()
        with server.client() as control:
            until(lambda: any("blpop" in each["cmd"] for each in control.client_list()), "it waits")
        with pytest.raises(SharedTierUnavailableError, match="in use"):
            connection.call(lambda client: client.ping())
        assert connection.breaker.closed
        waiting.join(10)
        assert connection.call(lambda client: client.ping()) == b"PONG"


def test_a_place_that_was_lost_is_not_missing_for_ever(server: ValkeyServer) -> None:
    """The place of an exchange that is broken off at any step is free again, though no code gives it back."""
    url = f"{server.url}?max_connections=1"
    with closing(Wire(Address.parse(url), timeout_s=2.0)) as wire:
        for step in range(1, 200):
            went_on = not broken_off_at(step, lambda: ask(wire, get("a")), "server/wire.py")
            assert ask(wire, get("b")) is not ask(wire, get("a"))
            if went_on:
                assert step > 10
                return
    pytest.fail("the exchange has no end")


# -- how many connections there were


def test_connections_are_counted_before_anything_is_read_from_them(server: ValkeyServer) -> None:
    """A thread that has seen the count knows whether its knowledge may be of another server."""
    with closing(RedisConnection(server.url, timeout_s=2.0)) as connection:
        assert connection.made == 0
        seen = [connection.call(lambda client: (client.ping(), connection.made))[1] for _ in range(3)]
        assert seen == [1, 1, 1]
        connection.renounce()
        assert connection.call(lambda client: (client.ping(), connection.made))[1] == 2
        server.stop()
        server.start()
        assert connection.call(lambda client: (client.ping(), connection.made))[1] == 3


def test_a_wait_on_purpose_is_not_cut_short_by_the_time_out(server: ValkeyServer) -> None:
    """A command that blocks has the time-out after its own time, and the next command has its own again."""
    with closing(RedisConnection(server.url, timeout_s=0.2)) as connection:
        assert connection.call(lambda client: client.blpop(["nobody's"], 0.5)) is None
        assert connection.breaker.closed
        server.freeze()
        try:
            began_s = time.monotonic()
            with pytest.raises(SharedTierUnavailableError, match="TimeoutError"):
                connection.call(lambda client: client.ping())
            assert time.monotonic() - began_s < 0.6
        finally:
            server.thaw()


# -- replies that no server gives


class Impostor:
    """Listens and answers each connection's first bytes with these."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                with peer, contextlib.suppress(OSError):
                    peer.recv(65_536)
                    peer.sendall(b"+OK\r\n")  # to the name that it is told
                    for answer in self._answers:
                        peer.recv(65_536)
                        peer.sendall(answer)
                    peer.recv(65_536)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"$5\r\nhelloXX",
        b"$-x\r\n",
        b"$99999999999999\r\n",
        b"*99999999999999\r\n",
        b"*1\r\n" * 50,
        b":1\r\n",
        b"*1\r\n$1\r\nx\r\n",
        b"+OK\r\n+OK\r\n",
        b"%1\r\n+a\r\n+b\r\n",
        b"\x00" * 100_000,
        b"",
    ],
    ids=repr,
)
def test_what_is_no_reply_to_the_command_is_none(answer: bytes) -> None:
    """Another program, or replies that are mixed up: a miss, and no error of another kind."""
    impostor = Impostor(answer[:70_000])
    try:
        with (
            closing(RedisConnection(impostor.url, timeout_s=0.3, retry_pause_s=0)) as connection,
            pytest.raises(SharedTierUnavailableError),
        ):
            connection.call(lambda client: client.get("a"))
    finally:
        impostor.close()


def test_a_reply_that_comes_in_pieces_is_whole() -> None:
    """At every place where a network may cut it."""
    whole = b"*3\r\n$5\r\nhello\r\n*2\r\n:12\r\n$-1\r\n$0\r\n\r\n"

    class Pieces:
        """A front that sends the reply in two, the second when the first was read."""

        def __init__(self, cut: int) -> None:
            self.pieces = [whole[:cut], whole[cut:]]

        def sendall(self, _: bytes) -> None:
            """Taken."""

        def recv(self, _: int) -> bytes:
            return self.pieces.pop(0)

        def close(self) -> None:
            """Closed."""

    for cut in range(1, len(whole)):
        link = Link.__new__(Link)
        pieces: Any = Pieces(cut)
        link._socket, link._send, link._recv = pieces, pieces.sendall, pieces.recv
        assert link.exchange(b"x", 1) == [[b"hello", [12, None], b""]], cut
