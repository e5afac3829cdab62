"""How a client finds the stack that runs here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.kit.nodes import own_environment
from pipeline.errors import ConfigurationError
from pipeline.settings import discover_settings, load_settings
from workers.stack import Stack, StackInfo, StackOptions
from workers.stack.state import find_stack


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with a running stack in its `.persona`."""
    path = tmp_path_factory.mktemp("project")
    environ = {"PERSONA_CACHE_NAMESPACE": "mine"}
    with Stack(StackOptions(services=("broker", "cache"), directory=path / ".persona", environ=environ)):
        yield path


def test_a_stack_is_found_from_its_directory_and_from_below(project: Path, tmp_path: Path) -> None:
    """As git finds its repository; a directory elsewhere sees nothing."""
    below = project / "a" / "b"
    below.mkdir(parents=True, exist_ok=True)
    for start in (project, below):
        info = find_stack(start, {})
        assert info is not None
        assert info.pid == os.getpid()
    elsewhere = find_stack(tmp_path, {})  # a stack of the machine's owner may run above the place for temporary files
    assert elsewhere is None or elsewhere.pid != os.getpid()


def test_the_named_directory_is_the_only_one_that_counts(project: Path, tmp_path: Path) -> None:
    """PERSONA_STACK_DIR says where, also when another stack is nearer."""
    assert find_stack(tmp_path, {"PERSONA_STACK_DIR": str(project / ".persona")}) is not None
    assert find_stack(project, {"PERSONA_STACK_DIR": str(tmp_path)}) is None


def test_the_settings_of_the_running_stack_lie_beneath_the_environment(project: Path) -> None:
    """No configuration is needed, and a variable that is set wins."""
    where = {"PERSONA_STACK_DIR": str(project / ".persona")}
    info = find_stack(environ=where)
    assert info is not None
    settings = discover_settings(where)
    assert settings.broker_url == info.environment["PERSONA_BROKER_URL"]
    assert settings.cache_url == info.environment["PERSONA_CACHE_URL"]
    assert settings.cache_namespace == "mine"
    assert discover_settings({**where, "PERSONA_CACHE_NAMESPACE": "other"}).cache_namespace == "other"


def test_results_are_not_looked_for_at_a_stack_whose_broker_is_not_used(project: Path) -> None:
    """A broker of the user's own comes with its own results: half of each would wait for ever."""
    own = {"PERSONA_STACK_DIR": str(project / ".persona"), "PERSONA_BROKER_URL": "redis://queue.example:6379/0"}
    assert discover_settings(own).result_backend_url == "redis://queue.example:6379/1"


@pytest.mark.parametrize("variable", ["PERSONA_BROKER_URL", "PERSONA_CACHE_URL"])
def test_who_names_another_server_has_nothing_of_the_stack(variable: str, project: Path) -> None:
    """It is of another fleet: with one's broker and the other's cache it would share answers with neither."""
    where = {"PERSONA_STACK_DIR": str(project / ".persona")}
    other = {variable: "redis://other.example:6379/0"}
    assert discover_settings(where | other) == load_settings(where | other)
    info = find_stack(environ=where)
    assert info is not None
    assert discover_settings({**where, variable: info.environment[variable]}).cache_namespace == "mine"


def test_files_without_a_living_owner_are_no_stack(project: Path, tmp_path: Path) -> None:
    """The leavings of a killed stack must not send clients to ports that others may have by now."""
    state = (project / ".persona" / "stack.json").read_bytes()
    for content in (state, b"{", b"[]", b"\xff"):
        (tmp_path / "stack.json").write_bytes(content)
        (tmp_path / "stack.lock").write_text(str(os.getpid()))
        assert find_stack(environ={"PERSONA_STACK_DIR": str(tmp_path)}) is None


def test_a_variable_that_does_not_fit_is_refused_with_or_without_a_stack(project: Path, tmp_path: Path) -> None:
    """Discovery hides no mistake."""
    for directory in (project / ".persona", tmp_path):
        with pytest.raises(ConfigurationError, match="PERSONA_STRICT"):
            discover_settings({"PERSONA_STACK_DIR": str(directory), "PERSONA_STRICT": "perhaps"})


