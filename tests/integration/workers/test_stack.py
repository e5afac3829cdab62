"""The embedded stack: the services that it starts work, it names those that it cannot start, and nothing of it is left behind."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import stat
import sys
from contextlib import closing
from pathlib import Path

import pytest
import redis
from polling import BOUND_S, until
from servers import ValkeyServer
from supervised import alive, found, published, supervisor

from workers.stack import Stack, StackError, StackOptions, StackRunningError
from workers.stack.folder import StackFolder
from workers.stack.plan import make_plan
from workers.stack.servers.model import MODEL_ID, find_weights

SERVERS = ("broker", "cache")

needs_model = pytest.mark.skipif(find_weights() is None, reason="the local model is not installed")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child's life to its parent's")


def free_of_password(url: str) -> str:
    return url.replace(url.partition("://:")[2].partition("@")[0] + "@", "@").replace(":@", "")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / ".persona"


@pytest.fixture
def options(directory: Path) -> StackOptions:
    return StackOptions(services=SERVERS, directory=directory, environ={"PATH": os.environ["PATH"]})


def test_the_servers_answer_with_their_password_only(options: StackOptions) -> None:
    """Every program of the machine reaches a loopback port: a service there must ask for a password."""
    with Stack(options) as stack:
        for variable in ("PERSONA_BROKER_URL", "PERSONA_RESULT_URL", "PERSONA_CACHE_URL"):
            url = stack.info.environment[variable]
            with closing(redis.Redis.from_url(url)) as client:
                assert client.ping()
            with closing(redis.Redis.from_url(free_of_password(url))) as client:
                with pytest.raises(redis.AuthenticationError):
                    client.ping()
                with pytest.raises(redis.AuthenticationError):
                    client.auth("wrong")


def test_the_broker_never_evicts_and_keeps_and_the_cache_evicts_and_forgets(options: StackOptions) -> None:
    """An accepted task is not dropped for want of memory, and an entry never costs a disk write."""

    def config(url: str, *names: str) -> dict[str, str]:
        with closing(redis.Redis.from_url(url, decode_responses=True)) as client:
            return {name: str(client.config_get(name)[name]) for name in names}

    names = ("maxmemory-policy", "appendonly", "appendfsync", "maxmemory", "save")
    with Stack(options) as stack:
        broker = config(stack.info.environment["PERSONA_BROKER_URL"], *names)
        cache = config(stack.info.environment["PERSONA_CACHE_URL"], *names)
    assert broker == {
        "maxmemory-policy": "noeviction",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory": "0",
        "save": "",
    }
    assert (cache["maxmemory-policy"], cache["appendonly"], cache["maxmemory"], cache["save"]) == (
        "allkeys-lfu",
        "no",
        str(256 << 20),
        "",
    )


def test_only_the_user_may_read_the_state_and_no_command_line_shows_a_password(options: StackOptions, directory: Path) -> None:
    """`ps` shows command lines to every user of the machine, and stack.json holds every password."""
    with Stack(options):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / "stack.json").stat().st_mode) == 0o600
        state = json.loads((directory / "stack.json").read_bytes())
        assert state["version"] == 1
        assert state["pid"] == os.getpid()
        assert [service["name"] for service in state["services"]] == list(SERVERS)
        for service in state["services"]:
            assert alive(service["pid"])
            assert Path(service["log"]).is_file()
    assert not directory.exists()

    everything = StackOptions(directory=directory, environ=options.environ)
    folder = StackFolder(directory)
    folder.acquire()
    try:
        plan = make_plan(everything, folder)
        assert {"broker", "cache", "worker", "beat", "flower"} <= set(plan.services)
        for service in plan.services.values():
            command = " ".join(service.command)
            assert plan.redacted(command) == command
        assert plan.flower is not None
        shown = plan.redacted(f"{plan.flower.password} {plan.environment}")
        assert plan.flower.password not in shown
        assert plan.environment["PERSONA_BROKER_URL"] not in shown
    finally:
        folder.release()


def test_a_second_stack_in_the_same_directory_is_refused_and_told_how_to_stop_the_first(
    options: StackOptions, directory: Path, tmp_path: Path
) -> None:
    """Two stacks would overwrite each other's state; in another directory a second one is fine."""
    with supervisor(directory, SERVERS) as (process, info):
        with pytest.raises(StackRunningError, match=rf"{directory} \(process {process.pid}\).*`persona down`"):
            Stack(options).start()
        assert published(directory) == info
        elsewhere = StackOptions(services=("cache",), directory=tmp_path / "other", environ=options.environ)
        with Stack(elsewhere) as second:
            assert second.info.pid == os.getpid()


