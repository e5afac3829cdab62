"""The benchmark `deaths`: it fails where a task is lost, or comes back late."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import redis
from fleet import persona_environ
from polling import until
from servers import ValkeyServer

from benchmarks.kit.callers import KINDS, META, Asked, Callers
from benchmarks.kit.deaths import MOST_BACK_S, MOST_RETURNED_S, Death, judge, returned
from benchmarks.measures.deaths import QUICK
from benchmarks.registry import all_benchmarks
from pipeline.settings import load_settings
from workers.node.consumer import LOST


@pytest.mark.long
def test_what_a_dead_node_had_is_answered_by_another_and_nothing_is_lost() -> None:
    """It fails by itself where that is not so. How much the stock way loses is chance."""
    command = [sys.executable, "-m", "benchmarks", "deaths", "--quick", "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)["figures"]
    assert (figures["kills"], figures["stock_kills"], figures["freezes"]) == (QUICK.kills, QUICK.stock_kills, QUICK.freezes)
    assert figures["sent"] > 0
    assert figures["broken_connections"] > 0
    assert {"returned_max_s", "frozen_returned_max_s"} <= set(figures) or not figures["claimed"]
    view = all_benchmarks()["deaths"].view
    assert view is not None
    assert view(figures).tables


@pytest.fixture
def callers() -> Any:
    """Callers that send nothing by themselves: the test is the only worker, and gives them their answers to begin with."""
    with ValkeyServer() as server:
        settings = load_settings(persona_environ(broker_url=server.url))
        callers = Callers(settings, hits_per_s=50, slow_per_s=5)
        with server.client() as broker, redis.Redis.from_url(server.url_of(1)) as results:
            callers._fill = lambda: None  # type: ignore[method-assign]
            with callers:
                assert callers._listening.wait(10)
                yield callers, broker, results


def tell(results: Any, task_id: str, outcome: dict[str, Any], *, stored: bool = True, published: bool = True) -> None:
    payload = json.dumps({"task_id": task_id, **outcome})
    if stored:
        results.set(f"{META}{task_id}", payload)
    if published:
        results.publish(f"{META}{task_id}", payload)


def test_each_outcome_is_seen_for_what_it_is(callers: Any) -> None:
    """Published, published twice, only stored, stored otherwise than published, failed by the rule, failed, wrong, or none."""
    each, broker, results = callers
    with each.load("x"):
        until(lambda: sum(bool(asked.sent_s) for asked in list(each.asked.values())) >= 8, "eight are sent")
    ids = list(each.asked)
    assert broker.llen("persona") == len(ids)
    success = [{"status": "SUCCESS", "result": {"content": each.asked[task_id].content}} for task_id in ids]
    tell(results, ids[0], success[0])
    tell(results, ids[1], success[1])
    tell(results, ids[1], success[1])
    tell(results, ids[2], success[2], published=False)
    tell(results, ids[3], success[3])
    tell(results, ids[3], success[3] | {"date_done": "later"}, published=False)
    tell(results, ids[4], {"status": "FAILURE", "result": {"exc_type": "WorkerLostError", "exc_message": [LOST]}})
    tell(results, ids[5], {"status": "FAILURE", "result": {"exc_type": "ValueError", "exc_message": ["x"]}})
    tell(results, ids[6], {"status": "SUCCESS", "result": {"content": "another's"}})
    tell(results, ids[7], {"status": "RETRY", "result": {"exc_type": "ValueError", "exc_message": ["x"]}})
    until(lambda: each.asked[ids[6]].answered_s and each.asked[ids[1]].outcomes == 2, "all are heard of")
    each.await_answers("x", 0.1)
    tally = each.tally("x")
    assert (tally.sent, tally.lost) == (len(ids), len(ids) - 7)
    assert (tally.failed, tally.buried, tally.wrong, tally.twice) == (2, 1, 1, 2)


def test_the_callers_send_hits_and_new_questions(callers: Any) -> None:
    """Each new question is asked once."""
    each, _, _ = callers
    with each.load("x"):
        until(lambda: len(each.asked) > 2 * KINDS + 5, "some are sent")
    contents = [asked.content for asked in each.asked.values()]
    hits = [content for content in contents if content in each._contents]
    assert len(set(hits)) == KINDS
    others = [content for content in contents if content not in each._contents]
    assert len(set(others)) == len(others) > 0


# -- its judgement


def asked(answered_s: float) -> Asked:
    made = Asked("killed", "")
    made.sent_s, made.answered_s = 1.0, answered_s
    return made


def test_a_return_counts_from_the_last_death_and_only_what_was_unanswered() -> None:
    """What a node had answered and not yet acknowledged did not have to come back."""
    tasks = {"once": asked(22.0), "twice": asked(40.0), "before": asked(9.0), "never": asked(0.0)}
    deaths = [Death(10.0, ("once", "twice", "before", "never")), Death(30.0, ("twice", "never", "a stranger's"))]
    assert returned(tasks, deaths) == ([12.0, 10.0], 1)


RIGHT = {"lost": 0, "failed": 2, "buried": 2, "wrong": 0, "committed_twice": 0, "returned_max_s": 13.0, "stock_lost": 7}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"lost": 1}, "lost: 1 tasks were lost"),
        ({"restart_lost": 2}, "restart_lost: 2 tasks were lost"),
        ({"frozen_wrong": 1}, "frozen_wrong: 1 answers were wrong"),
        ({"committed_twice": 1}, "committed_twice: 1 tasks had a second outcome"),
        ({"failed": 3}, "failed: 1 tasks failed that were not with three dead nodes"),
        ({"broken_failed": 1}, "broken_failed: 1 tasks failed"),
        ({"restart_exits": 1}, "restart_exits: 1 nodes ended by themselves"),
        ({"results_frozen_lost": 1}, "results_frozen_lost: 1 tasks were lost"),
        ({"full_exits": 1}, "full_exits: 1 nodes ended by themselves"),
        ({"restart_back_max_s": 6.5}, f"restart_back_max_s: 6.5 s until a task was answered; the bound is {MOST_BACK_S:g} s"),
        ({"returned_max_s": 16.0}, f"returned_max_s: 16.0 s from a death to an answer; the bound is {MOST_RETURNED_S:g} s"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_as_it_must_be_fails_the_run(changes: dict[str, float], problem: str) -> None:
    """What the stock way loses does not."""
    assert judge(RIGHT) == []
    assert judge(RIGHT | changes) == [problem]
