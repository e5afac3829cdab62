"""What may happen: the steps of a node's loop, of its tasks, and of the broker for a connection that may be gone; and the faults.

Each script is one step. A return is two: reading what there is, and the script that moves what still is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from model.fetch import promises
from model.fetch.state import NEVER, Item, Name, Node, Return, State, Task

if TYPE_CHECKING:
    from model.fetch.configs import FetchConfig

RULES: Final[dict[str, Callable[..., Any]]] = {}
STEPS: Final[list[str]] = []
"""Rules that are steps of a living node."""
FAULTS: Final[list[str]] = []


def rule(function: Callable[..., Any]) -> Callable[..., Any]:
    RULES[function.__name__] = function
    return function


def step(function: Callable[..., Any]) -> Callable[..., Any]:
    STEPS.append(function.__name__)
    return rule(function)


def fault(function: Callable[..., Any]) -> Callable[..., Any]:
    FAULTS.append(function.__name__)
    return rule(function)


class FetchModel:
    """The rules, some of them changed, and how much there is of everything."""

    def __init__(self, config: FetchConfig, changed: Mapping[str, Callable[..., Any]] | None = None) -> None:
        unknown = set(changed or ()) - set(RULES)
        if unknown:
            raise ValueError(f"no such rules: {sorted(unknown)}")
        self.config = config
        self.rules = RULES | dict(changed or {})

    def __getattr__(self, name: str) -> Callable[..., Any]:
        try:
            return self.rules[name]
        except KeyError:
            raise AttributeError(name) from None


class By:
    """A node, about to take a step."""

    __slots__ = ("model", "node", "number", "state")

    def __init__(self, model: FetchModel, state: State, number: int) -> None:
        self.model, self.state, self.number = model, state, number
        self.node: Node = state.nodes[number]

    @property
    def name(self) -> Name:
        return self.state.names[self.node.name]

    @property
    def credit(self) -> int:
        return self.model.config.credit - sum(task.known for task in self.node.tasks)

    def then(self, world: Mapping[str, Any] | None = None, **node: Any) -> State:
        nodes = put(self.state.nodes, self.number, replace(self.node, **node))
        return replace(self.state, nodes=nodes, **(world or {}))

    def renamed(self, **changes: Any) -> tuple[Name, ...]:
        """All names, the node's own with these changes."""
        return put(self.state.names, self.node.name, replace(self.name, **changes))

    @property
    def known(self) -> tuple[Item, ...]:
        return (*(task.item for task in self.node.tasks if task.known), *self.node.settled)


def put(parts: tuple[Any, ...], index: int, part: Any) -> tuple[Any, ...]:
    return (*parts[:index], part, *parts[index + 1 :])


def text(item: Item) -> tuple[int, int, int]:
    """What a script compares: the whole text."""
    return item.number, item.deaths, item.again


def without(items: tuple[Item, ...], others: Iterable[Item]) -> tuple[Item, ...]:
    """These items less the others, each as often as it is there."""
    left = list(items)
    for other in others:
        place = next((i for i, item in enumerate(left) if text(item) == text(other)), None)
        if place is not None:
            del left[place]
    return tuple(left)


# -- what the scripts do


@rule
def removed(_: FetchModel, state: State, name: int, own: Item) -> State:
    """`LREM` of an acknowledged item, by its text, from the claims of that name alone."""
    claims = state.names[name].claims
    for place, item in enumerate(claims):
        if text(item) == text(own):
            rest = claims[:place] + claims[place + 1 :]
            broken = state.broken or promises.acknowledged(own, item)
            return replace(state, names=put(state.names, name, replace(state.names[name], claims=rest)), broken=broken)
    return state


@rule
def moved(_: FetchModel, state: State, name: int) -> tuple[State, Item | None]:
    """`LMOVE`: the next item is a claim of that name."""
    if not state.queue:
        return state, None
    first, *rest = state.queue
    item = replace(first, taken=state.taken[first.number] + 1)
    taken = put(state.taken, item.number, item.taken)
    changed = replace(state.names[name], claims=(*state.names[name].claims, item))
    return replace(state, queue=tuple(rest), names=put(state.names, name, changed), taken=taken), item


