"""Real nodes and servers, and what befalls them. `make test-faults`, or `python -m reliability --rows child-killed,network`.

Each row prints its trials, what was lost, wrong or answered twice, and how long it took until tasks were answered again.
Exit code 0: nothing was lost, wrong or late (with --mutants: each was caught); 1: something was.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence

from reliability.page import record
from reliability.registry import MUTANTS, ROWS
from reliability.result import Result, Row
from reliability.table import figures, heading, line


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m reliability", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default="", help="these alone, by their names, with commas")
    parser.add_argument("--trials", type=int, default=0, help="of each row; else as many as each has, 30 at least")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--record", action="store_true", help="put the figures into docs/reliability.md")
    parser.add_argument("--list", action="store_true", help="say what rows there are")
    parser.add_argument("--mutants", action="store_true", help="spoil what happened, so that each checker must report it")
    given = parser.parse_args(words)
    known = {row.name: row for row in (MUTANTS if given.mutants else ROWS)}
    if given.list:
        for row in known.values():
            print(f"{row.name:20} {row.title}")  # noqa: T201
        return 0
    names = [name for name in given.rows.split(",") if name] or list(known)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background begins with it ignored
    results: dict[str, Result] = {}
    try:
        for name in names:
            results[name] = run(known[name], given.trials, quiet=given.json)
    except KeyboardInterrupt:
        _say("broken off: what it started is gone")
        return 130
    if given.record and not given.mutants:
        record({name: figures(result) for name, result in results.items() if not result.left_out})
    if given.json:
        print(json.dumps({name: figures(result) for name, result in results.items()}, indent=2))  # noqa: T201
    run_through = {name: result for name, result in results.items() if not result.left_out}
    bad = [name for name, result in run_through.items() if result.right == given.mutants or not result.trials]
    for name in bad:
        _say(f"{name}: {'was not reported' if given.mutants else '; '.join(results[name].problems) or 'not as it must be'}")
    return 1 if bad else 0


def run(row: Row, trials: int, *, quiet: bool) -> Result:
    began_s = time.monotonic()
    try:
        result = row.run(trials or row.trials, _say)
    except Exception as error:  # noqa: BLE001 - the other rows are run all the same
        result = Result(0, 0, problems=(f"{type(error).__name__}: {error}"[:2000],))
    if not quiet:
        print(heading(), flush=True)  # noqa: T201
        print(line(row, result), flush=True)  # noqa: T201
        if result.left_out:
            print(f"  left out: {result.left_out}", flush=True)  # noqa: T201
        for problem in result.problems:
            print(f"  {problem}", flush=True)  # noqa: T201
    _say(f"{row.name}: {time.monotonic() - began_s:.0f} s")
    return result


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
