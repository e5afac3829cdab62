"""Real nodes and servers under mixed load for half an hour, and a fault every 5 to 15 s. `make soak`, or
`python -m reliability.soak --minutes 8 --seed 7`.

Ends with what was lost, wrong, answered twice or stale beyond the bound, and with the slopes of memory, descriptors, connections
and keys. Exit code 0: all that is none, and nothing grows; 1: something is not so.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
from pathlib import Path
from typing import Any

from reliability.soak.faults import FAULTS, OUTLIVED_BY_CHILDREN
from reliability.soak.run import EVERY_S, Soak, soak
from reliability.soak.slopes import Slope


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m reliability.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="of the order of the faults")
    parser.add_argument("--every", type=float, nargs=2, default=EVERY_S, metavar=("LEAST", "MOST"), help="seconds between faults")
    parser.add_argument("--without-rabbitmq", action="store_true", help="no second broker, also where one is installed")
    parser.add_argument("--only", nargs="+", choices=sorted(FAULTS), default=[], help="these faults alone", metavar="FAULT")
    parser.add_argument(
        "--outlived",
        action="store_const",
        const=OUTLIVED_BY_CHILDREN,
        dest="only",
        help="only faults that the first node's children outlive, so that their memory can be followed",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--samples", type=Path, help="a file for the samples, a JSON object a line")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background begins with it ignored
    try:
        every_s = given.every[0], given.every[1]
        second = not given.without_rabbitmq
        done = soak(given.minutes * 60, seed=given.seed, every_s=every_s, say=_say, second=second, only=given.only)
    except KeyboardInterrupt:
        _say("broken off: what it started is gone")
        return 130
    if given.samples:
        given.samples.write_text("".join(json.dumps({"at_s": each.at_s, **each.values}) + "\n" for each in done.samples))
    print(json.dumps(figures(done), indent=2) if given.json else "\n".join(lines(done)))  # noqa: T201
    return 1 if done.problems else 0


def figures(done: Soak) -> dict[str, Any]:
    result = vars(done.result) | {"more": dict(done.result.more)}
    return {
        "seed": done.seed,
        "minutes": round(done.seconds / 60, 1),
        **{name: value for name, value in result.items() if name not in ("back_s", "problems")},
        "faults": dict(done.faults),
        "program": {"answered": done.program.answered, "wrong": done.program.wrong, "told": dict(done.program.told)},
        "shop": {**done.shop, "left_out": done.left_out},
        "slopes": {slope.name: slope._asdict() for slope in done.slopes},
        "problems": done.problems,
    }


def lines(done: Soak) -> list[str]:
    result = done.result
    told = ", ".join(f"{name}: {count}" for name, count in done.program.told.items()) or "none"
    return [
        f"seed {done.seed}, {done.seconds / 60:.1f} minutes, {sum(done.faults.values())} faults:",
        *(f"  {name} {count}" for name, count in done.faults.items()),
        f"tasks {result.tasks}: lost {result.lost}, wrong or stale {result.wrong}, twice {result.twice}",
        f"reads watched for staleness {result.more['watched']:g}; longest wait for an answer {result.more['longest_s']:.1f} s",
        f"a program's answers {done.program.answered}, wrong {done.program.wrong}; errors it was told: {told}",
        *_of_shop(done),
        "",
        "| figure | samples | early | late | an hour | 95 % | tells |",
        "|---|---|---|---|---|---|---|",
        *map(_row, done.slopes),
        "",
        *(done.problems or ["nothing was lost, nothing grows"]),
    ]


def _of_shop(done: Soak) -> list[str]:
    shop = done.shop
    if done.left_out:
        return [f"The second broker, RabbitMQ, was left out: {done.left_out}"]
    if "problem" in shop:
        return []
    told = ", ".join(f"{name}: {count}" for name, count in shop["told"].items()) or "none"
    return [
        f"an app on RabbitMQ: tasks {shop['sent']}, lost {shop['lost']}, failed {shop['failed']}; "
        f"reads {shop['reads']}, stale {shop['stale']}; changes {shop['changes']}, announced there {shop['announced']}; "
        f"longest wait {shop['longest_s']:.1f} s; errors its sender was told: {told}"
    ]


def _row(slope: Slope) -> str:
    between = f"{slope.low:+.2f} to {slope.high:+.2f}"
    figures = f"{slope.samples} | {slope.first:.1f} | {slope.last:.1f} | {slope.an_hour:+.2f} | {between}"
    return f"| {slope.name} | {figures} | {slope.told} |"


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
