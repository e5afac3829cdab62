"""Which silent nodes a beat tells of: all that have something to give back, however many have come and gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from servers import ValkeyServer

from workers.node.fetch.claims import FORGET_MS, NODES, SILENT_MS, Claims, sources_of

QUEUE = "tasks"


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[Any]:
    with valkey.client() as client:
        client.flushdb()
        yield client
        client.flushdb()


def silent(client: Any, name: str, *, claims: int = 0, for_ms: int = SILENT_MS + 1) -> Claims:
    """A node that claimed so many and was not heard of since."""
    node = Claims(client, name)
    node.beat([QUEUE])
    for number in range(claims):
        client.lpush(QUEUE, json.dumps({"headers": {"id": number}, "properties": {"delivery_info": {}}}))
    assert len(node.exchange([], [QUEUE], 1, claims)) == claims
    client.zincrby(NODES, -for_ms, name)
    return node


def test_nodes_that_left_nothing_do_not_hide_one_that_did(client: Any) -> None:
    """Each restart of a node, and each lost connection, leaves a name for ten minutes."""
    for number in range(150):
        silent(client, f"gone{number}", for_ms=2 * SILENT_MS)
    silent(client, "dead", claims=1)
    living = Claims(client, "living")
    assert living.beat([QUEUE]).silent == ["dead"]
    assert living.recover("dead") == 1
    assert living.beat([QUEUE]).silent == []


def test_one_that_woke_and_died_is_found_again_at_once(client: Any) -> None:
    """That it had nothing a moment ago means nothing."""
    living = Claims(client, "living")
    silent(client, "twice", claims=1)
    assert (living.recover("twice"), living.recover("twice")) == (1, 0)
    assert len(living.exchange([], [QUEUE], 1, 1)) == 1
    silent(client, "twice", claims=1)
    assert living.beat([QUEUE]).silent == ["twice"]
    assert living.recover("twice") == 1


def test_one_without_claims_is_forgotten_in_the_end(client: Any) -> None:
    """With its keys. One with claims is not, however old."""
    living = Claims(client, "living")
    silent(client, "old", for_ms=FORGET_MS)
    silent(client, "older", claims=1, for_ms=2 * FORGET_MS)
    assert set(living.beat([QUEUE]).silent) == {"old", "older"}
    assert (living.recover("old"), living.recover("older"), living.recover("older")) == (0, 1, 0)
    assert client.zrange(NODES, 0, -1) == [b"living"]
    assert not client.exists(sources_of("old"), sources_of("older"))


def test_an_answer_that_comes_late_acknowledges_no_later_claim(client: Any) -> None:
    """Found by `tests/model/fetch`: a message that had come back before was taken for a stray while the answer was on its way,
    and claimed anew by the same node. The late answer's acknowledgement must not remove that claim."""
    client.lpush(QUEUE, json.dumps({"headers": {"id": 0}, "properties": {"delivery_info": {}}}))
    node = Claims(client, "node")
    for _ in range(2):
        late = node.exchange([], [QUEUE], 1, 1)
        assert node.give_back(late, redelivered=True) == 1
    assert len(node.exchange([], [QUEUE], 1, 1)) == 1
    node.exchange(late, [], 1, 0)
    assert len(node.kept(QUEUE)) == 1
