"""Which programs tell the nodes of an invalidation, and which nodes: programs with and without a client, fleets that share a
broker."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet, captured_events
from polling import until
from servers import NO_STACK

from benchmarks.kit.nodes import own_environment
from pipeline.settings import load_settings
from workers.client import PersonaClient
from workers.queue.broadcast import TASK

PROGRAM = """
    import json, sys, time
    from pipeline import get_optimized_pipeline, invalidate_cache

    pipeline = get_optimized_pipeline()
    pipeline.process("How do I begin?", "calm-flowing-planning")
    assert "celery" not in sys.modules, "who only asks loads no queue's client"
    began_s = time.monotonic()
    told = [pipeline.invalidate("way:1", wait_s=10)._asdict(), pipeline.cache.invalidate("way:2", wait_s=10)._asdict()]
    pipeline.invalidate_cache_pattern("way:3")
    invalidate_cache("way:4")(lambda: None)()
    print(json.dumps([told, time.monotonic() - began_s]))
"""


def run(environ: Mapping[str, str], directory: Path) -> Any:
    """The log of a program that uses the pipeline alone, on its invalidations."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        cwd=directory,
        env={**own_environment(), "PERSONA_STACK_DIR": NO_STACK, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def hosts_told(events: list[dict[str, Any]], pattern: str) -> set[str]:
    """The nodes that have applied a notice with this pattern, as Flower is told."""
    of_tasks = [event for event in events if event["type"] == "task-received" and event["name"] == TASK]
    return {event["hostname"] for event in of_tasks if pattern in event["args"]}


def test_a_program_without_a_client_tells_the_nodes(fleet: Fleet, tmp_path: Path) -> None:
    """It has the broker's address: it announces and waits as a client does, whichever way it invalidates, and loses no notice
    when it ends."""
    with captured_events(fleet.app) as events:
        told, _ = run(fleet.environ, tmp_path)
        for way in range(1, 5):
            until(lambda: hosts_told(events, f"way:{way}") == {fleet.node.name}, f"way {way}")  # noqa: B023 - called at once
    for done in told:
        assert (done["durable"], done["announced"]) == (True, True)
        assert (done["applied"], done["silent"]) == ([fleet.node.name], [])


def test_a_program_that_knows_no_broker_says_that_it_told_nobody(fleet: Fleet, tmp_path: Path) -> None:
    """An empty `silent` is no success then: `announced` tells. The call waits for no node."""
    told, took_s = run({"PERSONA_CACHE_URL": fleet.cache.url}, tmp_path)
    assert [(done["durable"], done["announced"], done["applied"]) for done in told] == [(True, False, [])] * 2
    assert took_s < 5


@pytest.fixture(scope="module")
def two_fleets() -> Iterator[Fleet]:
    """Two nodes on one broker and one cache server, each of a namespace of its own."""
    with Fleet(nodes=0, concurrency=1, environ={"PERSONA_STALENESS_BOUND_S": "30"}) as fleet:
        for namespace in ("persona", "other.one"):
            fleet.add_node(wait=False, environ={"PERSONA_CACHE_NAMESPACE": namespace})
        for node in fleet.nodes:
            node.wait_ready()
        yield fleet


def test_fleets_of_two_namespaces_on_one_broker_do_not_hear_each_other(two_fleets: Fleet) -> None:
    """Each hears its own notices, within its own time; the other's are not even counted."""
    ours, theirs = two_fleets.nodes
    with (
        captured_events(two_fleets.app) as events,
        PersonaClient(load_settings(two_fleets.environ | theirs.environ)) as their_client,
    ):
        for client, node in ((two_fleets.client, ours), (their_client, theirs)):
            done = client.invalidate(f"of:{node.name}", wait_s=10)
            assert (done.applied, done.silent) == ((node.name,), ())
    for node in (ours, theirs):
        assert hosts_told(events, f"of:{node.name}") == {node.name}
        assert "cache.notice_dropped" not in node.log()


def test_an_invalidation_that_redis_does_not_keep_stays_in_its_fleet(two_fleets: Fleet) -> None:
    """It is in no log that could tell whose it is: the other fleet's entries stay."""
    ours, theirs = two_fleets.nodes
    with captured_events(two_fleets.app) as events:
        two_fleets.cache.freeze()
        try:
            done = two_fleets.client.invalidate("persona:*")
            assert not done.durable
            until(lambda: hosts_told(events, "persona:*") == {ours.name}, "our node has heard of it")
        finally:
            two_fleets.cache.thaw()
    assert theirs.name not in hosts_told(events, "persona:*")
