"""Fleets and servers that several acceptance tests share, since a start costs half a second or more."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator

import pytest
from fleet import Fleet
from rabbit import RabbitServer, missing

from benchmarks.kit.endpoint import Fault


@pytest.fixture(scope="session")
def shared_fleet() -> Iterator[Fleet]:
    """One node with two pool children, for the whole run. Ask for `fleet` instead."""
    with Fleet() as fleet:
        yield fleet


@pytest.fixture
def fleet(shared_fleet: Fleet) -> Iterator[Fleet]:
    """The fleet for tests that stop, kill and freeze nothing. Ask it questions of your own: see `question`."""
    shared_fleet.endpoint.script(Fault())
    seen = len(shared_fleet.node.log())
    yield shared_fleet
    sys.stdout.write(shared_fleet.node.log()[seen:])  # shown when the test has failed
    shared_fleet.endpoint.script(Fault())


@pytest.fixture
def question() -> str:
    """A question that was never asked before."""
    return f"What do I do about {uuid.uuid4().hex}?"


@pytest.fixture(scope="session")
def rabbit_url() -> Iterator[str]:
    """A RabbitMQ for the whole run: the one that `TEST_AMQP_URL` names, or one of its own. A test has names of its own there,
    or the vhost to itself while it runs."""
    if named := os.environ.get("TEST_AMQP_URL"):
        yield named
    elif reason := missing():
        pytest.skip(f"TEST_AMQP_URL names no RabbitMQ, and none can be begun: {reason}")
    else:
        with RabbitServer() as server:
            yield server.url
