"""The broker dies, stands still, breaks connections off and loses its data; so does the network before it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from fleet import Fleet

from pipeline.models import PersonaRequest
from reliability.bench import Bench
from reliability.checkers import too_late
from reliability.result import Result, Row, Say
from reliability.rows.deaths import of_deaths
from reliability.wire import Mode

FROZEN_S: Final = 3.0
FLAP_S: Final = 3.0
FLAP_EVERY_S: Final = 0.2
PAUSE_MS: Final = 2000
HELD_S: Final = 6.0
"""Longer than the time-out of a connection, which is 5 s."""
BRIEF_S: Final = 1.0
MOST_BACK_S: Final = 20.0
"""A node notices within 5 s that a connection is dead, and has several, some of which it uses one after the other."""
MOST_FDS: Final = 8
"""More than before: a connection that is about to be made or closed."""
ASKED_AT_ONCE: Final = 6
MOST_WAIT_S: Final = 45.0
KEY: Final = "calm-flowing-planning"
MODES: Final[tuple[Mode, ...]] = ("hold up", "hold down", "half-open", "slice", "slow", "cut a reply")


def killed(trials: int, say: Say) -> Result:
    def kill(bench: Bench) -> None:
        bench.fleet.broker.kill()
        time.sleep(bench.chance.uniform(0.0, 1.5))
        bench.fleet.broker.start()

    with Bench(say) as bench:
        return bench.befall("broker killed", trials, kill)


def emptied(trials: int, say: Say) -> Result:
    """All that the broker holds is gone, results as well: each program that waits by our own client has its answer."""
    back_s, lost, wrong, asked = [], 0, 0, 0
    with Fleet(nodes=2, concurrency=2, delay_ms=100) as fleet:
        for trial in range(1, trials + 1):
            if trial % 5 == 1 or trial == trials:
                say(f"broker emptied: {trial} of {trials}")
            questions = [f"Question {number} of trial {trial}?" for number in range(ASKED_AT_ONCE)]
            tickets = [fleet.client.submit_request(PersonaRequest.create(question, KEY)) for question in questions]
            fleet.queue.flushall()
            began_s = time.monotonic()
            for question, ticket in zip(questions, tickets, strict=True):
                asked += 1
                try:
                    wrong += question not in ticket.result(MOST_WAIT_S).content
                except Exception as error:  # noqa: BLE001 - whatever it was told, it has no answer
                    say(f"broker emptied: {type(error).__name__}")
                    lost += 1
            back_s.append(time.monotonic() - began_s)
        late = too_late(back_s, MOST_WAIT_S)
    return Result(trials, asked, lost=lost, wrong=wrong, back_s=tuple(back_s), problems=("it took too long",) if late else ())


def frozen(trials: int, say: Say) -> Result:
    def freeze(bench: Bench) -> None:
        bench.fleet.broker.freeze()
        time.sleep(FROZEN_S)
        bench.fleet.broker.thaw()

    with Bench(say) as bench:
        return bench.befall("broker frozen", trials, freeze)


def flapping(trials: int, say: Say) -> Result:
    """All connections, the callers' too, and the subscriptions: again and again for some seconds."""

    def flap(bench: Bench) -> None:
        ends_s = time.monotonic() + FLAP_S
        while time.monotonic() < ends_s:
            for kind in ("normal", "pubsub"):
                bench.fleet.queue.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            time.sleep(FLAP_EVERY_S)

    with Bench(say) as bench:
        time.sleep(1)
        before = descriptors(bench.fleet)
        result = bench.befall("connections flap", trials, flap)
        more = max(after - first for after, first in zip(descriptors(bench.fleet), before, strict=True))
    leaked = (f"a node has {more} descriptors more than before",) if more > MOST_FDS else ()
    return Result(**{**vars(result), "more": {**result.more, "descriptors_more": more}, "problems": result.problems + leaked})


def descriptors(fleet: Fleet) -> list[int]:
    """Of each main process."""
    return [len(list(Path(f"/proc/{node.pid}/fd").iterdir())) for node in fleet.nodes]


def paused(trials: int, say: Say) -> Result:
    """CLIENT PAUSE, of writes and of all in turn."""
    kinds = ("WRITE", "ALL")
    count = iter(range(trials))

    def pause(bench: Bench) -> None:
        bench.fleet.queue.execute_command("CLIENT", "PAUSE", PAUSE_MS, kinds[next(count) % 2])
        time.sleep(PAUSE_MS / 1000)

    with Bench(say) as bench:
        return bench.befall("broker paused", trials, pause)


def network(trials: int, say: Say) -> Result:
    """Between the nodes and their broker; each mode in turn, a reset of all connections after each."""
    count = iter(range(trials))

    def break_(bench: Bench) -> None:
        wire = bench.wires["broker"]
        mode = MODES[next(count) % len(MODES)]
        wire.mode = mode
        time.sleep(HELD_S if mode in ("hold up", "hold down", "half-open") else BRIEF_S)
        wire.mode = "pass"
        if mode in ("slice", "slow"):
            wire.reset()

    with Bench(say, wires=("broker",)) as bench:
        return bench.befall("network", trials, break_, most_back_s=MOST_BACK_S)


ROWS: Final = (
    Row(
        "broker-killed",
        (5,),
        "the broker is killed and comes back with its file",
        killed,
        stock="runs again what was running (its documentation)",
    ),
    Row("broker-emptied", (5,), "the broker loses all its data", emptied, stock="callers wait for ever"),
    Row("broker-restarted", (5,), "the broker is restarted in order", of_deaths("restarted")),
    Row("broker-frozen", (6,), f"the broker stands still for {FROZEN_S:g} s", frozen),
    Row("flapping", (7,), f"every connection is closed each {FLAP_EVERY_S:g} s, for {FLAP_S:g} s", flapping),
    Row("broker-paused", (8,), f"CLIENT PAUSE for {PAUSE_MS / 1000:g} s, of writes and of all", paused),
    Row("network", (9,), "the network holds, drops, slices, slows and cuts", network),
    Row("broker-full", (11,), "the broker is full", of_deaths("full"), stock="its worker ends, and loses what it popped"),
    Row("broker-read-only", (11,), "the broker is read-only", of_deaths("read_only")),
    Row("results-killed", (29,), "the result server is killed", of_deaths("results_killed"), stock="loses the result"),
    Row("results-frozen", (29,), "the result server stands still", of_deaths("results_frozen")),
    Row("results-full", (29,), "the result server is full", of_deaths("results_full")),
)