def test_a_port_in_use_is_named(directory: Path) -> None:
    """A user who asked for a port is told that it is taken, and nothing was started."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        options = StackOptions(services=SERVERS, directory=directory, cache_port=port, environ={})
        with pytest.raises(StackError, match=rf"cache: port {port} .* in use"):
            Stack(options).start()
    assert not directory.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_stop_signal_ends_every_process_and_removes_the_folder(number: signal.Signals, directory: Path) -> None:
    """The signal goes to the whole foreground group, as Ctrl-C does; the services end in order, by the supervisor."""
    with supervisor(directory, SERVERS) as (process, info):
        for service in info.services:
            assert os.getpgid(service.pid) != process.pid
        os.killpg(process.pid, number)
        output, errors = process.communicate(timeout=BOUND_S)
        assert process.returncode == 0, errors
        assert output.splitlines()[-2:] == ["broker: stopped", "cache: stopped"]
        assert not any(alive(service.pid) for service in info.services)
        assert not directory.exists()


def test_a_stop_signal_in_the_body_of_the_with_statement_stops_everything(options: StackOptions) -> None:
    """`persona demo` works inside the statement: TERM must not leave its stack behind."""
    pids: list[int] = []

    def body() -> None:
        with Stack(options) as stack:
            pids.extend(service.pid for service in stack.info.services)
            os.kill(os.getpid(), signal.SIGTERM)
            until(lambda: False, "never: the signal raises in the main thread")

    with pytest.raises(SystemExit) as exit_info:
        body()
    assert exit_info.value.code == 128 + signal.SIGTERM
    assert not any(alive(pid) for pid in pids)
    assert options.directory is not None
    assert not options.directory.exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@linux_only
def test_no_process_outlives_a_killed_supervisor_and_the_next_start_cleans_up(options: StackOptions, directory: Path) -> None:
    """KILL runs no code of ours: the kernel ends the services, and the stale files block no later start."""
    with supervisor(directory, SERVERS) as (process, info):
        process.kill()
        until(lambda: not any(alive(service.pid) for service in info.services), "the services are gone")
    assert (directory / "stack.json").exists()
    assert found(directory) is None
    stale = directory / "servers" / "broker" / "stale"
    stale.write_text("left by the killed stack")
    with Stack(options) as stack:
        assert not stale.exists()
        assert published(directory) == stack.info
    assert not directory.exists()


def test_a_service_that_does_not_start_is_named_with_its_exit_code_and_its_log(directory: Path) -> None:
    """The user reads why; the services that had come up are stopped again, and the folder is gone."""
    options = StackOptions(services=SERVERS, directory=directory, cache_memory="plenty", environ={})
    before = set(_children(os.getpid()))  # the run's other servers
    pids: set[int] = set()

    def watch(_message: str) -> None:
        pids.update(int(pid) for pid in _children(os.getpid()) if pid not in before)

    with pytest.raises(StackError) as failure:
        Stack(options, watch).start()
    message = str(failure.value)
    assert message.startswith("cache: did not start (exit code 1)")
    assert "argument must be a memory value" in message
    assert not any(alive(pid) for pid in pids)
    assert not directory.exists()


def _children(pid: int) -> list[str]:
    tasks = Path(f"/proc/{pid}/task/{pid}/children")
    return tasks.read_text().split() if tasks.exists() else []


def test_a_service_that_does_not_answer_in_time_is_named(directory: Path) -> None:
    """The wait for readiness has an end."""
    options = StackOptions(services=("broker",), directory=directory, ready_timeout_s=1e-9, environ={})
    with pytest.raises(StackError, match="broker: did not answer within 1e-09 s"):
        Stack(options).start()
    assert not directory.exists()


def test_a_service_that_dies_is_started_again_where_it_was(directory: Path) -> None:
    """Same port, same password, same tasks in the queue; only the process is another."""
    with supervisor(directory, ("broker",)) as (_process, info):
        url = info.environment["PERSONA_BROKER_URL"]
        with closing(redis.Redis.from_url(url)) as client:
            client.rpush("queue", "task")
            client.waitaof(1, 0, 5000)
        os.kill(info.services[0].pid, signal.SIGKILL)
        until(lambda: published(directory).services[0].pid != info.services[0].pid, "another process")
        assert published(directory).environment == info.environment

        def task_is_there() -> bool:
            try:
                with closing(redis.Redis.from_url(url)) as again:
                    return bool(again.lrange("queue", 0, -1) == [b"task"])
            except redis.ConnectionError:
                return False

        until(task_is_there, "the task is in the queue again")


def test_a_service_that_dies_again_and_again_ends_the_stack_with_an_error(directory: Path) -> None:
    """Three restarts within a minute, after pauses that double, then the user is told: a stack that flaps for ever is of no
    use."""
    with supervisor(directory, SERVERS) as (process, info):
        for _ in range(4):
            pid = _pid_of(directory, "cache")
            assert pid is not None
            os.kill(pid, signal.SIGKILL)

            def replaced(pid: int = pid) -> bool:
                return process.poll() is not None or _pid_of(directory, "cache") not in (None, pid)

            until(replaced, "a restart or the end")
        output, errors = process.communicate(timeout=BOUND_S)
        assert process.returncode == 1
        assert re.findall(r"cache: ended .*; starting it again in (.*) s", output) == ["0.5", "1", "2"]
        assert "failed: cache: ended again after 3 restarts within a minute (killed by SIGKILL)" in errors
        assert not any(alive(service.pid) for service in info.services)
        assert not directory.exists()


def _pid_of(directory: Path, name: str) -> int | None:
    info = found(directory)
    return next((service.pid for service in info.services if service.name == name), None) if info else None


def test_stop_may_be_called_again_and_a_stopped_stack_may_start_again(options: StackOptions) -> None:
    """`stop` is what every error path calls: it must never fail itself."""
    stack = Stack(options)
    stack.stop()
    first = stack.start()
    stack.stop()
    stack.stop()
    with pytest.raises(StackError, match="not running"):
        _ = stack.info
    with stack:
        assert stack.info.environment != first.environment


def test_check_tells_which_service_has_ended(options: StackOptions) -> None:
    """A caller that does not `wait` learns of a death by asking."""
    with Stack(options) as stack:
        stack.check()
        os.kill(stack.info.services[1].pid, signal.SIGKILL)
        messages: list[str] = []

        def told() -> bool:
            try:
                stack.check()
            except StackError as error:
                messages.append(str(error))
            return bool(messages)

        until(told, "the death is noticed")
        assert messages[0].startswith("cache: ended (killed by SIGKILL)")


def test_a_server_that_the_environment_names_is_used_and_not_started(directory: Path) -> None:
    """A user with a Redis of their own gets no second one, and is told when it does not answer."""
    with ValkeyServer(password="secret-of-the-user") as own:
        environ = {"PERSONA_CACHE_URL": own.url}
        options = StackOptions(services=SERVERS, directory=directory, environ=environ)
        told: list[str] = []
        with Stack(options, told.append) as stack:
            assert [service.name for service in stack.info.services] == ["broker"]
            assert stack.info.environment["PERSONA_CACHE_URL"] == own.url
        assert any(line.startswith("cache: redis://:***@") for line in told)
        assert "secret-of-the-user" not in "".join(told)
        own.stop()
        with pytest.raises(StackError, match=r"PERSONA_CACHE_URL: .* does not answer") as failure:
            Stack(options).start()
        assert "secret-of-the-user" not in str(failure.value)


def test_a_directory_that_holds_other_files_is_left_alone(tmp_path: Path) -> None:
    """The folder is removed at the end: it must never be a user's home."""
    precious = tmp_path / "logs" / "precious"
    precious.parent.mkdir()
    precious.write_text("mine")
    options = StackOptions(services=("cache",), directory=tmp_path, environ={})
    with pytest.raises(StackError, match="not empty and no stack made it"):
        Stack(options).start()
    assert precious.read_text() == "mine"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"services": ("broker", "redis")}, "services: unknown service 'redis'"),
        ({"services": ()}, "services: none"),
        ({"broker_port": 70_000}, "broker_port: 70000 is not a port"),
        ({"broker_port": 7000, "cache_port": 7000}, "cache_port: 7000 is also the port of broker"),
        ({"concurrency": 0}, "concurrency: 0"),
    ],
)
def test_an_option_that_does_not_fit_is_named(choice: dict[str, object], message: str) -> None:
    """Refused when the options are made, before anything is started."""
    with pytest.raises(StackError, match=message):
        StackOptions(**choice)  # type: ignore[arg-type]  # one wrong option at a time