# -- programs beside a stack


PIPELINE = """
    import json, os, subprocess, sys, time
    from pipeline import cached, get_optimized_pipeline

    calls = []

    @cached(ttl=60, key_prefix="beside")
    def value():
        calls.append(1)
        return len(calls)

    got = [value(), value()]
    command = [sys.executable, "-m", "workers.cli", "invalidate", "--json", "beside:*"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 10  # no node is here to tell it: the lease ends
    while (last := value()) == 1 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    got.append(last)
    cache = get_optimized_pipeline().cache
    print(json.dumps([got, None if cache.l2 is None else cache.l2.keys.namespace]))
"""


def beside(directory: Path, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A program as a user starts it in that directory."""
    return subprocess.run(
        [*(command or (sys.executable, "-c", textwrap.dedent(PIPELINE)))],
        cwd=directory,
        env=own_environment() | settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def stack_of(project: Path) -> StackInfo:
    info = find_stack(project, {})
    assert info is not None
    return info


def test_a_program_of_the_pipeline_finds_the_stack_as_a_client_does(project: Path) -> None:
    """Its decorated functions are in the fleet's cache: `persona invalidate` beside it reaches them."""
    done = beside(project)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[1, 1, 2], "mine"]


def test_who_says_that_there_is_no_shared_tier_is_obeyed(project: Path) -> None:
    """An empty value is a value: no stack takes its place."""
    program = "from pipeline import get_optimized_pipeline; print(get_optimized_pipeline().cache.l2)"
    done = beside(project, sys.executable, "-c", program, PERSONA_CACHE_URL="")
    assert (done.stdout, done.stderr) == ("None\n", "")


def test_a_program_elsewhere_is_left_alone(project: Path, tmp_path: Path) -> None:
    """Neither a stack of another directory is taken, nor one that PERSONA_STACK_DIR does not name."""
    program = "from pipeline import get_optimized_pipeline; print(get_optimized_pipeline().cache.l2)"
    for directory, settings in ((tmp_path, {}), (project, {"PERSONA_STACK_DIR": str(tmp_path)})):
        assert beside(directory, sys.executable, "-c", program, **settings).stdout == "None\n"


def test_a_worker_that_is_started_beside_a_stack_is_one_of_its_fleet(project: Path) -> None:
    """The app, too, goes by the stack: a worker on the default broker would answer no program here."""
    program = "from workers.app import app, settings; print(app.connection_for_read().port, settings.cache_url)"
    done = beside(project, sys.executable, "-c", program)
    environment = stack_of(project).environment
    port, cache_url = done.stdout.split()
    assert f":{port}/" in environment["PERSONA_BROKER_URL"]
    assert cache_url == environment["PERSONA_CACHE_URL"]


def test_env_prints_what_a_shell_elsewhere_needs(project: Path, tmp_path: Path) -> None:
    """`eval "$(persona env)"`, and a program in any directory reaches the stack; as JSON it is one document."""
    command = [sys.executable, "-m", "workers.cli", "env"]
    told = beside(project, *command)
    assert (told.returncode, told.stderr) == (0, "")
    assert all(line.startswith("export PERSONA_") for line in told.stdout.splitlines())
    program = "import json, os; print(json.dumps({name: value for name, value in os.environ.items() if 'PERSONA_' in name}))"
    shell = f'{told.stdout}exec {sys.executable} -c "$0"'
    elsewhere = beside(tmp_path, "bash", "-euc", shell, program)
    assert json.loads(elsewhere.stdout) == stack_of(project).environment
    document = json.loads(beside(project, *command, "--json").stdout)
    assert document == {"environment": stack_of(project).environment}


def test_env_without_a_stack_says_so(tmp_path: Path) -> None:
    """Nothing on standard output, which a shell would run."""
    done = beside(tmp_path, sys.executable, "-m", "workers.cli", "env", PERSONA_STACK_DIR=str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "persona up" in done.stderr
