"""Two workers of one name, as README's command starts them on one host: two nodes, for everything that tells nodes apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
import redis
from fleet import Fleet
from polling import until

from pipeline.cache.keys import KeySpace
from pipeline.cache.server.connection import RedisConnection
from pipeline.figures import FleetFigures, read_figures
from pipeline.figures.keys import FigureKeys
from pipeline.settings import load_settings

KEY = "calm-flowing-planning"
WAIT_S = 5.0


@pytest.fixture(scope="module")
def twins() -> Iterator[Fleet]:
    with Fleet(nodes=0, concurrency=1) as fleet:
        for _ in range(2):
            fleet.add_node(name="celery", wait=False)
        for node in fleet.nodes:
            node.wait_ready()
        yield fleet


@contextmanager
def figures_of(fleet: Fleet) -> Iterator[RedisConnection]:
    with closing(RedisConnection(fleet.cache.url, timeout_s=5)) as connection:
        yield connection


def read(connection: RedisConnection, fleet: Fleet) -> FleetFigures:
    return read_figures(connection, FigureKeys(load_settings(fleet.environ).cache_namespace))


def reached(connection: RedisConnection, fleet: Fleet, pattern: str) -> set[str]:
    made = [made for made in read(connection, fleet).invalidations if made.patterns == (pattern,)]
    return {applied.node for each in made for applied in each.reach}


def test_a_frozen_twin_is_silent_by_its_own_name(twins: Fleet) -> None:
    """The other one has applied it, and does not speak for both."""
    frozen, other = (f"{node.name}/{node.pid}" for node in twins.nodes)
    until(lambda: set(twins.client.invalidate("routing:*", wait_s=WAIT_S).applied) == {frozen, other}, "both apply it")
    twins.nodes[0].freeze()
    try:
        done = twins.client.invalidate("persona:lua:*", wait_s=0.5)
        assert (done.applied, done.silent) == ((other,), (frozen,))
    finally:
        twins.nodes[0].thaw()


def test_the_figures_tell_twins_apart(twins: Fleet) -> None:
    """Each with its own processes; and an invalidation says which of them have applied it."""
    names = {f"{node.name}/{node.pid}" for node in twins.nodes}
    with figures_of(twins) as connection:
        until(lambda: sum(len(node.processes) for node in read(connection, twins).nodes if node.alive) == 4, "all report")
        assert twins.client.invalidate("prompt:*", wait_s=WAIT_S).silent == ()
        until(lambda: reached(connection, twins, "prompt:*") == names, "both have told that they applied it")
        figures = read(connection, twins)
        for node in (node for node in figures.nodes if node.alive):
            main, worker = node.processes
            assert (main.role, worker.role) == ("main", "worker")
            assert node.name == f"{node.name.partition('/')[0]}/{main.pid}"
        assert {node.name for node in figures.nodes if node.alive} == names


def test_a_worker_that_was_stopped_is_waited_for_no_longer(twins: Fleet) -> None:
    """But for a staleness bound, in which its last children might serve. Then the other has its name for itself."""
    keys = KeySpace(load_settings(twins.environ).cache_namespace)
    with closing(redis.Redis.from_url(twins.cache.url)) as client:
        client.zrem(keys.nodes, "")  # the list of nodes is old enough to have forgotten none
    assert twins.nodes[0].stop()
    until(lambda: not twins.client.invalidate("routing:*", wait_s=0.3).silent, "it is not waited for", bound_s=15)
    assert twins.client.invalidate("routing:*", wait_s=WAIT_S).applied == (twins.nodes[1].name,)
