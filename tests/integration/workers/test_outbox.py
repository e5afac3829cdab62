"""Notices and renewals on brokers that take nothing: their callers do not wait, and messages that can be sent are sent, in
order."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import redis
from kombu import Producer
from polling import until
from servers import ValkeyServer, free_port

from benchmarks.kit.nodes import own_environment
from pipeline.cache import Invalidation
from pipeline.cache.keys import KeySpace
from pipeline.models import PersonaRequest
from pipeline.settings import DEFAULT_NAMESPACE, Settings, load_settings
from workers.client import PersonaClient
from workers.queue.broadcast import ROUTING_KEY, Announcer, exchange_of
from workers.queue.dispatch import refresher
from workers.queue.factory import make_app
from workers.queue.outbox import MOST, TRY_S, Outbox

BOUND_S = 20.0
LONG_S = 1.2
"""More than a caller may wait for its notice, with a busy machine's share; less than one try to send it and what comes after."""
THREADS = 24
CHANNEL = f"/0.{exchange_of(DEFAULT_NAMESPACE).name}/{ROUTING_KEY}"


def settings_of(broker_url: str, cache_url: str = "") -> Settings:
    return load_settings({"PERSONA_BROKER_URL": broker_url, "PERSONA_CACHE_URL": cache_url})


