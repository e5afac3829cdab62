"""The settings of Celery: each is one that Celery knows, and the queues are those that are declared."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery.app.defaults import NAMESPACES, flatten
from celery.backends.redis import RedisBackend
from celery.exceptions import QueueNotFound
from fleet import ROOT, Fleet
from kombu.transport.redis import Channel
from polling import until
from redbeat.schedulers import RedBeatConfig

from benchmarks.kit.endpoint import Fault
from pipeline.settings import load_settings
from workers.queue.celery_settings import celery_settings
from workers.queue.factory import make_app

CELERY = celery_settings(load_settings({}))

QUEUES = {"persona", "persona.bulk", "maintenance", "celery"}

# What Celery reads though its own table does not have it, and where.
ELSEWHERE: dict[str, Any] = {"redis_backend_health_check_interval": RedisBackend}


def test_every_setting_is_one_that_celery_or_redbeat_knows() -> None:
    """Celery silently ignores a mistyped name: the default would hold, without a sign."""
    known = {name for name, _ in flatten(NAMESPACES)}
    known |= {name for name, where in ELSEWHERE.items() if name in inspect.getsource(where)}
    redbeat = set(inspect.signature(RedBeatConfig).parameters) | set(inspect.getsource(RedBeatConfig).split("'"))
    unknown = [name for name in CELERY if name not in known and name not in redbeat]
    assert unknown == []


def test_every_option_of_the_transport_is_one_that_kombu_reads() -> None:
    """As above: kombu drops options that it does not know."""
    assert set(CELERY["broker_transport_options"]) <= set(Channel.from_transport_options)
    assert CELERY["broker_transport_options"], "there is something to check"


def test_a_worker_consumes_exactly_the_declared_queues(fleet: Fleet) -> None:
    """And nothing that it was not told to: no queue of its own that others could fill."""
    active = fleet.app.control.inspect([fleet.node.name]).active_queues()
    assert active is not None
    assert {queue["name"] for queue in active[fleet.node.name]} == QUEUES


@pytest.mark.parametrize("queue", sorted(QUEUES))
def test_each_declared_queue_is_answered(queue: str, fleet: Fleet, question: str) -> None:
    """A queue that is declared and not read is worse than none."""
    assert question in fleet.client.submit(question, "calm-flowing-planning", queue=queue).result(20).content


def test_a_task_for_a_queue_that_is_not_declared_fails_at_the_caller(fleet: Fleet) -> None:
    """A typing error is an exception at its caller, and not a list that no worker reads."""
    app = make_app(fleet.client.settings)
    try:
        with pytest.raises(QueueNotFound, match=r"persona\.bluk"):
            app.send_task("persona.process", args=[{}], queue="persona.bluk")
    finally:
        app.close()
    assert fleet.queued("persona.bluk") == 0


def test_a_worker_takes_and_gives_json_alone(fleet: Fleet) -> None:
    """Pickle runs what it reads: a program that may write to the broker could run any code in the worker."""
    conf = fleet.app.control.inspect([fleet.node.name]).conf()
    assert conf is not None
    shown = conf[fleet.node.name]
    for name in ("accept_content", "result_accept_content"):
        assert shown[name] == ["json"], name
    for name in ("task_serializer", "result_serializer", "event_serializer"):
        assert shown[name] == "json", name


def test_the_time_limits_leave_room_for_the_visibility_timeout() -> None:
    """A task that still runs must not come back to the queue: twice its hard limit has passed before it does."""
    assert CELERY["task_soft_time_limit"] < CELERY["task_time_limit"]
    assert CELERY["broker_transport_options"]["visibility_timeout"] > 2 * CELERY["task_time_limit"]


# -- what another program calls so

FOREIGN = "task_acks_late = False; task_default_queue = 'foreign'; task_time_limit = None; broker_url = 'redis://127.0.0.1:1/0'\n"
KINDS = ("file", "package", "variable", "address")
TELL = """
import json
from workers import celery as app
with app.connection_for_write() as write, app.connection_for_read() as read:
    brokers = [write.port, read.port, app.connection().port]
