"""What must not happen to a message, whoever dies, freezes or loses its connection."""

from __future__ import annotations

from model.fetch.state import Item, State


def broken(state: State) -> str:
    """The promise that this state breaks; nothing if none."""
    if state.broken:
        return state.broken
    everywhere = [*state.queue, *state.aside, *(item for name in state.names for item in name.claims)]
    for number, outcome in enumerate(sent(state)):
        items = [item for item in everywhere if item.number == number]
        if len(items) > 1:
            return f"one place: message {number} is in {len(items)} places"
        if not items and not outcome:
            return f"one place: message {number} has no outcome and is in no place"
        for item in items:
            if item.deaths != state.deaths[number]:
                return f"counted once a death: message {number} has {item.deaths}, and {state.deaths[number]} nodes died with it"
    return ""


def sent(state: State) -> tuple[str, ...]:
    """The outcomes of the messages that the broker has accepted."""
    return state.outcomes[: len(state.outcomes) - state.unsent]


def acknowledged(own: Item, removed: Item) -> str:
    """The promise that it breaks to acknowledge one claim and remove another."""
    if own.taken == removed.taken:
        return ""
    return f"what another owns: claim {own.taken} of message {own.number} was acknowledged, and claim {removed.taken} removed"


def kept(before: State, after: State, number: int) -> str:
    """The promise that it breaks to keep this outcome."""
    overwritten = before.outcomes[number] == "success" and after.outcomes[number] != "success"
    return f"one success: that of message {number} was overwritten" if overwritten else ""


def buried(state: State, number: int, most: int) -> str:
    deaths = state.deaths[number]
    return "" if deaths >= most else f"dead letters: message {number} is buried after {deaths} deaths"


def at_rest(state: State) -> str:
    """Where nothing more will happen by itself, and a node lives: every message must have its outcome."""
    for number, outcome in enumerate(sent(state)):
        if not outcome:
            return f"one place: message {number} lies there for ever, and nobody will run it"
    return ""
