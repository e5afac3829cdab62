"""The broadcast on a real RabbitMQ: one of its own where it is installed, or the one that `TEST_AMQP_URL` names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from celery import Celery
from fleet import WorkerNode, answers_of, bare_app, persona_environ, send_plain
from servers import ValkeyServer

from pipeline.models import PersonaRequest
from pipeline.settings import load_settings
from workers.client import PersonaClient

pytestmark = pytest.mark.long
REQUEST = PersonaRequest.create("How do I begin?", "frustrated-burst-seek_advice")


@pytest.fixture
def rabbit(rabbit_url: str) -> Iterator[tuple[PersonaClient, Celery]]:
    """Two nodes of three children on RabbitMQ, with a bound so long that the lease plays no part; a client, and a foreign
    program's app."""
    with ValkeyServer() as cache:
        results = cache.url_of(1)
        bound = {"PERSONA_STALENESS_BOUND_S": "60"}
        options = {"broker_url": rabbit_url, "cache_url": cache.url, "result_url": results}
        nodes = [WorkerNode(**options, concurrency=3, name=f"rabbit{number}", environ=bound) for number in (1, 2)]
        try:
            for node in nodes:
                node.start()
            with (
                PersonaClient(load_settings(persona_environ(**options) | bound)) as client,
                closing(bare_app(rabbit_url, results)) as app,
            ):
                yield client, app
        finally:
            for node in nodes:
                node.close()


def test_every_node_applies_an_invalidation(rabbit: tuple[PersonaClient, Celery]) -> None:
    """The exchange fans out, and no child serves the old value."""
    client, app = rabbit
    answers_of([send_plain(app, REQUEST) for _ in range(40)])
    done = client.invalidate("persona:lua:*", wait_s=5)
    assert (done.durable, len(done.applied), done.silent) == (True, 2, ())
    (first,) = answers_of([send_plain(app, REQUEST)])
    assert first.cached == "no"
