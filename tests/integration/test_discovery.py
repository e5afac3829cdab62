"""How a client finds the stack that runs here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import ConfigurationError
from pipeline.settings import discover_settings
from workers.discovery import find_stack
from workers.stack import Stack, StackOptions


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
    """No configuration is needed, and whoever sets a variable is obeyed."""
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


def test_files_without_a_living_owner_are_no_stack(project: Path, tmp_path: Path) -> None:
    """What a killed stack leaves must not send clients to ports that others may have by now."""
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
