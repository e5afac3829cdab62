"""The product on a real RabbitMQ: one of its own where it is installed, or the one that `TEST_AMQP_URL` names."""

from __future__ import annotations

import gc
import subprocess
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import kombu
import pytest
from celery import Celery
from fleet import WorkerNode, answers_of, bare_app, persona_environ, send_plain
from polling import until
from rabbit import RabbitServer, missing
from servers import ValkeyServer

from pipeline.models import PersonaRequest
from pipeline.settings import load_settings
from workers.client import PersonaClient
from workers.queue.errors import QueueUnavailableError

pytestmark = pytest.mark.long
REQUEST = PersonaRequest.create("How do I begin?", "frustrated-burst-seek_advice")
BOUND = {"PERSONA_STALENESS_BOUND_S": "60"}
"""So long that the lease plays no part: what is fresh is so by the broadcast."""


class Rabbit:
    """Two nodes of three children on RabbitMQ; a client, and a foreign program's app."""

    def __init__(self, url: str, cache: ValkeyServer, results: str) -> None:
        options = {"broker_url": url, "cache_url": cache.url, "result_url": results}
        self.url = url
        self.environ = persona_environ(**options) | BOUND
        self.nodes = [WorkerNode(**options, concurrency=3, name=f"rabbit{number}", environ=BOUND) for number in (1, 2)]
        self.client = PersonaClient(load_settings(self.environ))
        self.app: Celery = bare_app(url, results or "rpc://")

    def start(self) -> Rabbit:
        for node in self.nodes:
            node.start(wait=False)
        for node in self.nodes:
            node.wait_ready()
        return self

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        self.client.close()
        self.app.close()


@pytest.fixture
def rabbit(rabbit_url: str) -> Iterator[Rabbit]:
    with ValkeyServer() as cache, closing(Rabbit(rabbit_url, cache, cache.url_of(1))) as rabbit:
        yield rabbit.start()


def test_every_node_applies_an_invalidation(rabbit: Rabbit) -> None:
    """The exchange fans out, and no child serves the old value."""
    answers_of([send_plain(rabbit.app, REQUEST) for _ in range(40)])
    done = rabbit.client.invalidate("persona:lua:*", wait_s=5)
    assert (done.durable, len(done.applied), done.silent) == (True, 2, ())
    (first,) = answers_of([send_plain(rabbit.app, REQUEST)])
    assert first.cached == "no"


def test_a_message_that_cannot_be_read_is_refused_and_ends_no_worker(rabbit: Rabbit) -> None:
    """It is told in a node's log, the broker is told that it was refused, and the next task is answered."""
    unreadable: list[tuple[Any, dict[str, Any], str]] = [
        (b"\xff\xfe", {}, "application/json"),
        ("not json", {"task": "persona.process", "id": "unread-1"}, "application/json"),
        ("[[1], {}, {}]", {"task": "no.such.task", "id": "unread-2", "lang": "py"}, "application/json"),
        (b"x", {"task": "persona.process", "id": "unread-3"}, "application/x-python-serialize"),
        ("x" * 3_000_000, {"task": "persona.process", "id": "unread-4"}, "application/json"),
    ]
    with kombu.Connection(rabbit.url) as connection:
        producer = connection.Producer()
        for body, headers, kind in unreadable:
            producer.publish(
                body, exchange="persona", routing_key="persona", headers=headers, content_type=kind, content_encoding="utf-8"
            )
        refused = f"{len(unreadable)} messages were refused"
        until(lambda: sum(node.log().count("worker.message_refused") for node in rabbit.nodes) == len(unreadable), refused)
        (answer,) = answers_of([send_plain(rabbit.app, REQUEST)])
        assert answer.cached in ("no", "l1", "l2")
        waiting = connection.default_channel.queue_declare("persona", passive=True).message_count
    assert waiting == 0, "none comes again and again"


def test_without_a_redis_for_results_they_go_to_the_asking_process(rabbit_url: str) -> None:
    with ValkeyServer() as cache, closing(Rabbit(rabbit_url, cache, "")) as rabbit:
        rabbit.start()
        assert rabbit.client.ask("How do I end?", "calm-flowing-planning").cached == "no"
        rabbit.client.close()
        gc.collect()  # a connection that is left open would be told here


@pytest.mark.skipif(bool(missing()), reason=f"it stops a RabbitMQ of its own: {missing()}")
def test_the_broker_frozen_or_gone_holds_no_invalidation_up_and_hides_none() -> None:
    """It counts in the log at once, and says that no node was told. When the broker is back, nodes are told again."""
    with RabbitServer() as server, ValkeyServer() as cache, closing(Rabbit(server.url, cache, cache.url_of(1))) as rabbit:
        rabbit.start()
        client = rabbit.client
        assert client.invalidate("persona:lua:*", wait_s=10).announced
        server.freeze()
        done = client.invalidate("persona:lua:*")
        assert (done.durable, done.announced) == (True, False)
        server.thaw()
        until(lambda: len(client.invalidate("persona:lua:*", wait_s=2).applied) == 2, "both nodes are told again")
        server.stop()
        done = client.invalidate("persona:lua:*")
        assert (done.durable, done.announced) == (True, False)
        with pytest.raises(QueueUnavailableError):
            client.ask("Is anybody there?", "calm-flowing-planning", use_cache=False)
        server.start()
        until(lambda: len(client.invalidate("persona:lua:*", wait_s=2).applied) == 2, "both nodes are told again", bound_s=60)
        (answer,) = answers_of([send_plain(rabbit.app, REQUEST)])
        assert answer.cached == "no"


@pytest.mark.skipif(bool(missing()), reason=f"it looks at a RabbitMQ of its own: {missing()}")
def test_nothing_of_a_server_is_left() -> None:
    """Neither a process nor a file, also of the registry of names that a RabbitMQ otherwise leaves running."""
    with RabbitServer() as server:
        directory, children = server.directory, [child.pid for child in (server._server, server._registry) if child is not None]
        assert server.version()
        commands = " ".join(sessions(children))
        assert "beam" in commands
        assert "epmd" in commands
    assert not directory.exists()
    assert sessions(children) == []


def sessions(leaders: list[int]) -> list[str]:
    """The command lines of all processes of these sessions."""
    told = subprocess.run(["ps", "-o", "args=", "-s", ",".join(map(str, leaders))], capture_output=True, text=True, check=False)
    return told.stdout.splitlines()
