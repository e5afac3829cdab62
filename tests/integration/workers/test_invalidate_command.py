"""`persona invalidate` and the task beside it, on a real server: data is written as keys have it, mistakes are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import ValkeyServer

from pipeline.assembly import build_optimized_pipeline
from pipeline.models import PersonaResponse
from pipeline.optimized import OptimizedPipeline
from pipeline.persona_pipeline import PersonaPipeline
from pipeline.personas import load_catalog
from pipeline.responders import PromptResponder
from pipeline.settings import load_settings

KEY = "frustrated-burst-seek_advice"
IDS = ("auth0|5f7c", "김민수", "a*", "-x", "ab")


@pytest.fixture
def environ(valkey: ValkeyServer, namespace: str, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PERSONA_", "PYTHON"))}
    ours = {
        "PERSONA_BROKER_URL": valkey.url,
        "PERSONA_CACHE_URL": valkey.url,
        "PERSONA_CACHE_NAMESPACE": namespace,
        "PERSONA_STACK_DIR": str(tmp_path / "none"),
    }
    return {**kept, **ours, "NO_COLOR": "1"}


@pytest.fixture
def pipeline(environ: dict[str, str]) -> Iterator[OptimizedPipeline]:
    """A program with the same cache; its L1 is emptied before it is asked."""
    pipeline = build_optimized_pipeline(load_settings(environ), PersonaPipeline(load_catalog(), PromptResponder()))
    yield pipeline
    pipeline.clear_cache()
    pipeline.close()


def run(environ: dict[str, str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    command = [sys.executable, "-m", "workers.cli", "invalidate", *arguments, "--timeout", "0", "--json"]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    return ended.returncode, json.loads(ended.stdout), ended.stderr


def ask(pipeline: OptimizedPipeline, user: str | None = None) -> PersonaResponse:
    pipeline.cache.l1.clear()
    return pipeline.process("hello", KEY, None if user is None else {"user_id": user})


def test_users_and_personas_are_named_by_their_data(environ: dict[str, str], pipeline: OptimizedPipeline) -> None:
    """Whatever stands in an id it is that user alone; a persona is called as answers call it."""
    for user in (*IDS, None):
        ask(pipeline, user)
    exit_code, made, stderr = run(environ, "--user", "auth0|5f7c", "--user", "김민수", "--user", "a*", "--user=-x")
    assert (exit_code, made["durable"], made["warnings"], stderr) == (0, True, [], "")
    assert [ask(pipeline, user).cached for user in IDS] == ["no", "no", "no", "no", "l2"]
    assert ask(pipeline).cached == "l2"
    exit_code, made, stderr = run(environ, "routing:*", "--persona", "Lua")
    assert (exit_code, made["patterns"], made["warnings"]) == (0, ["routing:*", "persona:lua:*"], [])
    assert ask(pipeline).cached == "no"


@pytest.mark.parametrize(
    ("arguments", "kind", "told"),
    [
        (("routing:*", "user:auth0|5f7c"), "invalid_pattern", "--user ID"),
        (("routing:*", "--user", " a"), "invalid_request", "user_id"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_could_mean_nobody_or_others_is_refused(
    environ: dict[str, str], pipeline: OptimizedPipeline, arguments: tuple[str, ...], kind: str, told: str
) -> None:
    """Exit 2, nothing is invalidated."""
    ask(pipeline)
    exit_code, refused, stderr = run(environ, *arguments)
    assert (exit_code, refused["error"]["kind"]) == (2, kind)
    assert told in stderr
    assert ask(pipeline).cached == "l2"


def test_a_pattern_that_can_match_no_key_is_told(environ: dict[str, str]) -> None:
    """With the nearest that can, on standard error and in the document; it is no failure."""
    given = ("persona:Riri:*", "persona:riri", "riri", "persona:riri:*")
    exit_code, made, stderr = run(environ, *given)
    assert (exit_code, made["patterns"], made["durable"]) == (0, list(given), True)
    assert len(made["warnings"]) == 3
    assert all("'persona:riri:*'" in warning for warning in made["warnings"])
    assert stderr.splitlines() == [f"warning: {warning}" for warning in made["warnings"]]


def test_the_task_takes_ids_as_requests_have_them(pipeline: OptimizedPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a producer in another language, which need not know how keys are written."""
    import workers.tasks

    monkeypatch.setattr(workers.tasks, "get_optimized_pipeline", lambda: pipeline)
    for user in IDS:
        ask(pipeline, user)
    assert workers.tasks.invalidate(users=["auth0|5f7c", "a*"])["durable"] is True
    assert [ask(pipeline, user).cached for user in IDS] == ["no", "l2", "no", "l2", "l2"]