def test_a_setting_that_does_not_fit_is_named(directory: Path) -> None:
    """A worker that dies of a wrong variable would tell no one."""
    options = StackOptions(services=("cache",), directory=directory, environ={"PERSONA_LLM_TIMEOUT_S": "soon"})
    with pytest.raises(StackError, match="PERSONA_LLM_TIMEOUT_S"):
        Stack(options).start()
    assert not directory.exists()


@pytest.mark.model
@needs_model
def test_the_local_model_answers_with_its_key_only(directory: Path) -> None:
    """A real model on an OpenAI-compatible endpoint, under its short name; it ends with the stack."""
    options = StackOptions(services=("model",), directory=directory, environ={"PATH": os.environ["PATH"]})

    def ask(key: str) -> tuple[int, dict[str, object]]:
        host = stack.info.environment["PERSONA_LLM_URL"].removeprefix("http://").removesuffix("/v1")
        body = {
            "model": MODEL_ID,
            "temperature": 0,
            "max_tokens": 8,
            "messages": [{"role": "user", "content": "Say hello."}],
        }
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        with closing(http.client.HTTPConnection(host, timeout=4 * BOUND_S)) as connection:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    with Stack(options) as stack:
        assert stack.info.environment["PERSONA_LLM_MODEL"] == MODEL_ID
        status, answer = ask(stack.info.environment["PERSONA_LLM_API_KEY"])
        assert status == 200
        assert answer["model"] == MODEL_ID
        choices = answer["choices"]
        assert isinstance(choices, list)
        assert choices[0]["message"]["content"].strip()
        assert ask("wrong")[0] == 401
        pid = stack.info.services[0].pid
    assert not alive(pid)


def test_an_endpoint_that_the_environment_names_is_used_instead_of_the_local_model(directory: Path) -> None:
    """A user with a better model is not given a small one; an empty name means none."""
    environ = {"PERSONA_LLM_URL": "http://127.0.0.1:9/v1", "PERSONA_LLM_MODEL": "big", "PERSONA_LLM_API_KEY": "k3y"}
    for given, settings in ((environ, environ), ({"PERSONA_LLM_URL": ""}, {"PERSONA_LLM_URL": ""})):
        options = StackOptions(services=("cache", "model"), directory=directory, environ=given)
        with Stack(options) as stack:
            assert [service.name for service in stack.info.services] == ["cache"]
            told = {name: value for name, value in stack.info.environment.items() if "_LLM_" in name}
            assert told == settings