@rule
def given_back(model: FetchModel, state: State, back: Return, *, again: bool = True) -> State:
    """One script: each item that still is a claim goes to the head of its queue, as it is to be there; none if its node must have
    been silent and is not. The newest comes first, so that the oldest is the next."""
    if back.counted and not state.names[back.name].silent:
        return state
    for item in reversed(back.items):
        state = model.put_back(model, state, back.name, item, counted=back.counted, again=again)
    return state


@rule
def put_back(model: FetchModel, state: State, name: int, item: Item, *, counted: bool, again: bool) -> State:
    claims = without(state.names[name].claims, [item])
    if len(claims) == len(state.names[name].claims):
        return state
    new = model.marked(model, item, counted=counted, again=again)
    died = counted and state.names[name].silent
    deaths = put(state.deaths, item.number, state.deaths[item.number] + died)
    names = put(state.names, name, replace(state.names[name], claims=claims))
    return replace(state, queue=(replace(new, taken=0), *state.queue), names=names, deaths=deaths)


@rule
def marked(_: FetchModel, item: Item, *, counted: bool, again: bool) -> Item:
    return replace(item, deaths=item.deaths + counted, again=item.again + again)


@rule
def kept(_: FetchModel, state: State, item: Item, outcome: str) -> State:
    """`keep.lua`: a success stays."""
    if state.outcomes[item.number] == "success":
        return state
    return replace(state, outcomes=put(state.outcomes, item.number, outcome))


# -- a node's loop


@rule
def delivered(by: By, item: Item) -> Task:
    return Task(item, "bury" if item.deaths >= by.model.config.deaths else "run")


@step
def exchange(by: By) -> Iterator[State]:
    """Acknowledge, and claim if there is credit: one script. Its answer may be lost, with the connection."""
    wants = by.credit > 0 and bool(by.state.queue)
    if not wants and not by.node.settled:
        return
    state = by.state
    for item in by.node.settled:
        state = by.model.removed(by.model, state, by.node.name, item)
    item = None
    if wants:
        state, item = by.model.moved(by.model, state, by.node.name)
    tasks = (*by.node.tasks, by.model.delivered(by, item)) if item is not None else by.node.tasks
    yield By(by.model, state, by.number).then(settled=(), tasks=tasks)
    left = spent(state, "lose_connection")
    if left is not None:
        yield from _disconnected(By(by.model, replace(state, left=left), by.number))


@step
def ask(by: By) -> Iterator[State]:
    """A `BLMOVE`, on a connection of its own: where an exchange has found nothing."""
    if by.credit > 0 and not (by.name.waits or by.node.arriving or by.node.settled or by.state.queue):
        yield by.then({"names": by.renamed(waits=True)}, hears=True)


@step
def arrive(by: By) -> Iterator[State]:
    """The wait's answer is read. What exceeds the credit goes back as it was."""
    if not by.node.arriving:
        return
    (item,) = by.node.arriving
    if by.credit > 0:
        yield by.then(arriving=(), hears=False, tasks=(*by.node.tasks, by.model.delivered(by, item)))
    else:
        state = by.model.given_back(by.model, by.state, Return(by.node.name, (item,)), again=False)
        yield By(by.model, state, by.number).then(arriving=(), hears=False)


@step
def beat(by: By) -> Iterator[State]:
    """It shows that it lives, and looks for claims that it does not know: those that it did not know last time either go back."""
    names = by.renamed(silent=False)
    if by.node.left != NEVER:
        back = Return(by.node.left, by.state.names[by.node.left].claims, leaves=True)
        yield by.then({"names": names}, returning=back, left=NEVER)
        return
    unknown = tuple(replace(item, taken=0) for item in without(by.name.claims, by.known))  # by their texts
    strays = by.model.strays(by, unknown)
    back = Return(by.node.name, strays) if strays else None
    yield by.then({"names": names}, strays=without(unknown, strays), returning=back)


