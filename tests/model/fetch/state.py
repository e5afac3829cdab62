"""What there is: the broker with its lists, the nodes with what they have in hand. All of it immutable.

What the model counts for its promises alone is said to be *told to nobody*: no rule decides by it.
"""

from __future__ import annotations

from typing import Final

import msgspec

NEVER: Final = -1


class Item(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """A message as it lies in a list. Its text are `number`, `deaths` and `again`: what a script compares. `taken`: how often the
    message had been claimed by the time of this claim; told to nobody."""

    number: int
    deaths: int = 0
    again: int = 0
    taken: int = 0


class Task(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """A delivered item: to `run`, to `bury` (a dead letter), or to `settle` (its outcome is kept). `known`: the connection
    that it came by is still there; else there is nothing to acknowledge."""

    item: Item
    step: str = "run"
    known: bool = True


class Return(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """Between the two round trips of a return: what was read of the claims under `name`. `counted`: their node is thought dead.
    `leaves`: the node ends the name by it."""

    name: int
    items: tuple[Item, ...]
    counted: bool = False
    leaves: bool = False


class Name(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """A node's name at the broker. `claims`: the oldest first. `silent`: it has not beaten for ten seconds. `waits`: a `BLMOVE`
    was asked for under it, and not answered yet, whatever became of the connection since."""

    claims: tuple[Item, ...] = ()
    silent: bool = False
    waits: bool = False


class Node(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """A living node, by its name at the broker; `NEVER` of a dead one. `hears`: the answer of its wait would reach it;
    `arriving`:
    that answer, on its way. `settled`: to be acknowledged by the next exchange. `strays`: what its last beat found that it does
    not know. `returning`: it is in the middle of it. `left`: its former name, under which it could not give back."""

    name: int
    hears: bool = False
    arriving: tuple[Item, ...] = ()
    tasks: tuple[Task, ...] = ()
    settled: tuple[Item, ...] = ()
    strays: tuple[Item, ...] = ()
    returning: Return | None = None
    left: int = NEVER


class State(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """One moment of all. `queue`: the next one first. `outcomes`: of each message `""`, `failure`, `success`.
    `taken`, `deaths`: how often each was claimed, and came back from a silent node; told to nobody. `left`: how many more of each
    fault. `unsent`: how many messages are yet to come."""

    queue: tuple[Item, ...]
    names: tuple[Name, ...]
    nodes: tuple[Node, ...]
    outcomes: tuple[str, ...]
    taken: tuple[int, ...]
    deaths: tuple[int, ...]
    left: tuple[int, ...]
    unsent: int = 0
    aside: tuple[Item, ...] = ()
    broken: str = ""
