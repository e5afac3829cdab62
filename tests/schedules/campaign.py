"""Many schedules: of the table's programs in turn, and of programs by chance."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from schedules.explore import MOST_PREEMPTIONS, Explorer
from schedules.generate import program as generated
from schedules.programs import Program, parse
from schedules.running import Execute
from schedules.scenarios import SCENARIOS
from schedules.shrink import Found

_AT_ONCE: Final = 20
_AT_ONCE_THREADS: Final = 30
"""Of programs in which threads share a process: they have more steps, and with that more schedules of each kind."""
GENERATED: Final = "by chance"
_SHARE_GENERATED: Final = 0.2


@dataclass
class Campaign:
    """What was run. `found`: the schedules that broke a promise, by their scenario, the first of each."""

    schedules: int = 0
    steps: int = 0
    programs: int = 0
    by_preemptions: list[int] = field(default_factory=lambda: [0] * (MOST_PREEMPTIONS + 1))
    explorers: dict[str, Explorer] = field(default_factory=dict)
    found: dict[str, Found] = field(default_factory=dict)
    seconds: float = 0.0

    def figures(self) -> dict[str, Any]:
        return {
            "schedules": self.schedules,
            "steps": self.steps,
            "programs": self.programs,
            "by_preemptions": self.by_preemptions,
            "violations": len(self.found),
            "seconds": round(self.seconds, 1),
            "scenarios": {
                name: {"schedules": sum(explorer.ran), "whole_to": explorer.whole} for name, explorer in self.explorers.items()
            },
        }


def run(
    execute: Execute,
    count: int,
    *,
    seed: int,
    longest_s: float = math.inf,
    names: Iterable[str] = (),
    most: int = MOST_PREEMPTIONS,
    stage: bool = False,
    until_found: bool = False,
    progress: Callable[[Campaign], None] = lambda _: None,
) -> Campaign:
    """Run so many schedules, or all there are of the named scenarios. `stage`: see `Options`. `until_found`: end with the first
    that breaks a promise."""
    campaign = Campaign()
    began_s = time.monotonic()
    names = list(names)
    programs = {name: _staged(parse(SCENARIOS[name])[0], stage) for name in names or SCENARIOS}
    campaign.explorers = {name: Explorer(program, execute, seed=seed, most=most) for name, program in programs.items()}
    turns = {name: _turn(campaign, name, explorer) for name, explorer in campaign.explorers.items()}
    chance = random.Random(seed)
    campaign.programs = len(programs)

    def ended() -> bool:
        campaign.seconds = time.monotonic() - began_s
        progress(campaign)
        if campaign.seconds >= longest_s:
            return True
        return campaign.schedules >= count or bool(until_found and campaign.found) or not (turns or not names)

    while not ended():
        for name in [*turns] or [GENERATED]:
            if name in turns and next(turns[name], None) is None:
                del turns[name]
            if not names and by_chance(campaign) < campaign.schedules * _SHARE_GENERATED:
                explorer = Explorer(_staged(generated(chance.choice), stage), execute, seed=seed, most=most)
                campaign.programs += 1
                next(_turn(campaign, GENERATED, explorer), None)
            if ended():
                break
    return campaign


def by_chance(campaign: Campaign) -> int:
    """How many schedules were of programs by chance."""
    return campaign.schedules - sum(sum(explorer.ran) for explorer in campaign.explorers.values())


def _turn(campaign: Campaign, name: str, explorer: Explorer) -> Iterator[bool]:
    """Run some of its schedules, again and again."""
    before = list(explorer.ran)
    processes = [doing.process for doing in explorer.program.tasks]
    at_once = _AT_ONCE if len(set(processes)) == len(processes) else _AT_ONCE_THREADS
    for number, (plan, outcome) in enumerate(explorer.schedules(), start=1):
        campaign.schedules += 1
        campaign.steps += len(outcome.run.who)
        for level, ran in enumerate(explorer.ran):
            campaign.by_preemptions[level] += ran - before[level]
        before = list(explorer.ran)
        if outcome.broken:
            campaign.found.setdefault(name, (explorer.program, plan, outcome))
            return
        if number % at_once == 0:
            yield True


def _staged(program: Program, stage: bool) -> Program:
    return replace(program, options=replace(program.options, stage=True)) if stage else program