told = {name: app.conf[name] for name in ("task_acks_late", "task_default_queue", "task_time_limit")}
print(json.dumps([told, brokers, app.backend.as_uri(), sorted(app.amqp.queues)]))
"""


def foreign(kind: str, directory: Path) -> dict[str, str]:
    """Put it there; the variables that go with it."""
    if kind == "package":
        (directory / "celeryconfig").mkdir()
    name = {"package": "celeryconfig/__init__.py", "variable": "their_settings.py"}.get(kind, "celeryconfig.py")
    (directory / name).write_text(FOREIGN, encoding="utf-8")
    if kind == "variable":
        return {"CELERY_CONFIG_MODULE": "their_settings"}
    if kind == "address":
        return {"CELERY_BROKER_URL": "redis://127.0.0.1:1/0", "CELERY_RESULT_BACKEND": "redis://127.0.0.1:1/1"}
    return {}


def without_ours(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PERSONA_", "CELERY_", "PYTHON"))}
    return kept | more


def told_by(program: str, directory: Path, environ: dict[str, str]) -> Any:
    """The program's last line, decoded from JSON."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=directory, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_settings_that_another_program_left_do_not_replace_ours(kind: str, tmp_path: Path) -> None:
    """Whatever Celery itself would look for: in the working directory, by its variables, as a file or as a package."""
    own = {"PERSONA_BROKER_URL": "redis://127.0.0.1:2/0", "PYTHONPATH": str(ROOT)}
    told, brokers, results, queues = told_by(TELL, tmp_path, without_ours(**own, **foreign(kind, tmp_path)))
    assert told == {name: CELERY[name] for name in told}
    assert set(brokers) == {2}
    assert results == "redis://127.0.0.1:2/1"
    assert set(queues) == QUEUES


def test_beside_a_foreign_celeryconfig_a_child_that_is_killed_loses_no_task(tmp_path: Path, question: str) -> None:
    """README's command in a directory of the user's: late acknowledgement, our queues and limits are in force."""
    environ = {name: value for kind in ("file", "variable", "address") for name, value in foreign(kind, tmp_path).items()}
    with Fleet(nodes=0, environ={"PERSONA_LEASE_S": "0.5"}) as fleet:
        node = fleet.add_node(environ=environ, working_directory=tmp_path, concurrency=1)
        inspect_node = fleet.app.control.inspect([node.name])
        shown = inspect_node.conf()[node.name]
        assert {name: shown[name] for name in ("task_acks_late", "task_soft_time_limit", "task_time_limit")} == {
            "task_acks_late": True,
            "task_soft_time_limit": CELERY["task_soft_time_limit"],
            "task_time_limit": CELERY["task_time_limit"],
        }
        assert {queue["name"] for queue in inspect_node.active_queues()[node.name]} == QUEUES
        assert "CELERY_BROKER_URL" in node.log(), "the user is told that it is not obeyed"
        fleet.endpoint.script(Fault("hang"))
        ticket = fleet.client.submit(question, "calm-flowing-planning")
        until(lambda: fleet.endpoint.calls == 1, "the model is asked")
        fleet.endpoint.script(Fault())
        node.kill_child()
        assert question in ticket.result(30).content


FOREIGN_PROGRAM = """
import json, celery
app = celery.Celery()
told = [app.conf.task_default_queue, app.conf.beat_schedule, app.conf.beat_scheduler, app.conf.task_acks_late]
print(json.dumps(told))
"""


def test_what_is_installed_leaves_other_celery_programs_alone(tmp_path: Path) -> None:
    """Celery's default loader imports whatever is called `celeryconfig`: the wheel brings nothing of that name, and an
    unconfigured program beside it has Celery's own defaults, with any PERSONA_ variable of its own."""
    sources, installed = tmp_path / "sources", tmp_path / "installed"
    sources.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "celeryconfig.py", "persona_worker.py"):
        shutil.copy(ROOT / name, sources)
    for name in ("pipeline", "workers"):
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-compile"]
    subprocess.run([*command, "--target", str(installed), str(sources)], check=True, timeout=100, env=without_ours())
    brought = {path.stem for path in installed.iterdir() if path.suffix != ".dist-info"}
    assert brought == {"persona_worker", "pipeline", "workers", "bin"}
    environ = without_ours(PYTHONPATH=str(installed), PERSONA_ID="7")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert told_by(FOREIGN_PROGRAM, elsewhere, environ) == ["celery", {}, "celery.beat:PersistentScheduler", False]
    ours = told_by(TELL, elsewhere, without_ours(PYTHONPATH=str(installed)))
    assert ours[0]["task_acks_late"] is True
