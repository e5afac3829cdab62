"""Prove the promises of docs/coherence.md by induction, for any number of processes, keys, records and entries.

Each invariant must hold at first and after each step from any state in which all hold; and a step that serves a value from such
a state must keep its promise. Then it is shown that each step can happen at all. With --mutants one rule at a time is changed:
then something must fail, and the state that shows it is printed.

Exit code 0: all is proved (with --mutants: each mutant is refuted); 1: something is not; a query without an answer counts as
that.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from typing import Any

from model.proof.invariants import INVARIANTS
from model.proof.mutants_log import MUTANTS
from model.proof.obligations import Answer, Small, each_step_keeps, first_holds, promises_follow
from model.proof.promises import PROMISES
from model.proof.steps import RULES
from model.proof.words import told


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m model.proof", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--step", choices=sorted(RULES), action="append", help="this step only; may be said again")
    parser.add_argument("--mutants", action="store_true", help="change one rule at a time: each must be refuted")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), action="append", help="this one only")
    parser.add_argument("--each", action="store_true", help="print every obligation, and not one line a step")
    parser.add_argument("--list", action="store_true", help="say what the invariants, promises, steps and mutants are")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args()
    if given.list:
        return _list()
    return _mutants(given.mutant or list(MUTANTS), given) if given.mutants or given.mutant else _prove(given)


def _prove(given: argparse.Namespace) -> int:
    began_s = time.perf_counter()
    answers: list[Answer] = []
    if given.step is None:
        answers += _shown("at first", first_holds(), given)
    for name in given.step or RULES:
        answers += _shown(name, each_step_keeps(name), given)
    answers += _shown("promises", (a for a in promises_follow() if a.step in (given.step or RULES)), given, each=True)
    small = Small()
    idle = [name for name in given.step or RULES if not small.can_happen(name)]
    left = [answer for answer in answers if answer.outcome != "proved"]
    figures = {
        "obligations": len(answers),
        "proved": len(answers) - len(left),
        "steps": len(given.step or RULES),
        "steps that can happen": len(given.step or RULES) - len(idle),
        "seconds": round(time.perf_counter() - began_s, 1),
    }
    if given.json:
        print(json.dumps({**figures, "each": [answer._asdict() for answer in answers]}, indent=2))  # noqa: T201
    else:
        for name in idle:
            print(f"{name}: cannot happen, so that nothing is said of it")  # noqa: T201
        print(", ".join(f"{value} {name}" for name, value in figures.items()))  # noqa: T201
    return int(bool(left or idle))


def _shown(name: str, answers: Iterable[Answer], given: argparse.Namespace, *, each: bool = False) -> list[Answer]:
    found = []
    for answer in answers:
        found.append(answer)
        if not given.json and (given.each or each or answer.outcome != "proved"):
            print(f"  {answer.step:22} {answer.claim:28} {answer.seconds:6.2f} s  {answer.outcome}", flush=True)  # noqa: T201
    if not given.json and found and not each:
        seconds, proved = sum(answer.seconds for answer in found), sum(answer.outcome == "proved" for answer in found)
        print(f"{name:24} {proved} of {len(found)} proved {seconds:6.2f} s", flush=True)  # noqa: T201
    return found


def _mutants(names: list[str], given: argparse.Namespace) -> int:
    figures: dict[str, Any] = {}
    for name in names:
        began_s = time.perf_counter()
        mutant = MUTANTS[name]
        broken = Small(mutant.changed).broken(mutant.step, mutant.claim)
        figures[name] = {
            "refuted": broken is not None,
            "step": mutant.step,
            "claim": mutant.claim,
            "seconds": round(time.perf_counter() - began_s, 2),
        }
        if not given.json:
            outcome = "NOT refuted" if broken is None else "refuted"
            print(f"{name:34} {figures[name]['seconds']:5.2f} s  {outcome}: {mutant.step} / {mutant.claim}", flush=True)  # noqa: T201
            if broken is not None and given.mutant:
                print(f"  {mutant.about}")  # noqa: T201
                print("\n".join(told(broken, changed=broken.step in mutant.changed)))  # noqa: T201
    if given.json:
        print(json.dumps(figures, indent=2))  # noqa: T201
    return int(not all(figure["refuted"] for figure in figures.values()))


def _list() -> int:
    for kind, things in (
        ("promise", {name: promise for name, (_, promise) in PROMISES.items()}),
        ("invariant", INVARIANTS),
        ("step", RULES),
    ):
        for name, thing in things.items():
            print(f"{kind} {name}: {' '.join((thing.__doc__ or '').split())}")  # noqa: T201
    for name, mutant in MUTANTS.items():
        print(f"--mutant {name}: {mutant.about}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
