"""Outcomes in Redis: as Celery's own backend writes them, in one exchange, and a success once and for all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import pytest
import redis
from celery import states
from celery.app.task import Context
from celery.backends.redis import RedisBackend
from celery.exceptions import BackendStoreError
from servers import ValkeyServer

from pipeline.settings import load_settings
from workers.queue.factory import PersonaApp, make_app
from workers.queue.outcomes.store import BATCH, OutcomeStore, Success

TTL_S = 600
ANSWER = {"content": '큰 문제를 "작게" 나눠요. \u2028 <b>', "persona": "Lua", "elapsed_ms": 1.25, "hit": True, "none": None}
CHILDLESS = {"group": None, "parent_id": None}


class Kit(NamedTuple):
    """The store, Celery's own beside it, and what is on the server."""

    app: PersonaApp
    ours: OutcomeStore
    stock: RedisBackend
    client: redis.Redis

    def kept(self, task_id: str) -> Any:
        return json.loads(self.client.get(f"celery-task-meta-{task_id}") or "null")


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def kit(server: ValkeyServer) -> Iterator[Kit]:
    environ = {"PERSONA_BROKER_URL": server.url, "PERSONA_RESULT_URL": server.url, "PERSONA_RESULT_TTL_S": str(TTL_S)}
    with closing(make_app(load_settings(environ))) as app, server.client() as client:
        ours, stock = app.backend, RedisBackend(app=app, url=server.url)
        assert type(ours) is OutcomeStore
        yield Kit(app, ours, stock, client)
        for backend in (ours, stock):
            backend.client.connection_pool.disconnect()


def undated(kept: bytes | None) -> str:
    return re.sub(r'"date_done": "[^"]*"', '"date_done": ""', (kept or b"").decode())


@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")  # by Celery's own backend
@pytest.mark.parametrize("state", [states.SUCCESS, states.FAILURE, states.RETRY, states.REVOKED])
@pytest.mark.parametrize("fields", [CHILDLESS, {"group": "g-1", "parent_id": "p-1"}])
def test_it_writes_and_publishes_the_bytes_that_celery_writes(kit: Kit, state: str, fields: dict[str, Any]) -> None:
    """Callers in any language, and workers without this package, read them alike."""
    result = ANSWER if state == states.SUCCESS else ValueError("no")
    traceback = None if state == states.SUCCESS else "Traceback"
    seen = []
    for backend in (kit.stock, kit.ours):
        with kit.client.pubsub(ignore_subscribe_messages=True) as heard:
            heard.subscribe("celery-task-meta-t")
            heard.get_message(timeout=5)  # the subscription
            backend.store_result("t", result, state, traceback=traceback, request=Context(id="t", **fields))
            published = heard.get_message(timeout=5)["data"]
        seen.append((undated(kit.client.get("celery-task-meta-t")), undated(published), kit.client.ttl("celery-task-meta-t")))
        kit.client.flushall()
    assert seen[0] == seen[1]
    assert seen[1][2] == TTL_S
    assert f'"status": "{state}"' in seen[1][0]


@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")  # by Celery's own backend
@pytest.mark.parametrize("fields", [CHILDLESS, {"group": "g-1", "parent_id": "p-1"}])
def test_a_success_of_a_batch_reads_as_one_that_celery_has_written(kit: Kit, fields: dict[str, Any]) -> None:
    """Key for key, of the same types; the answer is handed on as it was encoded."""
    kit.stock.store_result("t", ANSWER, states.SUCCESS, request=Context(id="t", **fields))
    ids = {"group_id": fields["group"], "parent_id": fields["parent_id"]}
    assert kit.ours.store_successes([Success("u", json.dumps(ANSWER).encode(), **ids)]) == 1
    theirs, ours = kit.kept("t"), kit.kept("u")
    assert (theirs.pop("task_id"), ours.pop("task_id")) == ("t", "u")
    dates = [outcome.pop("date_done") for outcome in (theirs, ours)]
    assert [re.sub(r"\d", "0", date) for date in dates] == ["0000-00-00T00:00:00.000000+00:00"] * 2
    assert ours == theirs
    assert list(ours) == list(theirs)
    assert kit.client.ttl("celery-task-meta-u") == TTL_S
    assert kit.stock.get_result("u") == ANSWER


