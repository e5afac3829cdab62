"""Which tasks nodes say that they know, and for how long they are believed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from servers import ValkeyServer

from workers.node.fetch.claims import KNOWN_MS, TASKS, Claims


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[Any]:
    with valkey.client() as client:
        client.delete(TASKS)
        yield client
        client.delete(TASKS)


def test_a_node_knows_what_another_one_has_named(client: Any) -> None:
    new, old = Claims(client, "new"), Claims(client, "old")
    assert not old.is_known("app.tomorrow")
    new.name_tasks(["app.tomorrow", "app.today"])
    assert old.is_known("app.tomorrow")
    assert not old.is_known("app.never")
    assert not old.is_known("")


def test_a_release_that_has_gone_is_forgotten(client: Any) -> None:
    node = Claims(client, "node")
    node.name_tasks(["app.yesterday", "app.today"])
    client.zincrby(TASKS, -KNOWN_MS - 1, "app.yesterday")
    assert not node.is_known("app.yesterday")
    node.name_tasks(["app.today"])
    assert client.zrange(TASKS, 0, -1) == [b"app.today"]
