"""The arrows of the design, read from the sources: `workers -> pipeline -> pipeline.cache`, never back."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from programs import run_program

import pipeline

ROOT = Path(pipeline.__file__).parents[1]
CELERY = {"celery", "kombu", "billiard", "flower", "redbeat", "vine", "amqp"}
AT_WORK = {"threading", "socket", "mmap", "multiprocessing", "subprocess"}
"""Modules whose objects a forked child must not share unawares."""


def modules(package: str) -> list[str]:
    """The names of all modules of a package, as files."""
    names = []
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


@cache
def source_of(module: str) -> ast.Module:
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


@cache
def imported(module: str) -> frozenset[str]:
    """Every module that this one imports, anywhere: at the top, in a function, for types only."""
    names: set[str] = set()
    for node in ast.walk(source_of(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are written out in full"
            assert node.module is not None
            # `from pipeline import keys` imports pipeline.keys.
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def needed_by(module: str, among: frozenset[str]) -> set[str]:
    """The modules that this one imports, or imports something of."""
    needed = set()
    for name in imported(module):
        parts = name.split(".")
        candidates = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
        needed |= set([candidate for candidate in candidates if candidate in among][:1])
    return needed - {module}


ROOMS = (
    ("pipeline.cache.patterns", "pipeline.cache.memory", "pipeline.cache.server", "pipeline.cache.audit",
     "pipeline.cache.coherence", "pipeline.cache.flight", "pipeline.cache.decorators"),
    ("pipeline.cache", "pipeline.personas", "pipeline.responders", "pipeline.tracing", "pipeline.hot", "pipeline.figures",
     "pipeline.preload"),
    ("workers.queue", "workers.install", "workers.stack", "workers.client", "workers.explain", "workers.node",
     "workers.dashboard", "workers.doctor", "workers.cli"),
)  # fmt: skip
"""Of each floor the rooms in their order: one may use those before it, and none behind it."""


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def top(name: str) -> str:
    return name.partition(".")[0]


CACHE = modules("pipeline/cache")
PIPELINE = modules("pipeline")
WORKERS = modules("workers")
SHIPPED = PIPELINE + WORKERS
FOLDERS = sorted({path.parent.relative_to(ROOT) for name in ("pipeline", "workers") for path in (ROOT / name).rglob("*.py")})


def test_there_is_something_to_read() -> None:
    """Else every test below would pass of nothing."""
    assert {"pipeline.cache", "pipeline.cache.two_tier", "pipeline.cache.keys"} <= set(CACHE)
    assert {"pipeline.models", "pipeline.optimized"} <= set(PIPELINE)
    assert "workers.tasks" in WORKERS
    assert any("socket" in map(top, imported(module)) for module in CACHE)


@pytest.mark.parametrize("module", CACHE)
def test_the_cache_knows_itself_msgspec_and_the_standard_library(module: str) -> None:
    """It can be taken out and used elsewhere; it knows nothing of personas. Nor does it use a Redis client: every exchange
    goes through its own wire, which leaves no reply behind."""
    foreign = {
        name
        for name in imported(module)
        if not within(name, "pipeline.cache", "msgspec") and top(name) not in sys.stdlib_module_names
    }
    assert foreign == set()


@pytest.mark.parametrize("module", PIPELINE)
def test_the_pipeline_runs_without_celery(module: str) -> None:
    """And without the workers, which are built on it."""
    assert {name for name in imported(module) if top(name) in CELERY | {"workers", "celeryconfig"}} == set()


@pytest.mark.parametrize("module", [module for module in PIPELINE if not within(module, "pipeline.cache")])
def test_only_the_cache_speaks_to_redis(module: str) -> None:
    """The stages see a cache, not a server."""
    own = {"pipeline.cache.server.link", "pipeline.cache.server.wire"}
    assert {name for name in imported(module) if top(name) == "redis" or name in own} == set()


def test_only_the_wire_opens_a_connection() -> None:
    """One place through which every command goes, and so one rule for all."""
    making = {
        module
        for module in CACHE
        for node in ast.walk(source_of(module))
        if isinstance(node, ast.Call) and called(node).rpartition(".")[2] == "Link"
    }
    assert making == {"pipeline.cache.server.wire"}


def test_only_the_workers_import_celery() -> None:
    """Celery's settings are theirs, too; the file that hands them on imports nothing else."""
    importers = {module for module in PIPELINE + WORKERS if {*map(top, imported(module))} & CELERY}
    assert importers
    assert {module for module in importers if not within(module, "workers")} == set()
    assert {top(name) for name in imported("workers.queue.celery_settings")} & CELERY <= {"kombu"}
    assert {name for name in imported("celeryconfig") if top(name) != "pipeline"} == {
        "workers.queue.celery_settings.celery_settings"
    }


def test_only_two_tier_knows_both_tiers_and_the_log() -> None:
    """One module knows both tiers, one the log and the view of it, one puts the protocol together; the others know one part."""
    parts = {
        "pipeline.cache.memory.local",
        "pipeline.cache.server.shared",
        "pipeline.cache.coherence.log",
        "pipeline.cache.coherence.view",
    }
    for module in CACHE:
        known = {part for part in parts for name in imported(module) if within(name, part)} - {module}
        if module == "pipeline.cache.coherence.process":
            assert known == {"pipeline.cache.coherence.log", "pipeline.cache.coherence.view"}
        elif module == "pipeline.cache.tiers":
            assert known == {"pipeline.cache.memory.local", "pipeline.cache.server.shared"}
        elif module not in ("pipeline.cache", "pipeline.cache.two_tier"):
            assert len(known) <= 1, f"{module} knows {sorted(known)}"


