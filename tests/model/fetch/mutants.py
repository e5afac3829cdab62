"""The model of the fetch with one of its rules changed: each breaks a promise within the named configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from model.fetch import promises, rules
from model.fetch.rules import By, FetchModel, put, without
from model.fetch.state import Item, Return, State, Task


class FetchMutant(msgspec.Struct, frozen=True):
    """`config`: the configuration within which a promise breaks; `promise`: how that begins."""

    about: str
    config: str
    promise: str
    rules: Mapping[str, Callable[..., Any]]


FETCH_MUTANTS: Final[dict[str, FetchMutant]] = {}


def mutant(config: str, promise: str) -> Callable[[Callable[[], dict[str, Any]]], None]:
    """Enter what the function returns, the changed rules by name, under its own name and docstring."""

    def enter(function: Callable[[], dict[str, Any]]) -> None:
        about = " ".join((function.__doc__ or "").split())
        FETCH_MUTANTS[function.__name__] = FetchMutant(about, config, promise, function())

    return enter


@mutant("fetch-deaths", "one place")
def popped_before_it_is_recorded() -> dict[str, Any]:
    """`BRPOP`: the message is in the node's hands alone until that records it."""

    def moved(_: FetchModel, state: State, __: int) -> tuple[State, Item | None]:
        return (replace(state, queue=state.queue[1:]), state.queue[0]) if state.queue else (state, None)

    return {"moved": moved}


@mutant("fetch-three", "one place")
def returned_twice() -> dict[str, Any]:
    """What was read of a dead node's claims goes back, whether or not another has given it back meanwhile."""

    def put_back(model: FetchModel, state: State, name: int, item: Item, *, counted: bool, again: bool) -> State:
        claims = without(state.names[name].claims, [item])
        new = replace(model.marked(model, item, counted=counted, again=again), taken=0)
        names = put(state.names, name, replace(state.names[name], claims=claims))
        deaths = put(state.deaths, item.number, max(state.deaths[item.number], new.deaths))
        return replace(state, queue=(new, *state.queue), names=names, deaths=deaths)

    return {"put_back": put_back}


@mutant("fetch-waits", "one place")
def claim_forgotten() -> dict[str, Any]:
    """A node does not look for claims that it does not know of."""
    return {"strays": lambda _, __: ()}


@mutant("fetch-deaths", "what another owns")
def another_claim_acknowledged() -> dict[str, Any]:
    """A message is acknowledged by its id, whoever has claimed it."""

    def removed(_: FetchModel, state: State, __: int, own: Item) -> State:
        for number, name in enumerate(state.names):
            for item in name.claims:
                if item.number == own.number:
                    rest = without(name.claims, [item])
                    broken = state.broken or promises.acknowledged(own, item)
                    return replace(state, names=put(state.names, number, replace(name, claims=rest)), broken=broken)
        return state

    return {"removed": removed}


@mutant("fetch-waits", "what another owns")
def returned_with_the_same_text() -> dict[str, Any]:
    """A message that is returned a second time without a death is not marked once more: so it was until the model found it."""

    def marked(_: FetchModel, item: Item, *, counted: bool, again: bool) -> Item:
        return replace(item, deaths=item.deaths + counted, again=max(item.again, int(again)))

    return {"marked": marked}


@mutant("fetch-three", "counted once a death")
def counted_by_two() -> dict[str, Any]:
    """A claim is found by the message's id: of two that give it back to the queue both count the death."""

    def put_back(model: FetchModel, state: State, name: int, item: Item, *, counted: bool, again: bool) -> State:
        found = next((other for other in state.names[name].claims if other.number == item.number), None)
        if found is None:
            place = next((at for at, other in enumerate(state.queue) if other.number == item.number), None)
            if place is None or not counted:
                return state
            again_counted = replace(state.queue[place], deaths=state.queue[place].deaths + 1)
            return replace(state, queue=put(state.queue, place, again_counted))
        after: State = rules.put_back(model, state, name, found, counted=counted, again=again)
        return after

    return {"put_back": put_back}


@mutant("fetch-connections", "counted once a death")
def every_return_counted() -> dict[str, Any]:
    """A message that its node gives back itself counts a death."""

    def marked(_: FetchModel, item: Item, *, counted: bool, again: bool) -> Item:
        return replace(item, deaths=item.deaths + again, again=item.again + again)

    return {"marked": marked}


@mutant("fetch-deaths", "counted once a death")
def silence_not_looked_at_again() -> dict[str, Any]:
    """The claims of a node that has beaten again since they were read go back all the same."""

    def given_back(model: FetchModel, state: State, back: Return, *, again: bool = True) -> State:
        for item in reversed(back.items):
            state = model.put_back(model, state, back.name, item, counted=back.counted, again=again)
        return state

    return {"given_back": given_back}


@mutant("fetch-deaths", "dead letters")
def buried_at_the_first_death() -> dict[str, Any]:
    """A message whose node has died once is not tried again."""
    return {"delivered": lambda _, item: Task(item, "bury" if item.deaths else "run")}


@mutant("fetch-deaths", "one success")
def success_overwritten() -> dict[str, Any]:
    """The outcome that comes last is kept."""

    def kept(_: FetchModel, state: State, item: Item, outcome: str) -> State:
        return replace(state, outcomes=put(state.outcomes, item.number, outcome))

    return {"kept": kept}


@mutant("fetch-connections", "one place")
def acknowledged_without_an_outcome() -> dict[str, Any]:
    """A task whose outcome could not be kept is acknowledged like any other."""

    def refused(by: By, place: int) -> Iterator[State]:
        task = by.node.tasks[place]
        yield by.then(tasks=put(by.node.tasks, place, replace(task, step="settle")))

    return {"refused": refused}