@rule
def strays(by: By, unknown: tuple[Item, ...]) -> tuple[Item, ...]:
    """At the first look the answer may be on its way."""
    return without(unknown, without(unknown, by.node.strays))


@step
def recover(by: By) -> Iterator[State]:
    """Another name has been silent: its claims are read, to go back with the next script."""
    for number, name in enumerate(by.state.names):
        if number != by.node.name and name.silent and name.claims:
            yield by.then(returning=Return(number, name.claims, counted=True))


def give(by: By) -> Iterator[State]:
    """The second half of a return."""
    back = by.node.returning
    assert back is not None
    state = by.model.given_back(by.model, by.state, back)
    if back.leaves:
        state = replace(state, names=put(state.names, back.name, replace(state.names[back.name], silent=True)))
    ends = back.leaves and back.name == by.node.name
    yield By(by.model, state, by.number).then(returning=None, **({"name": NEVER, "hears": False} if ends else {}))


@step
def leave(by: By) -> Iterator[State]:
    """Told to end, with no task in hand: it acknowledges, and reads what the server has of it."""
    if by.model.config.ends and not by.node.tasks and not _lives_alone(by):
        state = by.state
        for item in by.node.settled:
            state = by.model.removed(by.model, state, by.node.name, item)
        back = Return(by.node.name, state.names[by.node.name].claims, leaves=True)
        yield By(by.model, state, by.number).then(settled=(), arriving=(), hears=False, strays=(), returning=back)


def _lives_alone(by: By) -> bool:
    """Whether no other node will go on."""
    others = (node for number, node in enumerate(by.state.nodes) if number != by.number and node.name != NEVER)
    return all(node.returning is not None and node.returning.leaves and node.returning.name == node.name for node in others)


# -- a node's tasks: its children go on whatever the loop does


def run(by: By, place: int) -> Iterator[State]:
    """Its outcome is kept. Where it cannot be, the message goes back to its queue, marked."""
    task = by.node.tasks[place]
    state = _kept(by, task.item, "success")
    yield By(by.model, state, by.number).then(tasks=put(by.node.tasks, place, replace(task, step="settle")))
    left = spent(by.state, "refuse_outcome")
    if left is not None:
        state = replace(by.state, left=left)
        yield from by.model.refused(By(by.model, state, by.number), place)
    left = spent(by.state, "postpone")
    if left is not None and task.known:  # a task that it does not know: it waits aside, for a node of another release
        claims = without(by.name.claims, [task.item])
        state = replace(by.state, left=left)
        if len(claims) < len(by.name.claims):
            state = replace(state, names=by.renamed(claims=claims), aside=(*state.aside, replace(task.item, taken=0)))
        yield By(by.model, state, by.number).then(tasks=_less(by, place))


def _kept(by: By, item: Item, outcome: str) -> State:
    state: State = by.model.kept(by.model, by.state, item, outcome)
    return replace(state, broken=state.broken or promises.kept(by.state, state, item.number))


@rule
def refused(by: By, place: int) -> Iterator[State]:
    """Its outcome cannot be kept: the message goes back at once, if the connection that it came by is there."""
    task, state = by.node.tasks[place], by.state
    if task.known:
        state = by.model.given_back(by.model, state, Return(by.node.name, (task.item,)))
    yield By(by.model, state, by.number).then(tasks=_less(by, place))


def bury(by: By, place: int) -> Iterator[State]:
    """Too many nodes died with it: its caller has a failure."""
    task = by.node.tasks[place]
    state = _kept(by, task.item, "failure")
    broken = promises.buried(state, task.item.number, by.model.config.deaths)
    settled = put(by.node.tasks, place, replace(task, step="settle"))
    yield By(by.model, replace(state, broken=state.broken or broken), by.number).then(tasks=settled)


