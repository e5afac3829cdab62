"""Where the real code may be held: its own source, compiled once more with a call before each access to what other threads, or
other processes of the node, read or write without a lock. And the parts of the outer world that a run is given in their place.

The functions stay the same objects, so that what holds one goes on holding it; only what they run is exchanged.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from types import CodeType, FunctionType, ModuleType, SimpleNamespace
from typing import Any, Final

from pipeline.cache.flight.waits import WAITS
from schedules.tasks import BUS, MEMORY, WRITES, Bell, RLock, get_ident, point

_VIEW: Final = {"_state", "generation", "confirmed_at_s", "_own", "_heard", "_heard_count"}
_PROCESS: Final = {"version", "lease_ends_at_s", "_volatile_seen", "_contacts", "confirmed_at_s"}
_SHARED_BY_A_NODE: Final = {"words", "seconds", "_memory"}

SHARED: Final[dict[str, set[str]]] = {
    "pipeline.cache.coherence.view": _VIEW,
    "pipeline.cache.coherence.process": _PROCESS | {"words", "seconds"},
    "pipeline.cache.coherence.records": {"exact", "prefixes", "globs"},
    "pipeline.cache.coherence.bus": _SHARED_BY_A_NODE,
    "pipeline.cache.coherence.node": {"_pending", "_beat_at_s", "seconds"},
    "pipeline.cache.tiers": {"generation", "superseded"},
    "pipeline.cache.two_tier": {"_slots", "slots", "generation", "version", "lease_ends_at_s", "words"},
    "pipeline.cache.memory.local": {"slots", "generation"},
    "pipeline.cache.lineage": {"_newer", "_older", "_equal"},
    "pipeline.cache.flight.single": {"_flights", "confirmed_at_s", "failure", "outcome"},
    "pipeline.cache.flight.filling": {"slots"},
    "pipeline.cache.flight.waits": {"ended", "_bells", "_has_begun"},
    "pipeline.cache.server.connection": {"made"},
    "coherence.mutants": _VIEW | _PROCESS | _SHARED_BY_A_NODE,
    "schedules.mutants": _VIEW | _PROCESS | _SHARED_BY_A_NODE,
}
"""By module the attributes before whose use a task may be held. Within one process unless they are of the node's bus."""

_IMMUTABLE: Final = {"as_of", "known", "taken"}
"""Names of values whose attributes never change."""


class _Points(ast.NodeTransformer):
    def __init__(self, module: str, lines: list[str]) -> None:
        self._shared, self._module, self._lines = SHARED[module], module, lines
        self._written: set[ast.expr] = set()
        """Of what an item is written."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        if isinstance(node.ctx, ast.Store):
            self._written.add(node.value)
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if node.attr not in self._shared or (isinstance(node.value, ast.Name) and node.value.id in _IMMUTABLE):
            return node
        kind = BUS if node.attr in _SHARED_BY_A_NODE else MEMORY
        if isinstance(node.ctx, ast.Store) or node in self._written:
            kind |= WRITES
        at = f"{self._module.rpartition('.')[2]}.py:{node.lineno} {self._lines[node.lineno - 1].strip()}"
        called = ast.Name("__point__", ast.Load())
        node.value = ast.Call(called, [ast.Constant(kind), ast.Constant(at), node.value], [])
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        # What is being made is not yet seen by any other.
        return node if node.name == "__init__" else self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None:
            node.value = self.visit(node.value)  # the target may not be a call
        return node


@cache
def _codes(name: str) -> dict[tuple[str, int], CodeType]:
    """By qualified name and first line the code of a module's functions, with the points in it. By name alone a function would
    get the code of its overloads."""
    module = import_module(name)
    assert module.__file__ is not None
    source = Path(module.__file__).read_text(encoding="utf-8")
    tree = ast.fix_missing_locations(_Points(name, source.splitlines()).visit(ast.parse(source)))
    found: dict[tuple[str, int], CodeType] = {}
    rest = [compile(tree, module.__file__, "exec", dont_inherit=True)]
    while rest:
        for constant in rest.pop().co_consts:
            if isinstance(constant, CodeType):
                found.setdefault((constant.co_qualname, constant.co_firstlineno), constant)
                rest.append(constant)
    return found


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    """The functions and methods that the module has, also within properties and decorated ones, and those that a mutant has put
    there."""
    things: list[Any] = list(vars(module).values())
    while things:
        thing = things.pop()
        if isinstance(thing, type) and thing.__module__ == module.__name__:
            things += [part for part in vars(thing).values() if not isinstance(part, type)]
        elif isinstance(thing, property):
            things += [thing.fget, thing.fset]
        elif isinstance(thing, staticmethod | classmethod):
            things.append(thing.__func__)
        elif isinstance(thing, FunctionType):
            if thing.__module__ in SHARED:
                yield thing
            things.append(getattr(thing, "__wrapped__", None))


class Outer:
    """What the cache's code finds in place of chance, time and sockets: what the present run's world has. Set `world` anew for
    each run."""

    world: Any

    @contextmanager
    def exchanged(self) -> Iterator[None]:
        """Within the block the cache's code has points, tasks in place of threads, and this in place of the world outside."""
        before: list[tuple[Any, str, Any]] = []

        def exchange(owner: Any, name: str, part: object) -> None:
            before.append((owner, name, getattr(owner, name)))
            setattr(owner, name, part)

        threads = SimpleNamespace(RLock=RLock, Lock=Bell, get_ident=get_ident, Thread=_NoThread, current_thread=get_ident)
        secrets = SimpleNamespace(token_hex=self._token_hex)
        time = SimpleNamespace(sleep=self._sleep)
        try:
            for name in SHARED:
                module = import_module(name)
                vars(module)["__point__"] = point
                for function in _functions(module):
                    place = function.__qualname__, function.__code__.co_firstlineno
                    code = _codes(function.__module__).get(place)
                    if code is not None and code.co_freevars == function.__code__.co_freevars:
                        exchange(function, "__code__", code)
            for name in ("locks", "flight.waits", "flight.leases"):
                exchange(import_module(f"pipeline.cache.{name}"), "threading", threads)
            for name in ("coherence.log", "coherence.process", "flight.leases"):
                exchange(import_module(f"pipeline.cache.{name}"), "secrets", secrets)
            seeking = import_module("pipeline.cache.flight.seeking")
            exchange(seeking, "random", SimpleNamespace(uniform=lambda low, _: low))
            exchange(import_module("coherence.mutants"), "time", time)
            link = import_module("pipeline.cache.server.link")
            exchange(link, "_connected", self._connected)
            self.begin()
            yield
        finally:
            for owner, name, part in reversed(before):
                setattr(owner, name, part)
            self.begin()

    def _token_hex(self, count: int) -> Any:
        return self.world.token_hex(count)

    def _sleep(self, seconds: float) -> None:
        self.world.stands_still(seconds)

    def _connected(self, *given: Any) -> Any:
        return self.world.network.connect(*given)

    @staticmethod
    def begin() -> None:
        """Have what is one for the process as it is at its start."""
        WAITS._lock.begin_anew()
        WAITS.begin_anew()


class _NoThread:
    """In place of `threading.Thread`: the leases' keeper, which never comes to its turn. A lease that nobody renews runs out,
    which it may at any moment for its process may be frozen."""

    def __init__(self, **_: object) -> None: ...

    def start(self) -> None: ...