@contextmanager
def silent(scheme: str) -> Iterator[str]:
    """A broker that takes connections and bytes, and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=64)) as listener:
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/"


@contextmanager
def frozen(_: str) -> Iterator[str]:
    with ValkeyServer() as server:
        server.freeze()
        yield server.url
        server.thaw()


@contextmanager
def refusing(scheme: str) -> Iterator[str]:
    yield f"{scheme}://127.0.0.1:{free_port()}/"


class Listener:
    """The messages that are published to the nodes."""

    def __init__(self, server: ValkeyServer) -> None:
        self._client = server.client()
        self._messages = self._client.pubsub(ignore_subscribe_messages=True)
        self._messages.subscribe(CHANNEL)
        self._messages.get_message(timeout=5)
        self.patterns: list[str] = []

    def hear(self) -> list[str]:
        """The first pattern of each notice so far."""
        while (message := self._messages.get_message(timeout=0.02)) is not None:
            body = json.loads(base64.b64decode(json.loads(message["data"])["body"]))
            self.patterns.append(body[0][2][0])
        return self.patterns

    def close(self) -> None:
        self._messages.close()
        self._client.close()


@pytest.fixture
def broker() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def listener(broker: ValkeyServer) -> Iterator[Listener]:
    with closing(Listener(broker)) as listener:
        yield listener


@pytest.mark.parametrize(("kind", "scheme"), [(frozen, "redis"), (silent, "redis"), (silent, "amqp"), (refusing, "redis")])
def test_a_broker_that_takes_nothing_holds_up_no_invalidation(kind: Any, scheme: str) -> None:
    """The notice is a hint: many threads at once are through within a moment, durable, and told that no node was told."""
    with ValkeyServer() as cache, kind(scheme) as url, PersonaClient(settings_of(url, cache.url)) as client:
        outcomes: list[tuple[bool, bool, float]] = []

        def invalidate(number: int) -> None:
            began_s = time.monotonic()
            done = client.invalidate(f"k:{number}")
            outcomes.append((done.durable, done.announced, time.monotonic() - began_s))

        client.cache.as_of()  # connected
        threads = [threading.Thread(target=invalidate, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [outcome[:2] for outcome in outcomes] == [(True, False)] * THREADS
        assert max(outcome[2] for outcome in outcomes) < LONG_S
        began_s = time.monotonic()
        for number in range(THREADS):
            assert not client.invalidate(f"one:{number}").announced
        assert time.monotonic() - began_s < THREADS * 0.25, "while it is known to be stuck, no poster waits for all of its time"
        with cache.client() as client_of_cache:
            assert client_of_cache.zcount(KeySpace(DEFAULT_NAMESPACE).records, 1, "+inf") == 2 * THREADS


def test_a_step_that_nothing_ends_holds_up_no_invalidation_either(broker: ValkeyServer) -> None:
    """A name server that is silent for half a minute, say: the first ones wait a moment, all others next to none."""
    settings, released = settings_of(broker.url), threading.Event()
    with closing(make_app(settings)) as app, closing(Outbox(app)) as outbox:
        announce = Announcer(app, settings, outbox)
        until(lambda: announce(Invalidation(("first",), "e", 1, durable=True), None), "it is connected")
        try:
            assert not outbox.post(lambda _: released.wait(BOUND_S), wait_s=0.0, useful_s=BOUND_S)
            began_s = time.monotonic()
            for number in range(THREADS):
                assert not announce(Invalidation((f"k:{number}",), "e", 2, durable=True), None)
            assert time.monotonic() - began_s < THREADS * 0.25 / 2
        finally:
            released.set()
        until(lambda: announce(Invalidation(("again",), "e", 3, durable=True), None), "notices are sent again")


def test_when_the_broker_is_back_notices_are_sent_again(broker: ValkeyServer, listener: Listener) -> None:
    """A notice that is too old to be news is not sent late; one of what is in no log is. Then all is as before."""
    settings = settings_of(broker.url)
    with closing(make_app(settings)) as app, closing(Outbox(app)) as outbox:
        announce = Announcer(app, settings, outbox)
        until(lambda: announce(Invalidation(("first",), "e", 1, durable=True), None), "it is connected")
        broker.freeze()
        assert not announce(Invalidation(("stuck",), "e", 2, durable=True), None)
        for number in range(5):
            assert not announce(Invalidation((f"late {number}",), "e", 3, durable=True), None)
        assert not announce(Invalidation(("in no log",), "", 0, durable=False), None)
        time.sleep(settings.staleness_bound_s + TRY_S)  # as long as the notices are of use, and the try that began then
        broker.thaw()
        until(lambda: announce(Invalidation(("again",), "e", 4, durable=True), None), "notices are sent again")
        until(lambda: "again" in listener.hear(), "it is heard")
    heard = listener.hear()
    assert heard[0] == "first"
    assert "in no log" in heard
    # One that was tried while it was of use may arrive: the server had its bytes all the time. For the others it was too late.
    assert not {"late 2", "late 3", "late 4"} & set(heard)


def test_a_broker_that_was_restarted_costs_no_notice(broker: ValkeyServer) -> None:
    """The connection that it has closed is found out by the next message, which goes by a new one."""
    with closing(make_app(settings_of(broker.url))) as app, closing(Outbox(app)) as outbox:
        assert outbox.post(lambda producer: producer.publish("hello", routing_key="there"), wait_s=BOUND_S, useful_s=BOUND_S)
        for _ in range(3):
            broker.kill()
            broker.start()
            assert outbox.post(lambda producer: producer.publish("hello", routing_key="there"), wait_s=BOUND_S, useful_s=BOUND_S)
        used: list[Producer] = []

        def break_once(producer: Producer) -> None:
            used.append(producer)
            if len(used) == 1:
                raise ConnectionResetError
            producer.publish("hello", routing_key="there")

        assert outbox.post(break_once, wait_s=BOUND_S, useful_s=BOUND_S)
        assert used[0] is not used[1]


def test_notices_go_out_in_their_order_and_all_before_the_end(broker: ValkeyServer, listener: Listener) -> None:
    """No caller waits for them, and `close` does, for a moment; afterwards the same outbox begins anew."""
    settings = settings_of(broker.url)
    with closing(make_app(settings)) as app, closing(Outbox(app)) as outbox:
        announce = Announcer(app, settings, outbox)
        expected = [str(number) for number in range(200)]
        for turn in (expected[:100], expected[100:]):
            for name in turn:
                outbox.post(
                    lambda producer, name=name: announce._publish(_announced(name), None, producer),
                    wait_s=0.0,
                    useful_s=BOUND_S,
                )
            outbox.close()
        until(lambda: len(listener.hear()) >= len(expected), "all are heard")
    assert listener.hear() == expected


def _announced(name: str) -> Any:
    from workers.queue.broadcast import Announced

    return Announced(name, time.time(), Invalidation((name,), "e", 1, durable=True))


def test_a_broker_that_is_stuck_fills_no_memory() -> None:
    """So many messages wait, and no more: the others are dropped at once."""
    with silent("redis") as url, closing(make_app(settings_of(url))) as app, closing(Outbox(app)) as outbox:
        for _ in range(MOST + 100):
            assert not outbox.post(lambda _: None, wait_s=0.0, useful_s=BOUND_S)
        assert outbox._queue.qsize() <= MOST


def test_a_stale_answer_is_served_though_its_renewal_cannot_be_queued() -> None:
    """A renewal neither raises nor waits, whatever the broker does."""
    with silent("redis") as url, closing(make_app(settings_of(url))) as app, closing(Outbox(app)) as outbox:
        refresh = refresher(app, outbox)
        request = PersonaRequest.create("How do I begin?", "calm-flowing-planning")
        began_s = time.monotonic()
        for _ in range(10):
            refresh(request)
        assert time.monotonic() - began_s < LONG_S


def test_a_renewal_comes_into_its_queue(broker: ValkeyServer) -> None:
    """Behind what callers wait for, and marked as no request."""
    with closing(make_app(settings_of(broker.url))) as app:
        with closing(Outbox(app)) as outbox:
            refresher(app, outbox)(PersonaRequest.create("How do I begin?", "calm-flowing-planning"))
        with broker.client() as client:
            (message,) = client.lrange("maintenance", 0, -1)
    headers = json.loads(message)["headers"]
    assert (headers["task"], headers["persona_renewal"]) == ("persona.process", True)


# -- programs


def run(program: str, broker: ValkeyServer, cache: ValkeyServer, **more: str) -> subprocess.CompletedProcess[str]:
    environ = own_environment() | {"PERSONA_BROKER_URL": broker.url, "PERSONA_CACHE_URL": cache.url} | more
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(program)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


AT_ONCE = """
    import os
    from pipeline.settings import get_settings
    from workers.client import PersonaClient
    import workers.queue.broadcast

    workers.queue.broadcast.WAIT_S = 0.0  # as if the broker were slow: nobody has waited until it was sent
    client = PersonaClient(get_settings())
    for number in range(30):
        client.cache.invalidate(str(number))
