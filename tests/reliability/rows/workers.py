"""Workers die, stand still and are told to end."""

from __future__ import annotations

import itertools
import time
from functools import partial
from typing import Final

from fleet import Fleet, pings
from noted_tasks import RUNS
from polling import until
from sender import Sender

from benchmarks.kit.compare import quantile
from reliability.bench import Bench
from reliability.result import Result, Row, Say
from reliability.rows.deaths import of_deaths
from reliability.watch import PATTERN
from workers.node.fetch.claims import SOURCES

POP_ENVIRON: Final = {"PERSONA_DOOR": "false"}
GIVEN_S: Final = 2.0
END_S: Final = 60.0
"""A node ends when its last tasks have, which take ten times as long on a busy machine; a child waits for a second besides."""
START_S: Final = 60.0
CHILDREN: Final = 2
MOST_STARTS: Final = 3
MOST_LEFT: Final = 2


def nothing(trials: int, say: Say) -> Result:
    with Bench(say) as bench:
        return bench.befall("control", trials, lambda _: time.sleep(0.5))


def child_killed(trials: int, say: Say) -> Result:
    """Celery gives a lost child 10 s to have finished after all."""

    def kill(bench: Bench) -> None:
        node = bench.any_node()
        until(lambda: len(node.pids) > 0, "it has a child")
        node.kill_child(bench.chance.choice(node.pids))

    with Bench(say) as bench:
        return bench.befall("child killed", trials, kill)


def rolling(trials: int, say: Say) -> Result:
    """Each node in turn is told to end, as the containers do it, and started anew: it ends by itself, without KILL."""
    took_s: list[float] = []

    def roll(bench: Bench) -> None:
        node = bench.fleet.nodes[len(took_s) % len(bench.fleet.nodes)]
        began_s = time.monotonic()
        node.stop(wait=False)
        until(lambda: not node.running, "it has ended", bound_s=END_S)
        assert node.exit_code == 0, node.log()
        took_s.append(time.monotonic() - began_s)
        node.start()

    with Bench(say, environ={"REMAP_SIGTERM": "SIGQUIT"}) as bench:
        result = bench.befall("rolling", trials, roll)
    return Result(**{**vars(result), "more": {**result.more, "end_p99_s": quantile(took_s, 0.99), "end_max_s": max(took_s)}})


def starting(trials: int, say: Say) -> Result:
    """A node starts while its broker is away, stands still or is full. Meanwhile one of its children is killed."""
    turns = itertools.count()

    def start(bench: Bench) -> None:
        node, broker, server = bench.fleet.nodes[-1], bench.fleet.broker, bench.fleet.queue
        ways = (
            (broker.kill, broker.start),
            (broker.freeze, broker.thaw),
            (partial(server.config_set, "maxmemory", "1mb"), partial(server.config_set, "maxmemory", "0")),
        )
        begin, end = ways[next(turns) % len(ways)]
        node.kill()
        begin()
        try:
            node.start(wait=False)
            until(lambda: not node.running or len(node.pids) == CHILDREN, "it has forked", bound_s=START_S)
            if node.running:
                node.kill_child(bench.chance.choice(node.pids))
                time.sleep(bench.chance.uniform(0.0, 1.0))  # how much longer the broker is so: it may come back at any moment
        finally:
            end()
        until(lambda: not node.running or pings(bench.fleet.app, node.name), "it answers, or has ended", bound_s=START_S)

    with Bench(say, concurrency=CHILDREN) as bench:
        return bench.befall("starting", trials, start)


