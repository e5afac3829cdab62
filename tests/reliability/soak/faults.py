"""The faults of a soak: those of the rows, each with its end."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from typing import Final

from fleet import WorkerNode
from poison import NO_MESSAGE, NO_TASK
from polling import until

from reliability.bench import Bench
from reliability.rows.cache import FAULTS as CACHE_FAULTS
from reliability.wire import Mode

FROZEN_S: Final = (1.0, 13.0)
AWAY_S: Final = (0.0, 2.0)
HELD_S: Final = (0.5, 7.0)
_MODES: Final[tuple[Mode, ...]] = ("hold up", "hold down", "half-open", "slice", "slow", "cut a reply")


def _victim(bench: Bench) -> WorkerNode:
    """Any but the first: its memory is measured."""
    return bench.chance.choice(bench.fleet.nodes[1:])


def _sleep(chance: random.Random, span_s: tuple[float, float]) -> None:
    time.sleep(chance.uniform(*span_s))


def _kill_child(bench: Bench) -> None:
    node = _victim(bench)
    if node.pids:
        node.kill_child(bench.chance.choice(node.pids))


def _kill_node(bench: Bench) -> None:
    node = _victim(bench)
    node.kill()
    node.start(wait=False)


def _end_node(bench: Bench) -> None:
    node = _victim(bench)
    node.stop(wait=False)
    until(lambda: not node.running, f"{node.name} has ended", bound_s=60)
    node.start(wait=False)


def _freeze_node(bench: Bench) -> None:
    node = bench.any_node()
    node.freeze()
    _sleep(bench.chance, FROZEN_S)
    node.thaw()


def _freeze_child(bench: Bench) -> None:
    node = bench.any_node()
    if node.pids:
        pid = bench.chance.choice(node.pids)
        try:
            node.freeze(pid)
            _sleep(bench.chance, HELD_S)
            node.thaw(pid)
        except ProcessLookupError:
            pass  # it was replaced meanwhile


def _kill_broker(bench: Bench) -> None:
    bench.fleet.broker.kill()
    _sleep(bench.chance, AWAY_S)
    bench.fleet.broker.start()


def _freeze_broker(bench: Bench) -> None:
    bench.fleet.broker.freeze()
    _sleep(bench.chance, HELD_S)
    bench.fleet.broker.thaw()


def _pause_broker(bench: Bench) -> None:
    bench.fleet.queue.execute_command("CLIENT", "PAUSE", 1500, bench.chance.choice(("WRITE", "ALL")))


def _flap(bench: Bench) -> None:
    for _ in range(5):
        for kind in ("normal", "pubsub"):
            bench.fleet.queue.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        time.sleep(0.2)


def _fill_broker(bench: Bench) -> None:
    bench.fleet.queue.config_set("maxmemory", "1mb")
    _sleep(bench.chance, AWAY_S)
    bench.fleet.queue.config_set("maxmemory", "0")


def _wire(name: str) -> Callable[[Bench], None]:
    def break_(bench: Bench) -> None:
        wire = bench.wires[name]
        wire.mode = bench.chance.choice(_MODES)
        _sleep(bench.chance, HELD_S)
        wire.mode = "pass"
        wire.reset()

    return break_


def _spoil_cache(bench: Bench) -> None:
    bench.chance.choice(CACHE_FAULTS)(bench)


def _poison(bench: Bench) -> None:
    item = bench.chance.choice([*NO_MESSAGE.values(), *map(json.dumps, NO_TASK.values())])
    bench.fleet.queue.lpush("persona", item)


FAULTS: Final[Mapping[str, Callable[[Bench], None]]] = {
    "child killed": _kill_child,
    "node killed": _kill_node,
    "node ended": _end_node,
    "node frozen": _freeze_node,
    "child frozen": _freeze_child,
    "broker killed": _kill_broker,
    "broker frozen": _freeze_broker,
    "broker paused": _pause_broker,
    "broker full": _fill_broker,
    "connections flap": _flap,
    "network to the broker": _wire("broker"),
    "network to the cache": _wire("cache"),
    "cache spoiled": _spoil_cache,
    "poison": _poison,
}

OUTLIVED_BY_CHILDREN: Final = (
    "child killed",
    "node killed",
    "node ended",
    "node frozen",
    "child frozen",
    "network to the cache",
    "cache spoiled",
    "poison",
)
"""By those of the first node, which no fault kills; a node that loses its broker ends its children that are at work."""