"""


def test_a_program_that_ends_at_once_takes_no_notice_with_it(broker: ValkeyServer, listener: Listener) -> None:
    """Without a `close`, too: its end waits for messages that are not sent yet."""
    with ValkeyServer() as cache:
        done = run(AT_ONCE, broker, cache)
    assert (done.returncode, done.stderr) == (0, "")
    until(lambda: len(listener.hear()) >= 30, "all are heard")
    assert listener.hear() == [str(number) for number in range(30)]


FORKED = """
    import os, sys, threading, time
    from pipeline.settings import get_settings
    from pipeline.cache import Invalidation
    from workers.queue.broadcast import Announcer
    from workers.queue.factory import make_app
    from workers.queue.outbox import Outbox
    import workers.queue.broadcast

    workers.queue.broadcast.WAIT_S = 15.0  # on a busy machine, too, each learns that it was sent
    settings = get_settings()
    app = make_app(settings)
    announce = Announcer(app, settings, Outbox(app))
    assert announce(Invalidation(("parent",), "e", 1, durable=True), None)
    busy = threading.Thread(target=lambda: [announce(Invalidation(("thread",), "e", 1, durable=True), None) for _ in range(200)])
    busy.start()
    children = []
    for number in range(5):
        child = os.fork()
        if not child:
            ok = announce(Invalidation((f"child {number}",), "e", 1, durable=True), None)
            announce.close()
            os._exit(not ok)
        children.append(child)
    busy.join()
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert announce(Invalidation(("parent again",), "e", 1, durable=True), None)
    sys.exit(0 if codes == [0] * 5 else f"children ended with {codes}")
"""


def test_a_forked_child_has_an_outbox_of_its_own(broker: ValkeyServer, listener: Listener) -> None:
    """Whatever its parent's thread was doing at the fork: the child sends, and so does the parent."""
    with ValkeyServer() as cache:
        done = run(FORKED, broker, cache)
    assert (done.returncode, done.stderr) == (0, "")
    until(lambda: "parent again" in listener.hear(), "the last one is heard")
    heard = listener.hear()
    assert {f"child {number}" for number in range(5)} <= set(heard)
    assert heard.count("thread") == 200


SIGNALLED = """
    import itertools, signal, sys
    from pipeline.settings import get_settings
    from workers.client import PersonaClient

    with PersonaClient(get_settings()) as client:
        client.cache.invalidate("first")
        announce, post = client.cache._coherence.announce, client._outbox.post
        from pipeline.cache import Invalidation
        handled = 0

        def handler(*_):
            global handled
            handled += 1
            announce(Invalidation((f"handler {handled}",), "e", handled, durable=True), None)

        pauses_s = itertools.cycle(number / 10_000 for number in range(1, 40))  # what it interrupts goes on for a while
        signal.signal(signal.SIGALRM, handler)
        for number in range(300):
            signal.setitimer(signal.ITIMER_REAL, next(pauses_s))
            announce(Invalidation((str(number),), "e", number, durable=True), None)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
    print(handled)
"""


def test_a_signal_handler_that_announces_waits_for_nobody_it_interrupted(broker: ValkeyServer, listener: Listener) -> None:
    """It may come between any two steps of another announcement in the same thread."""
    with ValkeyServer() as cache:
        done = run(SIGNALLED, broker, cache)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 10
    until(lambda: "299" in listener.hear(), "the last one is heard")
    assert [pattern for pattern in listener.hear() if pattern.isdigit()] == [str(number) for number in range(300)]


def test_a_message_goes_to_a_redis_that_asks_for_a_password() -> None:
    """The outbox connects as the app does."""
    with ValkeyServer(password="canary") as server, redis.Redis.from_url(server.url) as client:
        with closing(make_app(settings_of(server.url))) as app, closing(Outbox(app)) as outbox:
            assert outbox.post(lambda producer: producer.publish("hello", routing_key="there"), wait_s=BOUND_S, useful_s=BOUND_S)
        assert client.llen("there") == 1
