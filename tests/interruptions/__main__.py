"""The long run: `python -m interruptions --exchanges 10000`. Prints the broken exchanges and the observations after them; fails
if an ordinary call then got another key's value or an error, or if a process crashed."""

from __future__ import annotations

import argparse
import json
import random
import sys

from interruptions.run import break_off
from interruptions.ways import WAYS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exchanges", type=int, default=10_000, help="to break off, in all")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--way", choices=tuple(WAYS), action="append", help="this one only; may be said again")
    given = parser.parse_args()
    broken = wrong = crashes = 0
    for outcome in break_off(given.exchanges, seed=given.seed, ways=given.way or tuple(WAYS)):
        seen = outcome.seen
        broken += seen.get("broken_off", 0)
        wrong += len(seen.get("wrong", ()))
        crashes += bool(outcome.crash)
        line = {"way": outcome.way, "latency_ms": outcome.latency_s * 1000, **seen}
        sys.stdout.write(json.dumps(line | ({"crash": outcome.crash} if outcome.crash else {})) + "\n")
        sys.stdout.flush()
    sys.stdout.write(json.dumps({"seed": given.seed, "broken_off": broken, "wrong": wrong, "crashes": crashes}) + "\n")
    return 1 if wrong or crashes or broken < given.exchanges else 0


if __name__ == "__main__":
    sys.exit(main())
