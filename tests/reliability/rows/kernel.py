"""What the kernel does to a node: its interface goes down, its memory is bounded. Left out where this process may not do it."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Final

from fleet import Fleet, WorkerNode
from front import Front
from noted_tasks import RUNS
from polling import until
from sender import Sender

from reliability.bench import Bench
from reliability.kernel import HOST, MemoryGroup, Network
from reliability.result import Result, Row, Say
from reliability.rows.workers import MOST_STARTS
from workers.stack.servers.valkey_server import HOST as LOOPBACK

DOWN_S: Final = (0.5, 3.0)
LONG_S: Final = 12.0
"""Longer than a node may be silent: its claims go back, and it finds them gone."""
LONG_EVERY: Final = 5
MOST_BACK_S: Final = 20.0
GROUP_MB: Final = 192
EATEN_MB: Final = 400


def interface(trials: int, say: Say) -> Result:
    """Of one of two nodes: all its connections are cut off at once, without a word, and go on when it is up again."""
    with ExitStack() as resources:
        try:
            network = resources.enter_context(Network())
        except OSError as error:
            return _left_out(error)
        bench = resources.enter_context(Bench(say, nodes=1))
        node = _in(network, bench, resources)
        back_s: list[float] = []

        def cut(bench: Bench) -> None:
            network.down()
            time.sleep(LONG_S if len(back_s) % LONG_EVERY == LONG_EVERY - 1 else bench.chance.uniform(*DOWN_S))
            network.up()
            began_s = time.monotonic()
            until(
                lambda: bool(bench.fleet.app.control.inspect([node.name], timeout=0.3).ping()),
                f"{node.name} answers",
                bound_s=60,
            )
            back_s.append(time.monotonic() - began_s)

        result = bench.befall("interface", trials, cut)
    late = (f"the node answered after {max(back_s):.1f} s",) if max(back_s) > MOST_BACK_S else ()
    more = {**result.more, "node_back_max_s": max(back_s)}
    return Result(**{**vars(result), "more": more, "problems": result.problems + late})


def _in(network: Network, bench: Bench, resources: ExitStack) -> WorkerNode:
    """A second node, in that network; it reaches the fleet's servers by fronts there."""
    fleet = bench.fleet
    environ = dict(fleet.environ)
    ports = {port for value in environ.values() for port in _ports(value)}
    for port in ports:
        front = resources.enter_context(Front(port, host=HOST))
        environ = {name: value.replace(f"{LOOPBACK}:{port}", f"{HOST}:{front.port}") for name, value in environ.items()}
    node = WorkerNode(broker_url=environ["PERSONA_BROKER_URL"], name="node2", environ=environ)
    node._command = network.command(node._command)
    fleet._resources.callback(node.close)
    node.start(wait=False)
    until(lambda: f"{node.name} ready." in node.log(), f"{node.name} is ready", bound_s=90)
    fleet.nodes.append(node)
    return node


def _ports(value: str) -> list[int]:
    parts = value.split(f"{LOOPBACK}:")[1:]
    return [int("".join(each for each in part[:5] if each.isdigit())) for part in parts]


def memory(trials: int, say: Say) -> Result:
    """Tasks that take more than the node may have, each time: the kernel kills their child, as in a container, or now and
    then the node's main process, which is started anew, as a container is. They end as failures, and others are answered."""
    with ExitStack() as resources:
        try:
            group = resources.enter_context(MemoryGroup(GROUP_MB))
        except OSError as error:
            return _left_out(error)
        fleet = resources.enter_context(Fleet(app="fetch_tasks", concurrency=2))
        sender = resources.enter_context(Sender.of(fleet))
        node_ends = 0

        def limit() -> None:
            for pid in (fleet.node.pid, *fleet.node.pids):
                group.take(pid)

        def each_has_ended() -> bool:
            nonlocal node_ends
            if not fleet.node.running:
                node_ends += 1
                fleet.node.start()
                limit()
            return sender.done(ids, "FAILURE") == len(ids) and sender.done(good) == len(good)

        limit()
        ids, good = [], []
        for trial in range(1, trials + 1):
            ids.append(sender.send("test.eat", f"eaten {trial}", EATEN_MB))
            good.append(sender.send("test.note", f"good {trial}"))
            time.sleep(0.2)
        say(f"memory: {trials} are sent, until all are told")
        until(each_has_ended, "each has its end", bound_s=60 + 20 * trials)
        runs = [name for name in fleet.queue.lrange(RUNS, 0, -1) if name.startswith("eaten")]
        starts = max(runs.count(name) for name in set(runs))
        outcomes = sender.outcomes(ids + good)
        problems = (f"one was begun {starts} times",) if starts > MOST_STARTS else ()
        more = {"starts_max": starts, "node_ends": node_ends}
        return Result(trials, len(outcomes), lost=outcomes.count(None), more=more, problems=problems)


def _left_out(error: OSError) -> Result:
    return Result(0, 0, left_out=f"this process may not do it: {error}")


ROWS: Final = (
    Row("interface", (9,), "a node's network interface goes down, and comes up", interface),
    Row("memory", (22,), "tasks that take more memory than a control group allows", memory, stock="begins them again for ever"),
)
