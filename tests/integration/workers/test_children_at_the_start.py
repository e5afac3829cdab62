"""What has become of a node's children between its fork and its first message: for as long as its broker is away."""

from __future__ import annotations

import pytest
from fleet import Fleet, WorkerNode
from polling import until

CONCURRENCY = 2


def started_without_broker(fleet: Fleet, app: str) -> WorkerNode:
    fleet.broker.kill()
    node = fleet.add_node(wait=False, app=app)
    until(lambda: not node.running or "Cannot connect" in node.log(), "it has forked, and looks for its broker", bound_s=60)
    assert node.running, node.log()
    return node


@pytest.mark.parametrize("killed", [1, CONCURRENCY])
def test_children_that_are_killed_meanwhile_are_replaced(killed: int) -> None:
    with Fleet(nodes=0, concurrency=CONCURRENCY) as fleet:
        node = started_without_broker(fleet, "workers")
        first = node.pids
        assert len(first) == CONCURRENCY
        for pid in first[:killed]:
            node.kill_child(pid)
        fleet.broker.start()
        node.wait_ready()
        until(lambda: len(node.pids) == CONCURRENCY, "they are replaced")
        assert not set(first[:killed]) & set(node.pids)
        assert fleet.ask_plain("hello", "calm-flowing-planning").content
        assert f"worker.children_replaced: {killed} had been killed" in node.log()


def test_children_that_end_by_themselves_end_the_node() -> None:
    with Fleet(nodes=0, concurrency=CONCURRENCY) as fleet:
        node = started_without_broker(fleet, "failing_children")
        fleet.broker.start()
        until(lambda: not node.running, "the node has ended", bound_s=60)
        assert node.exit_code == 1
        assert "Could not start worker processes" in node.log()