def pop_window(trials: int, say: Say) -> Result:
    """A node stands still, a task is queued, the server gives it away, the node is killed: nobody has begun it."""
    lost, _ = _pop_window(trials, say, "fetch_tasks")
    stock_lost, stock_trials = _pop_window(max(1, trials // 3), say, "stock_tasks")
    return Result(trials, trials, lost=lost, more={"stock_lost": stock_lost, "stock_trials": stock_trials})


def _pop_window(trials: int, say: Say, app: str) -> tuple[int, int]:
    with Fleet(app=app, concurrency=1, environ=POP_ENVIRON) as fleet, Sender.of(fleet) as sender:
        ids: list[str] = []
        attempts = itertools.count(1)
        while len(ids) < trials:
            assert next(attempts) <= 5 * trials, "the server gives nothing away"
            if len(ids) % 5 == 0:
                say(f"pop window: {app}: {len(ids)} of {trials}")
            node = fleet.node
            until(lambda: _waits(fleet), "it waits for a message")
            node.freeze()
            task_id = sender.send("test.note", f"{len(ids)}")
            if _given_away(fleet):
                ids.append(task_id)
                node.kill()
                node.start()
            else:  # its wait had just ended
                node.thaw()
                sender.wait([task_id])
        # The visibility time-out of the stock way brings nothing back that was not noted: see its own record of them.
        if app == "stock_tasks":
            sender.wait([sender.send("test.note", "last")])
            time.sleep(2)
            unacked = int(fleet.queue.hlen("unacked"))
            return len(ids) - sender.done(ids) - unacked, trials
        try:
            sender.wait(ids, bound_s=60)
        except AssertionError:
            say("pop window: not all are answered")
        return len(ids) - sender.done(ids), trials


def _waits(fleet: Fleet) -> bool:
    return any(client["cmd"] in ("blmove", "brpop") for client in fleet.queue.client_list())


def _given_away(fleet: Fleet) -> bool:
    try:
        until(lambda: fleet.queued() == 0, "the server has given it away", bound_s=GIVEN_S)
    except AssertionError:
        return False
    return True


def told_and_killed(trials: int, say: Say) -> Result:
    """A node is killed as a notice comes: what it leaves at the broker does not grow."""
    with Fleet(concurrency=1) as fleet:
        sizes = []
        for trial in range(1, trials + 1):
            if trial % 5 == 1 or trial == trials:
                say(f"told and killed: {trial} of {trials}")
            fleet.client.invalidate(PATTERN)
            fleet.node.kill()
            fleet.node.start()
            sizes.append((_keys(fleet), _bindings(fleet)))
        fleet.ask_plain("Are you still there?", "calm-flowing-planning")
        grown, bound = sizes[-1][0] - sizes[0][0], sizes[-1][1] - sizes[0][1]
        problems = (f"{trials} deaths have left {grown} keys and {bound} bindings",) if max(grown, bound) > MOST_LEFT else ()
        return Result(trials, trials, more={"keys_grown": grown, "bindings_grown": bound}, problems=problems)


def _keys(fleet: Fleet) -> int:
    """Without those that name a dead node's queues, which are forgotten after ten minutes."""
    return sum(1 for name in fleet.queue.scan_iter(count=1000) if not name.startswith(SOURCES))


def _bindings(fleet: Fleet) -> int:
    return sum(int(fleet.queue.scard(name)) for name in fleet.queue.scan_iter("_kombu.binding.*"))


def deadly(trials: int, say: Say) -> Result:
    """Tasks that end their child each time. They are begun no more often than the rule says, and end as failures; others are
    answered meanwhile."""
    with Fleet(app="fetch_tasks", concurrency=2) as fleet, Sender.of(fleet) as sender:
        ids, good = [], []
        for trial in range(1, trials + 1):
            if trial % 10 == 1 or trial == trials:
                say(f"deadly: {trial} of {trials}")
            ids.append(sender.send("test.die", f"deadly {trial}"))
            good.append(sender.send("test.note", f"good {trial}"))
            time.sleep(0.2)
        began_s = time.monotonic()
        until(
            lambda: (sender.done(ids, "FAILURE") == len(ids) and sender.done(good) == len(good)) or not fleet.node.running,
            "each has its end",
            bound_s=60 + 20 * trials,
        )
        runs = [name for name in fleet.queue.lrange(RUNS, 0, -1) if name.startswith("deadly")]
        starts = max(runs.count(name) for name in set(runs))
        outcomes = sender.outcomes(ids + good)
        ended = () if fleet.node.running else (f"the node ended with {fleet.node.exit_code}",)
        return Result(
            trials,
            len(outcomes),
            lost=outcomes.count(None),
            more={"starts_max": starts, "all_ended_s": time.monotonic() - began_s},
            problems=(*ended, *((f"one was begun {starts} times",) if starts > MOST_STARTS else ())),
        )


ROWS: Final = (
    Row("control", (0,), "no fault", nothing),
    Row("child-killed", (1,), "a pool child is killed", child_killed),
    Row("node-killed", (2,), "a node is killed", of_deaths("killed")),
    Row(
        "pop-window",
        (3,),
        "a node is killed between the server's giving a task away and its own noting it",
        pop_window,
        stock="loses it",
    ),
    Row(
        "told-and-killed",
        (14,),
        "a node is killed as it hears of an invalidation",
        told_and_killed,
        stock="leaves lists and bindings",
    ),
    Row("rolling", (4,), "nodes are told to end and started anew, one after the other", rolling),
    Row(
        "starting",
        (2,),
        "a child is killed while its node starts, and the broker is away, stands still or is full",
        starting,
        stock="its worker ends",
    ),
    Row("node-frozen", (17,), "a node stands still for longer than its claims last", of_deaths("frozen"), trials=30),
    Row("deadly", (22,), "a task ends its process each time", deadly, stock="queues it for ever (celery#9082), or never tells"),
)
