"""Fixtures for every test."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from leaks import LEAKS, leaving_nothing
from servers import NO_STACK, ValkeyServer

from pipeline.cache import locks
from pipeline.discovery import STACK_DIR

os.environ[STACK_DIR] = NO_STACK

# A run in the background of a script begins with these ignored, and so would every process that a test starts and stops.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)

# How long an example takes depends on what else the machine does: no test is timed.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="module", autouse=bool(os.environ.get(LEAKS)))
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """A module's tests leave no socket and no thread behind. Off unless asked for: it takes a tenth of a second a module."""
    if "valkey" in {name for item in request.session.items for name in getattr(item, "fixturenames", ())}:
        request.getfixturevalue("valkey")  # what it leaves is the session's
    with leaving_nothing() as left:
        yield
    assert not left, f"{request.node.nodeid} left behind:\n" + "\n".join(left)


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """One real server for the whole run. A test that stops, freezes or flushes one makes its own `ValkeyServer`."""
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def namespace() -> str:
    """A cache namespace that no other test uses: tests share the server, never keys."""
    return f"test-{uuid.uuid4().hex[:16]}"


@pytest.fixture
def redis_url(valkey: ValkeyServer) -> str:
    """The shared server's URL, database 0. Keep to your own `namespace` there."""
    return valkey.url


@pytest.fixture
def own_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that ask at each line whether it is inside a lock: only this test's locks are looked at. What ran before in this
    process may have left hundreds."""
    monkeypatch.setattr(locks, "_living", set())
