"""Explore the model of the coherence protocol, and that of the fetch: go through every order of events of a configuration, and
hold the promises of docs/coherence.md and docs/fetch.md against each state.

Without options every configuration is explored whole, the wide ones too, which takes minutes. With --mutant one rule is
changed, and the shortest way to a broken promise is looked for in that mutant's own configuration. To see what a change of
your own does, change a rule in tests/model and run `--short`. --table prints the table of docs/coherence.md.

Exit code 0: all promises hold (with --mutants: each mutant was refuted); 1: one does not; 2: --seconds ended an exploration.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any, Final

from model.configs import CONFIGS
from model.exploring import Found
from model.fetch.configs import FETCH_CONFIGS
from model.fetch.configs import explore as explore_fetch
from model.fetch.mutants import FETCH_MUTANTS
from model.fetch.rules import FetchModel
from model.mutants import MUTANTS
from model.search import explore
from model.stepping import Model
from model.story import told

_CONFIGS: Final[dict[str, Any]] = {**CONFIGS, **FETCH_CONFIGS}
_MUTANTS: Final[dict[str, Any]] = {**MUTANTS, **FETCH_MUTANTS}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m model", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", choices=sorted(_CONFIGS), action="append", help="this one only; may be said again")
    parser.add_argument("--short", action="store_true", help="the small configurations only: within a minute")
    parser.add_argument("--mutant", choices=sorted(_MUTANTS), help="the model with this rule changed; prints the trace")
    parser.add_argument("--mutants", action="store_true", help="every mutant in turn: each must break a promise")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="the longest for one exploration")
    parser.add_argument("--unreduced", action="store_true", help="leave no order of events out (see model/search.py)")
    parser.add_argument("--trace", action="store_true", help="print the way to a broken promise, step by step")
    parser.add_argument("--table", action="store_true", help="print the figures as a table in Markdown")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--list", action="store_true", help="say what configurations and mutants there are")
    given = parser.parse_args()
    if given.list:
        for config in _CONFIGS.values():
            print(f"{config.name:18} {config.about}{'' if config.short else ' (long)'}")  # noqa: T201
        for name, mutant in _MUTANTS.items():
            print(f"--mutant {name:36} {mutant.about}")  # noqa: T201
        return 0
    if given.table:
        print("| configuration | states | transitions | depth | seconds | |\n|---|---|---|---|---|---|")  # noqa: T201
    if given.mutant or given.mutants:
        return _mutants([given.mutant] if given.mutant else list(_MUTANTS), given)
    names = given.config or [name for name, config in _CONFIGS.items() if config.short or not given.short]
    figures, code = {}, 0
    for name in names:
        found = _explored(name, name, {}, given)
        figures[name] = _figures(found)
        code = max(code, 1 if found.broken else 0 if found.whole else 2)
    _print(figures, given)
    return 1 if any(figure["broken"] for figure in figures.values()) else code


def _mutants(names: list[str], given: argparse.Namespace) -> int:
    """One mutant: 1 if it breaks a promise. All: 1 if one does not."""
    figures = {}
    for name in names:
        mutant = _MUTANTS[name]
        config = (given.config or [mutant.config])[0]
        found = _explored(name, config, mutant.rules, given)
        figures[name] = {"config": config, "steps": max(0, len(found.trace) - 1), **_figures(found)}
    _print(figures, given)
    refuted = [bool(figure["broken"]) for figure in figures.values()]
    return int(not all(refuted)) if given.mutants else int(all(refuted))


def _explored(name: str, config: str, rules: dict[str, Callable[..., Any]], given: argparse.Namespace) -> Found:
    def progress(states: int, transitions: int, depth: int, waiting: int, seconds: float) -> None:
        counts = f"{states:,} states, {transitions:,} transitions, depth {depth}, {waiting:,} at this depth"
        sys.stderr.write(f"\r{name}: {counts}, {seconds:.0f} s ")
        sys.stderr.flush()

    seen = progress if sys.stderr.isatty() else None
    if config in FETCH_CONFIGS:
        found = explore_fetch(FetchModel(FETCH_CONFIGS[config], rules), most_seconds=given.seconds, progress=seen)
    else:
        model = Model(CONFIGS[config], rules, reduced=not given.unreduced)
        found = explore(model, most_seconds=given.seconds, progress=seen)
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    if given.table:
        outcome = found.broken or ("whole" if found.whole else "not whole")
        figures = f"{found.states:,} | {found.transitions:,} | {found.depth} | {found.seconds:.1f}"
        print(f"| {name} | {figures} | {outcome} |", flush=True)  # noqa: T201
    elif not given.json:
        outcome = found.broken or ("whole" if found.whole else "NOT WHOLE: the time was up")
        figures = f"{found.states:>9,} states {found.transitions:>10,} transitions {found.depth:>3} deep {found.seconds:>6.1f} s"
        print(f"{name:38} {figures}  {outcome}", flush=True)  # noqa: T201
        if found.broken and (given.trace or given.mutant):
            print("\n".join(told(found.trace)))  # noqa: T201
    return found


def _figures(found: Found) -> dict[str, Any]:
    figures = {name: getattr(found, name) for name in ("states", "transitions", "depth", "whole", "broken")}
    figures["seconds"] = round(found.seconds, 1)
    if found.broken:
        figures["trace"] = [name for name, _ in found.trace]
    return figures


def _print(figures: dict[str, dict[str, Any]], given: argparse.Namespace) -> None:
    if given.json:
        print(json.dumps(figures, indent=2))  # noqa: T201
        return
    states, transitions = (sum(figure[name] for figure in figures.values()) for name in ("states", "transitions"))
    seconds = sum(figure["seconds"] for figure in figures.values())
    if len(figures) > 1 and not given.table:
        print(f"{'in all':38} {states:>9,} states {transitions:>10,} transitions {'':>8} {seconds:>6.1f} s")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
