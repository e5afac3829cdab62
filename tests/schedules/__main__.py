"""Run the real classes of the cache in schedules: in orders of their steps that are chosen, every one with few preemptions.

Without options the programs of the table are run in turn, each in all orders without a preemption, then with one, and so on, and
programs by chance besides. A schedule that breaks a promise is made smaller, told step by step, and ends with a line that can be
put into a test.

Exit code 0: no promise was broken (with --mutants: each mutant was caught); 1: one was (with --mutant: it was caught).
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from typing import Any

from coherence.mutants import STAGE_MUTANT

from schedules.campaign import Campaign, run
from schedules.explore import MOST_PREEMPTIONS
from schedules.mutants import KEPT, MUTANTS, UNSEEN
from schedules.programs import line, parse
from schedules.running import staged
from schedules.scenarios import SCENARIOS
from schedules.shrink import preemptions, shrunk
from schedules.story import told

MUTANT_COUNT = 10_000


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m schedules", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, help="schedules to run: 10,000 unless given")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="the longest, whatever --count says")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="of what is chosen by chance")
    parser.add_argument("--preemptions", type=int, default=MOST_PREEMPTIONS, choices=range(MOST_PREEMPTIONS + 1), help="at most")
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), action="append", help="this one only; may be said again")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="the cache with this part taken out, until it is caught")
    parser.add_argument("--mutants", action="store_true", help=f"each mutant, in a process of its own, for {MUTANT_COUNT:,}")
    parser.add_argument("--replay", metavar="LINE", help="run this one schedule and tell it")
    parser.add_argument("--as-found", action="store_true", help="do not look for a smaller schedule that breaks the same promise")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--list", action="store_true", help="say what scenarios and mutants there are")
    given = parser.parse_args()
    if given.list:
        for name, text in SCENARIOS.items():
            print(f"{name:20} {text}")  # noqa: T201
        for name, mutant in MUTANTS.items():
            print(f"--mutant {name:34} {(mutant.__doc__ or '').partition('.')[0]}")  # noqa: T201
        return 0
    if given.mutants:
        return _mutants(given)
    if given.mutant:
        MUTANTS[given.mutant]()
    with staged() as execute:
        if given.replay is not None:
            outcome, lines = told(*parse(given.replay), execute)
            print("\n".join(lines))  # noqa: T201
            return int(bool(outcome.broken))
        campaign = run(
            execute,
            given.count or MUTANT_COUNT,
            seed=given.seed,
            longest_s=given.seconds,
            names=given.scenario or (),
            most=given.preemptions,
            stage=given.mutant == STAGE_MUTANT,
            until_found=bool(given.mutant),
            progress=_progress if sys.stderr.isatty() else lambda _: None,
        )
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
        stories = {}
        for name, found in campaign.found.items():
            program, plan, outcome = found if given.as_found else shrunk(found, execute)
            stories[name] = told(program, plan, execute)[1]
            figures = {"line": line(program, plan), "preemptions": preemptions(plan, outcome), "operations": program.size}
            stories[name].append(json.dumps(figures))
    if given.json:
        found = {name: json.loads(story[-1]) | {"broken": campaign.found[name][2].broken} for name, story in stories.items()}
        print(json.dumps({"seed": given.seed, **campaign.figures(), "found": found}, indent=2))  # noqa: T201
    else:
        for name, story in stories.items():
            print("\n".join([f"-- {name}", *story[:-1]]))  # noqa: T201
        _print(campaign, given.seed)
    return int(bool(campaign.found))


def _mutants(given: argparse.Namespace) -> int:
    """Each in a process of its own, for it changes the classes there."""
    figures: dict[str, Any] = {}
    for name in MUTANTS:
        command = [sys.executable, "-m", "schedules", "--mutant", name, "--json", "--seed", str(given.seed)]
        command += ["--count", str(given.count or MUTANT_COUNT)]
        command += ["--as-found"] * given.as_found
        began_s = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1) or not done.stdout:
            raise SystemExit(f"{name}: {done.stderr}")
        told_of = json.loads(done.stdout)
        caught = next(iter(told_of["found"].values()), None)
        if caught is None and name in KEPT and _is_caught_by(name, KEPT[name]):
            caught = {"line": KEPT[name], "kept": True}
        figures[name] = {"schedules": told_of["schedules"], "caught": caught, "unseen": UNSEEN.get(name, "")}
        if not given.json:
            seconds = time.monotonic() - began_s
            how = ("by hand: " * ("kept" in caught) + caught["line"]) if caught else f"not caught: {UNSEEN.get(name, 'WHY?')}"
            print(f"{name:34} {told_of['schedules']:>6,} schedules {seconds:>5.1f} s  {how}", flush=True)  # noqa: T201
    if given.json:
        print(json.dumps(figures, indent=2))  # noqa: T201
    return int(any(figure["caught"] is None and not figure["unseen"] for figure in figures.values()))


def _is_caught_by(mutant: str, text: str) -> bool:
    command = [sys.executable, "-m", "schedules", "--mutant", mutant, "--replay", text]
    return subprocess.run(command, capture_output=True, check=False).returncode == 1


def _progress(campaign: Campaign) -> None:
    pace = campaign.schedules / max(campaign.seconds, 1e-9)
    found = f", {len(campaign.found)} broke a promise" if campaign.found else ""
    sys.stderr.write(f"\r{campaign.schedules:,} schedules of {campaign.programs:,} programs, {pace:,.0f} a second{found} ")
    sys.stderr.flush()


def _print(campaign: Campaign, seed: int) -> None:
    for name, explorer in campaign.explorers.items():
        whole = f"every one with up to {explorer.whole} preemptions" if explorer.whole >= 0 else ""
        print(f"{name:20} {sum(explorer.ran):>7,} schedules  {whole}")  # noqa: T201
    levels = ", ".join(f"{ran:,} with {level}" for level, ran in enumerate(campaign.by_preemptions))
    print(  # noqa: T201
        f"seed {seed}: {campaign.schedules:,} schedules of {campaign.programs:,} programs ({levels} preemptions), "
        f"{campaign.steps:,} steps, {campaign.seconds:.0f} s; {len(campaign.found)} broke a promise"
    )


if __name__ == "__main__":
    sys.exit(main())