def settle(by: By, place: int) -> Iterator[State]:
    """By the loop: with its next exchange. By another thread: at once."""
    task = by.node.tasks[place]
    if not task.known:
        yield by.then(tasks=_less(by, place))
        return
    yield by.then(tasks=_less(by, place), settled=(*by.node.settled, task.item))
    state = by.model.removed(by.model, by.state, by.node.name, task.item)
    yield By(by.model, state, by.number).then(tasks=_less(by, place))


def _less(by: By, place: int) -> tuple[Task, ...]:
    return by.node.tasks[:place] + by.node.tasks[place + 1 :]


TASK_STEPS: Final = {"run": run, "bury": bury, "settle": settle}


# -- the broker


def serve_wait(model: FetchModel, state: State, name: int) -> Iterator[State]:
    """A wait is answered, also one whose node has died or has given it up meanwhile."""
    if not state.names[name].waits or not state.queue:
        return
    state, item = model.moved(model, state, name)
    state = replace(state, names=put(state.names, name, replace(state.names[name], waits=False)))
    nodes = tuple(
        replace(node, arriving=(item,)) if node.name == name and node.hears and item is not None else node for node in state.nodes
    )
    yield replace(state, nodes=nodes)


def send(state: State) -> Iterator[State]:
    """A message is accepted: it lies in the queue."""
    if state.unsent:
        item = Item(len(state.outcomes) - state.unsent)
        yield replace(state, queue=(*state.queue, item), unsent=state.unsent - 1)


def due(state: State) -> Iterator[State]:
    """What was aside is back at the head of its queue."""
    for item in state.aside:
        yield replace(state, aside=without(state.aside, [item]), queue=(item, *state.queue))


# -- faults


def spent(state: State, name: str) -> tuple[int, ...] | None:
    """How many faults are left after this one; None if there may not be any."""
    place = FAULTS.index(name)
    return put(state.left, place, state.left[place] - 1) if state.left[place] else None


@fault
def die(by: By) -> Iterator[State]:
    """At any moment. The broker has what it has, and its name falls silent."""
    if not _lives_alone(by):
        dead = replace(Node(NEVER), returning=None)
        yield replace(by.state, nodes=put(by.state.nodes, by.number, dead), names=by.renamed(silent=True))


@fault
def fall_silent(by: By) -> Iterator[State]:
    """It is frozen for ten seconds, or its beats do not come through; it goes on later, knowing of nothing."""
    if not by.name.silent:
        yield replace(by.state, names=by.renamed(silent=True))


@fault
def lose_wait(by: By) -> Iterator[State]:
    """The wait's connection breaks, before or after the server has answered."""
    if by.node.hears:
        yield by.then(hears=False, arriving=())


@fault
def lose_connection(by: By) -> Iterator[State]:
    if by.node.returning is None:
        yield from _disconnected(by)


def _disconnected(by: By) -> Iterator[State]:
    """A new connection, by another name. Tasks go on, and have nothing to acknowledge. What it had claimed goes back at once; or,
    where the broker is away, with the next connection, and then what was to be acknowledged comes again."""
    state = replace(by.state, names=(*by.state.names, Name()))
    tasks = tuple(replace(task, known=False) for task in by.node.tasks)
    fresh = {"name": len(state.names) - 1, "hears": False, "arriving": (), "tasks": tasks, "settled": (), "strays": ()}
    yield By(by.model, state, by.number).then(left=by.node.name, **fresh)
    for item in by.node.settled:
        state = by.model.removed(by.model, state, by.node.name, item)
    back = Return(by.node.name, state.names[by.node.name].claims, leaves=True)
    yield By(by.model, state, by.number).then(returning=back, **fresh)


@fault
def refuse_outcome(_: By) -> Iterator[State]:
    """See `run`."""
    yield from ()


@fault
def postpone(_: By) -> Iterator[State]:
    """See `run`."""
    yield from ()
