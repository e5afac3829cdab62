"""`persona doctor` over a real fleet, and over servers that do not answer. The table of planted faults is in tests/doctor/."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing

import pytest
import redis
from fleet import Fleet, persona_environ
from servers import NO_STACK, ValkeyServer, free_port

from benchmarks.kit.nodes import own_environment
from pipeline.discovery import STACK_DIR
from pipeline.settings import load_settings
from workers.doctor.judging import judge
from workers.doctor.observing import observe

BOUND_S = 60.0
OF_THIS_FLEET = {"cache: unbounded", "beat: none"}
"""It has no beat, and its cache no limit."""


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Of this module: others leave messages and programs behind in theirs."""
    with Fleet(concurrency=1) as fleet:
        yield fleet


def doctor(environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    given = {**own_environment(), STACK_DIR: NO_STACK, "COLUMNS": "80", "NO_COLOR": "1", **environ}
    command = [sys.executable, "-m", "workers.cli", "doctor", *arguments]
    return subprocess.run(command, env=given, capture_output=True, text=True, timeout=BOUND_S, check=False)


def test_the_doctor_says_what_is_wrong_with_a_fleet_and_changes_nothing(fleet: Fleet) -> None:
    """By the command, as an operator sees it: warnings alone are exit 0, and fit 80 columns."""
    with closing(redis.Redis.from_url(fleet.broker.url)) as queue, closing(redis.Redis.from_url(fleet.cache.url)) as entries:
        fleet.ask_plain(f"Is all well, {os.getpid()}?", "calm-flowing-planning")
        before = config_of(queue), config_of(entries)
        ended = doctor(fleet.environ)
        assert (config_of(queue), config_of(entries)) == before
    assert ended.returncode == 0, ended.stdout + ended.stderr
    named = {line.partition("  ")[2] for line in ended.stdout.splitlines() if line.startswith(("ERROR", "WARNING"))}
    assert named == OF_THIS_FLEET, ended.stdout
    assert max(len(line) for line in ended.stdout.splitlines() if "  mend  " not in line) <= 80
    assert ended.stdout.splitlines()[-1].startswith("2 warnings, of ")


def test_the_document_names_each_part_and_errors_are_exit_1(fleet: Fleet) -> None:
    """For programs: the nodes are other than the settings here."""
    ended = doctor({**fleet.environ, "PERSONA_STALENESS_BOUND_S": "5"}, "--json", "--timeout", "20")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    document = json.loads(ended.stdout)
    assert not document["healthy"]
    errors = [finding for finding in document["findings"] if finding["severity"] == "error"]
    assert [(finding["part"], finding["name"]) for finding in errors] == [("nodes", "bound")]
    assert fleet.node.name in errors[0]["seen"]
    assert {"broker", "results", "cache", "nodes", "log", "model"} <= set(document["parts"])


@pytest.mark.parametrize("options", [("--flower", "nowhere"), ("--timeout", "0"), ("--fail-on", "nothing")])
def test_options_that_do_not_fit_are_refused(options: tuple[str, ...]) -> None:
    """Before anything is asked."""
    assert doctor({}, *options).returncode == 2


def test_parts_that_do_not_answer_are_findings_and_do_not_stop_the_rest() -> None:
    """A frozen broker, a cache that is not there, a broker that is no Redis."""
    with ValkeyServer(keep_on_disk=True) as broker:
        broker.freeze()
        environ = persona_environ(broker_url=broker.url, cache_url=f"redis://127.0.0.1:{free_port()}/0")
        named = {
            f"{one.part}: {one.name}" for one in judge(observe(load_settings(environ), 2.0, f"http://127.0.0.1:{free_port()}"))
        }
        broker.thaw()
    assert {"broker: away", "cache: away", "flower: away"} <= named
    assert not {name for name in named if name.startswith(("queues", "coherence", "beat"))}
    environ = persona_environ(broker_url=f"amqp://127.0.0.1:{free_port()}//")
    named = {f"{one.part}: {one.name}" for one in judge(observe(load_settings(environ), 5.0))}
    assert {"nodes: unasked", "cache: none"} <= named


def config_of(client: redis.Redis) -> object:
    return client.config_get("*")