@pytest.mark.parametrize(
    "kept",
    [
        '{"status": "SUCCESS", "result": 1}',
        '{"status":"SUCCESS","result":1}',
        '{"task_id": "t", "result": 1, "status": "SUCCESS"}',
    ],
)
def test_a_success_is_never_overwritten_nor_told_again(kit: Kit, kept: str) -> None:
    """Whoever has written it: a caller may have read it."""
    kit.client.set("celery-task-meta-t", kept)
    with kit.client.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe("celery-task-meta-t")
        heard.get_message(timeout=5)
        kit.ours.store_result("t", ValueError("late"), states.FAILURE)
        assert kit.ours.store_successes([Success("t", b"2"), Success("u", b"2"), Success("t", b"3")]) == 1
        assert heard.get_message(timeout=0.05) is None
    assert kit.client.get("celery-task-meta-t") == kept.encode()
    assert kit.kept("u")["result"] == 2


@pytest.mark.parametrize(
    "kept",
    [
        '{"status": "RETRY", "result": {"status": "SUCCESS"}}',
        '{"status": "FAILURE", "result": {"exc_message": ["{\\"status\\": \\"SUCCESS\\"}"]}}',
        '["SUCCESS"]',
        "no JSON",
    ],
)
def test_whatever_else_is_kept_makes_way_for_an_outcome(kit: Kit, kept: str) -> None:
    """A task that was tried again, or that failed in one of two runs, may succeed yet."""
    kit.client.set("celery-task-meta-t", kept)
    kit.ours.store_result("t", ANSWER, states.SUCCESS)
    assert kit.kept("t")["result"] == ANSWER


def test_many_outcomes_take_one_exchange(kit: Kit) -> None:
    """One call of the script for BATCH of them, also on a server that does not know the script yet."""
    kit.ours.store_successes([Success("t", b"{}")])  # connects
    kit.client.script_flush()
    kit.client.config_resetstat()
    count = BATCH + 1
    assert kit.ours.store_successes([Success(f"t-{number}", b"{}") for number in range(count)]) == count
    calls = {name.removeprefix("cmdstat_"): stats["calls"] for name, stats in kit.client.info("commandstats").items()}
    del calls["config|resetstat"]
    inside = dict.fromkeys(("get", "setex", "publish"), count)
    assert calls == {"evalsha": 2, "eval": 1, **inside}


def test_a_batch_that_cannot_be_stored_raises_and_may_be_stored_again(kit: Kit) -> None:
    """Its caller has another way for those tasks."""
    batch = [Success(f"t-{number}", b"{}") for number in range(3)]
    kit.client.config_set("maxmemory", 1)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        kit.ours.store_successes(batch)
    kit.client.config_set("maxmemory", 0)
    assert kit.ours.store_successes(batch) == 3
    assert kit.ours.store_successes(batch) == 0


def test_outside_of_a_task_the_wait_is_short_and_a_state_on_the_way_is_dropped(kit: Kit) -> None:
    """A main process has a queue to serve. Nobody waits for RETRY; a lost outcome is an error."""
    kit.app.conf.result_backend_transport_options = {"retry_policy": {"timeout": 0.2}}
    kit.client.config_set("maxmemory", 1)
    kit.ours.store_result("t", ValueError("again"), states.RETRY)
    with pytest.raises(BackendStoreError, match="OutOfMemoryError"):
        kit.ours.store_result("t", ANSWER, states.SUCCESS)
    assert kit.kept("t") is None


@pytest.mark.parametrize(
    ("result_url", "store"), [("redis://127.0.0.1:1/1", True), ("rediss://127.0.0.1:1/1", True), ("rpc://", False)]
)
def test_only_results_in_redis_are_kept_by_it(result_url: str, store: bool) -> None:
    """Those of rpc:// are messages."""
    settings = load_settings({"PERSONA_BROKER_URL": "amqp://127.0.0.1:1", "PERSONA_RESULT_URL": result_url})
    with closing(make_app(settings)) as app:
        assert isinstance(app.backend, OutcomeStore) is store
        assert app.conf.result_backend == result_url
