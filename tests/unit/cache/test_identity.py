"""Which node is meant: ids that never meet, and names that people read."""

from __future__ import annotations

import pytest

from pipeline.cache.coherence.identity import name_of, node_id, shown_nodes


def test_workers_of_one_name_and_pid_are_two() -> None:
    """Containers that share the host's name have a pid 1 each."""
    ids = {node_id("celery@host", 1) for _ in range(8)}
    assert len(ids) > 4
    assert {name_of(each) for each in ids} == {"celery@host"}


@pytest.mark.parametrize(
    ("nodes", "shown"),
    [
        (["a@h/1-0000", "b@h/1-0000"], ["a@h", "b@h"]),
        (["a@h/1-0000", "a@h/2-0000", "b@h/1-0000"], ["a@h/1", "a@h/2", "b@h"]),
        (["a@h/1-0000", "a@h/1-0001", "a@h/2-0000"], ["a@h/1-0000", "a@h/1-0001", "a@h/2"]),
        (["a@h", "a@h/1-0000"], ["a@h", "a@h/1"]),  # of an older release
        (["a/b@h/1-0000"], ["a/b@h"]),
        ([], []),
    ],
)
def test_people_are_told_as_much_as_tells_nodes_apart(nodes: list[str], shown: list[str]) -> None:
    """The name where that will do; never one text for two nodes."""
    told = shown_nodes(nodes)
    assert [told[node] for node in nodes] == shown
    assert len(set(told.values())) == len(nodes)
