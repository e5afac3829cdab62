"""How a rule says what changes: where it stands, and the state after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from model.state import IDLE, Node, Numbers, Process, Server, State, Thread

if TYPE_CHECKING:
    from model.configs import Config

RULES: Final[dict[str, Callable[..., Any]]] = {}
"""Every rule by its name. A step of a thread is the rule of that name."""
LOCAL: Final[set[str]] = set()
"""Steps that touch nothing which another process sees: where no other thread of the process looks on, they are taken together
with
the step before them."""


SILENT: Final[set[str]] = set()
"""Steps that are a part of the step before them."""


def rule(function: Callable[..., Any]) -> Callable[..., Any]:
    RULES[function.__name__] = function
    return function


def local(function: Callable[..., Any]) -> Callable[..., Any]:
    """A rule whose step is local."""
    LOCAL.add(function.__name__)
    return rule(function)


def silent(function: Callable[..., Any]) -> Callable[..., Any]:
    """A rule whose step is silent."""
    SILENT.add(function.__name__)
    return rule(function)


class Model:
    """The rules, some of them changed, and how much there is of everything. `model.valid` is the rule `valid`."""

    def __init__(self, config: Config, changed: Mapping[str, Callable[..., Any]] | None = None, *, reduced: bool = True) -> None:
        """`reduced`: leave orders out that show nothing which others do not, see `search`."""
        self.config = config
        self.reduced = reduced
        unknown = set(changed or ()) - set(RULES)
        if unknown:
            raise ValueError(f"no such rules: {sorted(unknown)}")
        self.rules = RULES | dict(changed or {})

    def __getattr__(self, name: str) -> Callable[..., Any]:
        try:
            return self.rules[name]
        except KeyError:
            raise AttributeError(name) from None


def put(parts: tuple[Any, ...], index: int, part: Any) -> tuple[Any, ...]:
    """The same with another part in one place."""
    return (*parts[:index], part, *parts[index + 1 :])


def higher(one: Numbers, other: Numbers) -> Numbers:
    """The higher number in each place."""
    return one if one == other else tuple(map(max, one, other))


class At:
    """A thread of a process, about to take its first step."""

    __slots__ = ("index", "model", "number", "process", "state", "thread")

    def __init__(self, model: Model, state: State, number: int, index: int) -> None:
        self.model, self.state, self.number, self.index = model, state, number, index
        self.process: Process = state.processes[number]
        self.thread: Thread = self.process.threads[index]

    @property
    def server(self) -> Server:
        return self.state.server

    @property
    def now(self) -> int:
        return len(self.state.returned)

    @property
    def bus(self) -> Any:
        return self.state.nodes[self.process.node].bus

    def then(
        self,
        *steps: str,
        process: Mapping[str, Any] | None = None,
        world: Mapping[str, Any] | None = None,
        **thread: Any,
    ) -> State:
        """These steps in place of the first one, and the changes of the thread, its process and the world."""
        return self._with(replace(self.thread, steps=steps + self.thread.steps[1:], **thread), process, world)

    def only(
        self,
        *steps: str,
        process: Mapping[str, Any] | None = None,
        world: Mapping[str, Any] | None = None,
        **thread: Any,
    ) -> State:
        """These steps in place of all; without any, the thread is idle."""
        changed = replace(self.thread, steps=steps, **thread) if steps else IDLE
        return self._with(changed, process, world)

    def fails(self) -> State:
        """The server cannot be reached, or says that it is a replica: on to what catches it. New connections lead elsewhere."""
        steps = self.thread.steps
        at = next((i for i, step in enumerate(steps) if step[0] == "?"), len(steps))
        return self.only(
            *(step.lstrip("?") if i == at else step for i, step in enumerate(steps) if i >= at), process={"at_old": False}
        )

    @property
    def reachable(self) -> bool:
        return self.state.up and not self.process.at_old

    @property
    def contacted(self) -> dict[str, Any]:
        """The change of the process that exchanges with the server."""
        return {} if self.process.made == self.server.contact else {"made": self.server.contact}

    def _with(self, thread: Thread, process: Mapping[str, Any] | None, world: Mapping[str, Any] | None) -> State:
        thread = thread if thread.steps else IDLE
        changed = replace(self.process, threads=put(self.process.threads, self.index, thread), **(process or {}))
        return replace(self.state, processes=put(self.state.processes, self.number, changed), **(world or {}))


class AtNode:
    """A thread of a node's main process."""

    __slots__ = ("index", "model", "node", "number", "state", "thread")

    def __init__(self, model: Model, state: State, number: int, index: int) -> None:
        self.model, self.state, self.number, self.index = model, state, number, index
        self.node: Node = state.nodes[number]
        self.thread: Thread = self.node.threads[index]

    @property
    def server(self) -> Server:
        return self.state.server

    @property
    def now(self) -> int:
        return len(self.state.returned)

    def then(
        self, *steps: str, node: Mapping[str, Any] | None = None, world: Mapping[str, Any] | None = None, **thread: Any
    ) -> State:
        return self._with(replace(self.thread, steps=steps + self.thread.steps[1:], **thread), node, world)

    def only(
        self, *steps: str, node: Mapping[str, Any] | None = None, world: Mapping[str, Any] | None = None, **thread: Any
    ) -> State:
        return self._with(replace(self.thread, steps=steps, **thread) if steps else IDLE, node, world)

    def fails(self) -> State:
        steps = self.thread.steps
        at = next((i for i, step in enumerate(steps) if step[0] == "?"), len(steps))
        return self.only(*(step.lstrip("?") if i == at else step for i, step in enumerate(steps) if i >= at))

    @property
    def reachable(self) -> bool:
        return self.state.up

    def _with(self, thread: Thread, node: Mapping[str, Any] | None, world: Mapping[str, Any] | None) -> State:
        changed = replace(self.node, threads=put(self.node.threads, self.index, thread), **(node or {}))
        state = replace(self.state, nodes=put(self.state.nodes, self.number, changed), **(world or {}))
        return bus_moved(state, self.number) if node and "bus" in node else state


def bus_moved(state: State, number: int) -> State:
    """The bus has another version: its node's processes have not followed it, and what threads have read of it is out of date."""

    def told(process: Process) -> Process:
        if process.node != number:
            return process
        threads = tuple(
            replace(thread, outdated=True) if thread.news is not None and not thread.outdated else thread
            for thread in process.threads
        )
        return replace(process, followed=False, threads=threads)

    return replace(state, processes=tuple(map(told, state.processes)))


Outcomes = Iterable[State]
