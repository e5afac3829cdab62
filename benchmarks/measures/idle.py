"""What a fleet that nobody asks sends to its two servers, by command and by process."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Final, NamedTuple

from benchmarks.kit.contract import Benchmark, Figures, Progress
from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.fleet import Fleet
from benchmarks.kit.listening import Listening, by_sender, children_of, ports_of
from benchmarks.views.idle_view import view_idle

CHILDREN_PER_NODE: Final = 2
APP: Final = "workers"


class Size(NamedTuple):
    """The size of the measurement."""

    nodes: tuple[int, ...]
    settle_s: float
    """The first seconds: a child that begins catches up and warms itself."""
    count_s: float
    """In full a multiple of every period of an idle node; never less than its beats are apart."""


FULL: Final = Size(nodes=(1, 2), settle_s=14.0, count_s=30.0)
QUICK: Final = Size(nodes=(1,), settle_s=0.5, count_s=4.0)


def measure_idle(progress: Progress, *, quick: bool = False) -> Figures:
    """The figures. Raises BenchmarkFailedError when a process whose commands should be seen sent none."""
    size = QUICK if quick else FULL
    figures: Figures = {"children_per_node": CHILDREN_PER_NODE, "counted_s": size.count_s}
    with Fleet(progress, nodes=0, children=CHILDREN_PER_NODE, app=APP) as fleet:
        for nodes in size.nodes:
            fleet.add_nodes(nodes - fleet.nodes)
            progress(f"idle: {nodes} nodes, for {size.count_s:g} s")
            time.sleep(size.settle_s)
            measured = _measure(fleet, size.count_s)
            figures |= {f"nodes{nodes}_{name}": number for name, number in measured.items()}
    return figures


def _measure(fleet: Fleet, count_s: float) -> Figures:
    settings = fleet.settings
    with ExitStack() as listening:
        began_s = time.monotonic()
        heard = {
            server: listening.enter_context(Listening(url))
            for server, url in (("cache", settings.cache_url), ("broker", settings.broker_url))
        }
        time.sleep(count_s)
        senders = _senders(fleet)
    per_node = 1 / (time.monotonic() - began_s) / fleet.nodes
    figures: Figures = {}
    for server, each in heard.items():
        sent = by_sender(each.received, senders)
        received = sum((counted.total() for counted in sent.values()), 0)
        if not received:
            raise BenchmarkFailedError([f"the {server}'s server was sent nothing"], figures)
        figures |= {f"{server}_calls_per_s": each.calls.total() * per_node, f"{server}_received_per_s": received * per_node}
        figures |= {f"{server}_calls_{name}_per_s": count * per_node for name, count in each.calls.most_common()}
        for sender, counted in sorted(sent.items()):
            for name, count in counted.most_common():
                figures[f"{server}_received_{sender}_{name}_per_s"] = count * per_node
    for counted_as in ("calls", "received"):
        figures[f"{counted_as}_per_s"] = sum(figures[f"{server}_{counted_as}_per_s"] for server in heard)
    return figures


def _senders(fleet: Fleet) -> dict[str, set[int]]:
    """The ports of all main processes, and of all pool children."""
    ports: dict[str, set[int]] = {"main": set(), "children": set()}
    for pid in fleet.pids:
        ports["main"] |= ports_of(pid)
        for child in children_of(pid):
            ports["children"] |= ports_of(child)
    ports["main"] -= ports["children"]  # a child has its parent's sockets from before the fork, and uses none
    return ports


BENCHMARK: Final = Benchmark(
    "idle",
    "What a fleet that nobody asks sends to its servers, by command and by process.",
    15,
    measure_idle,
    view_idle,
)
