"""A worker, its client and beat with every server behind TLS, in each spelling of the URL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing

import pytest
from fleet import WorkerNode, persona_environ
from front import TlsFront
from redbeat.schedulers import get_redis
from servers import ValkeyServer

from pipeline.settings import load_settings
from workers.client import PersonaClient
from workers.queue.factory import make_app

PASSWORD = "s3cret"
KEY = "calm-medium-learning"


@pytest.fixture(scope="module")
def front() -> Iterator[TlsFront]:
    """TLS before a server with a password: the broker's database is 0, that of the results 1, the cache's 2."""
    with ValkeyServer(password=PASSWORD, keep_on_disk=True) as server, TlsFront(server.port) as front:
        yield front


@pytest.mark.parametrize("said", [pytest.param("", marks=pytest.mark.long), "&ssl_cert_reqs=CERT_REQUIRED"])
@pytest.mark.parametrize("named", [True, False], ids=["results named", "results beside the queue"])
def test_a_worker_behind_tls_answers_and_forgets(front: TlsFront, said: str, named: bool) -> None:
    """The certificate is checked whether the URL says so or not; results beside the queue are behind TLS as it is."""
    broker, results, cache = (front.url_of(database, PASSWORD) + said for database in range(3))
    environ = persona_environ(broker_url=broker, result_url=results if named else "", cache_url=cache)
    environ["PERSONA_CACHE_NAMESPACE"] = uuid.uuid4().hex  # the nodes of the others, which were killed, are still waited for
    settings = load_settings(environ)
    with WorkerNode(broker_url=broker, environ=environ, concurrency=1) as node, PersonaClient(settings) as client:
        question = f"How do I begin, {named}{said}?"
        assert client.submit(question, KEY).result(20).cached == "no"
        assert client.ask(question, KEY, timeout_s=20).cached in ("l1", "l2")
        done = client.invalidate("persona:*", wait_s=5)
        assert (done.durable, done.applied, done.silent) == (True, (node.name,), ())
    with closing(make_app(settings)) as app:
        assert get_redis(app).ping(), "the schedule of beat lies there, too"
