"""What must not happen. Each promise of docs/coherence.md is a comparison of the versions in a served value with those that
the read
must not fall short of. These are settled when the read begins, by what has returned until then."""

from __future__ import annotations

from model.state import NEVER, NONE, Numbers, Process, State
from model.stepping import At, higher


def acknowledged(state: State, returned: int) -> Numbers:
    """By source the highest version of the first so many durable invalidations that returned."""
    versions = [0] * len(state.versions)
    for pattern, version in state.returned[:returned]:
        versions[pattern] = max(versions[pattern], version)
    return tuple(versions)


def here(state: State, process: Process) -> Numbers:
    """What this process has invalidated itself, durably or not, and what the main process of its node had applied."""
    return process.own if process.node == NEVER else higher(process.own, state.nodes[process.node].applied)


def due(state: State, process: Process, deps: Numbers) -> dict[str, Numbers]:
    """What a read that begins now must not fall short of, as fields of its thread; only for the sources that it depends on."""
    locally = here(state, process)
    due = {
        "must": higher(acknowledged(state, len(state.returned)), locally),
        "must_l1": higher(acknowledged(state, state.elapsed), locally),
        "here": locally,
    }
    return {name: tuple(v if source in deps else 0 for source, v in enumerate(versions)) for name, versions in due.items()}


def broken(at: At, value: Numbers, source: str) -> str:
    """The promise that it breaks to serve this value from that source; nothing if none."""
    if source == "degraded" and at.model.config.strict:
        return "P2: served from L1 without being confirmed"
    bound = {"l1": at.thread.must_l1, "degraded": at.thread.here}.get(source, at.thread.must)
    everywhere = acknowledged(at.state, at.state.elapsed if source == "l1" else len(at.state.returned))
    for number, (version, least) in enumerate(zip(value, bound, strict=True)):
        if version != NONE and version < least:
            promise = "P5" if everywhere[number] < least else "P2" if source == "l1" else "P1"
            if number not in at.model.config.keys[at.thread.key].direct:
                promise += " and P3"
            return f"{promise}: version {version} of source {number} served from {source}, {least} was invalidated before"
    return ""
