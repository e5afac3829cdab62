"""One state for all that differ by names only: of nodes, of their names at the broker, and of claims."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from model.fetch.state import NEVER, Item, Node, State, Task


def canon(state: State) -> State:
    """Claims of a message are compared with each other for being the same one, so that only their order matters. Nodes are alike.
    A name without a node, a claim or a wait may be forgotten."""
    state = _claims_named_anew(state)
    names, nodes = state.names, state.nodes

    def of(number: int) -> Any:
        return names[number] if number != NEVER else None

    def key(node: Node) -> int:
        back = node.returning
        alike = replace(node, name=0, left=0, returning=None)
        return hash((alike, of(node.name), of(node.left), back and (of(back.name), back.items, back.counted, back.leaves)))

    nodes = tuple(sorted(nodes, key=key))
    order = [number for node in nodes for number in (node.name, node.left, node.returning.name if node.returning else NEVER)]
    others = (number for number, name in enumerate(names) if name.claims or name.waits)
    order += sorted((number for number in others if number not in order), key=lambda number: hash(names[number]))
    order = [number for number in dict.fromkeys(order) if number != NEVER]
    place = {number: at for at, number in enumerate(order)} | {NEVER: NEVER}

    def renamed(node: Node) -> Node:
        back = node.returning and replace(node.returning, name=place[node.returning.name])
        return replace(node, name=place[node.name], left=place[node.left], returning=back)

    return replace(state, names=tuple(names[number] for number in order), nodes=tuple(map(renamed, nodes)))


def _claims_named_anew(state: State) -> State:
    """The same of texts: which return a claim is of matters only as far as it is another than that of an older claim."""
    here = [item for name in state.names for item in name.claims]
    for node in state.nodes:
        here += [*node.arriving, *node.settled, *(task.item for task in node.tasks if task.known)]
    lying = [*state.queue, *state.aside]
    looked_at = [item for node in state.nodes for item in (*node.strays, *(node.returning.items if node.returning else ()))]
    taken, count = _ranked({(item.number, item.taken) for item in here}, len(state.taken), 1)
    again, _ = _ranked({(item.number, item.again) for item in (*here, *lying, *looked_at)}, len(state.taken), 0)

    def named(items: tuple[Item, ...]) -> tuple[Item, ...]:
        return tuple(replace(item, taken=taken[item.number, item.taken], again=again[item.number, item.again]) for item in items)

    def unclaimed(items: tuple[Item, ...]) -> tuple[Item, ...]:
        return tuple(replace(item, taken=0, again=again[item.number, item.again]) for item in items)

    def task_named(task: Task) -> Task:
        return replace(task, item=named((task.item,))[0] if task.known else Item(task.item.number, task.item.deaths))

    names = tuple(replace(name, claims=named(name.claims)) if name.claims else name for name in state.names)
    nodes = tuple(
        replace(
            node,
            arriving=named(node.arriving),
            settled=named(node.settled),
            strays=unclaimed(node.strays),
            tasks=tuple(map(task_named, node.tasks)),
            returning=node.returning and replace(node.returning, items=unclaimed(node.returning.items)),
        )
        for node in state.nodes
    )
    gone = set(range(len(count))) - {item.number for item in (*lying, *here)}
    return replace(
        state,
        queue=unclaimed(state.queue),
        aside=unclaimed(state.aside),
        names=names,
        nodes=nodes,
        taken=tuple(count),
        deaths=tuple(0 if number in gone else deaths for number, deaths in enumerate(state.deaths)),
    )


def _ranked(numbers: set[tuple[int, int]], messages: int, first: int) -> tuple[dict[tuple[int, int], int], list[int]]:
    """Each number's place among those of its message; and how many there are of each message."""
    count, rank = [0] * messages, {}
    for message, number in sorted(numbers):
        rank[message, number] = count[message] + first
        count[message] += 1
    return rank, count