@pytest.mark.parametrize("package", ["pipeline.cache", "pipeline", "workers"])
def test_the_modules_of_a_package_have_no_cycle(package: str) -> None:
    """Each can be understood after those that it imports. A room's face may be imported by others, and imports its own."""
    mine = [module for module in SHIPPED if within(module, package)]
    faces = {module for module in mine if any(other.startswith(module + ".") for other in mine)}
    graph = {module: needed_by(module, frozenset(mine)) - faces - {module} for module in mine}
    while graph:
        leaves = [module for module, needs in graph.items() if not needs & graph.keys()]
        assert leaves, f"a cycle among {sorted(graph)}"
        for leaf in leaves:
            del graph[leaf]


@pytest.mark.parametrize(("number", "room"), [(number, room) for number, floor in enumerate(ROOMS) for room in floor])
def test_a_room_uses_only_those_before_it(number: int, room: str) -> None:
    """No module imports `workers.node` or `workers.dashboard`: Celery and Flower load them."""
    floor = ROOMS[number]
    behind = floor[floor.index(room) + 1 :]
    for module in [module for module in SHIPPED if within(module, room)]:
        assert {name for name in imported(module) if within(name, *behind)} == set(), module


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_room_can_be_taken_in_at_a_glance(folder: Path) -> None:
    """No more than 14 modules side by side, and two lines that say what the room owns and never does."""
    modules = list((ROOT / folder).glob("*.py"))
    assert len(modules) <= 14, [module.name for module in modules]
    face = ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text(encoding="utf-8")))
    assert len([line for line in (face or "").splitlines() if line]) >= 2, f"{folder}: what it owns, and what it never does"


# -- names in Redis

COMMANDS = {
    "get", "set", "setex", "mget", "mset", "delete", "unlink", "exists", "expire", "pexpire", "pttl", "incr", "hset", "hget",
    "rpush", "lpush", "blpop", "brpop", "zadd", "zrangebyscore", "zrange", "zrem", "sadd", "publish", "xadd", "scan", "evalsha",
}  # fmt: skip


def texts(tree: ast.Module) -> Iterator[str]:
    """Every literal text of a module but its docstrings."""
    docstrings = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            if isinstance(node.value, str):
                yield node.value
            elif isinstance(node.value, bytes):
                yield node.value.decode("latin-1")


@pytest.mark.parametrize("module", [module for module in CACHE if module != "pipeline.cache.keys"])
def test_only_the_module_of_keys_builds_names_in_redis(module: str) -> None:
    """Cheaply: no other module writes a part of such a name, asks for the namespace, or gives a command a text made on the
    spot."""
    tree = source_of(module)
    parts = {text for text in texts(source_of("pipeline.cache.keys")) if ":" in text and not text.startswith(("key", ": "))}
    parts = {text for text in parts if " " not in text and len(text) > 2}
    assert {":e:", ":log}:tail"} <= parts
    assert parts & set(texts(tree)) == set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in COMMANDS and node.args:
            receiver = node.func.value
            if isinstance(receiver, ast.Name) and receiver.id in ("client", "pipe"):
                first = node.args[0]
                made = isinstance(first, ast.JoinedStr | ast.BinOp) or (
                    isinstance(first, ast.Constant) and isinstance(first.value, str | bytes)
                )
                assert not made, f"{module}:{node.lineno}: a key made on the spot"


# -- nothing at import


def at_import(tree: ast.Module) -> Iterator[ast.Call]:
    """The calls that importing the module makes itself: not those in the bodies of functions."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += [*getattr(node, "decorator_list", []), *node.args.defaults, *filter(None, node.args.kw_defaults)]
            continue
        if isinstance(node, ast.Call):
            yield node
        waiting += ast.iter_child_nodes(node)


def called(call: ast.Call) -> str:
    return ast.unparse(call.func)


@pytest.mark.parametrize("module", PIPELINE)
def test_no_module_makes_a_lock_a_thread_or_a_socket_at_import(module: str) -> None:
    """A forked child would inherit it in whatever state it is. A module that must have a lock resets it after a fork."""
    calls = list(at_import(source_of(module)))
    made = [call for call in calls if top(called(call)) in AT_WORK | {"redis"} or called(call).endswith((".from_url", "Client"))]
    if any(called(call) == "os.register_at_fork" for call in calls):
        made = [call for call in made if called(call) not in ("threading.Lock", "threading.RLock")]
    assert [f"{module}:{call.lineno}: {called(call)}" for call in made] == []


IMPORTER = """
    import sys

    seen = []
    sys.addaudithook(
        lambda event, args: seen.append(event) if event in ("socket.connect", "socket.bind", "_thread.start_new_thread",
            "subprocess.Popen", "os.fork", "socket.getaddrinfo") else None
    )
    import pipeline.cache, pipeline.optimized
    import threading

    assert not seen, seen
    assert threading.active_count() == 1, threading.enumerate()
    assert not {"celery", "kombu", "workers"} & {name.partition(".")[0] for name in sys.modules}
    print("ok")
"""


def test_importing_the_pipeline_starts_nothing_and_connects_to_nothing() -> None:
    """Watched by the interpreter's own audit: no thread, no process, no connection; and no Celery comes with it."""
    done = run_program(IMPORTER)
    assert done.stdout.strip() == "ok", done.stderr


@pytest.mark.parametrize("module", SHIPPED)
def test_a_long_module_says_why(module: str) -> None:
    """Over 350 lines, its first lines have the reason."""
    path = ROOT.joinpath(*module.split("."))
    text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
    if text.count("\n") > 350:
        assert "One module" in (ast.get_docstring(ast.parse(text)) or ""), f"{module} has {text.count(chr(10))} lines"
