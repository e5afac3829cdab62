"""A schedule as people read it: each step, and what came of it."""

from __future__ import annotations

from coherence.history import Applied, Made, Read, Record, Written

from schedules.programs import Decisions, Program, line
from schedules.running import Execute, Outcome
from schedules.tasks import BREAK_OFF, Run


def told(program: Program, plan: Decisions, execute: Execute) -> tuple[Outcome, list[str]]:
    """Run it once more, and tell it. The last line can be put into a test."""
    steps: list[str] = []
    at = dict(plan)
    names = [f"{number} {doing}" for number, doing in enumerate(program.tasks)]

    def note(run: Run, place: str) -> None:
        process = program.tasks[run.task.index].process
        steps.append(f"  {run.step:>4}  {run.task.index} {process:<3} {place}")
        planned = at.get(run.step)
        if planned == BREAK_OFF:
            steps.append("        ... and is broken off here")
        elif planned is not None and planned < len(program.tasks) and planned != run.task.index:
            steps.append(f"        ... stands still before that; task {planned} goes on")

    outcome = execute(program, plan, note)
    history = [f"  {_told(record)}" for record in outcome.history]
    return outcome, [
        "tasks:",
        *(f"  {name}" for name in names),
        "steps:",
        *steps,
        "history:",
        *history,
        outcome.broken or "no promise is broken",
        f"replay({line(program, plan)!r})",
    ]


def _told(record: Record) -> str:
    match record:
        case Made():
            return f"{record.began_ns / 1e9:.6f}  made {record.id} for {record.key} of {record.versions}"
        case Read():
            when = f"{record.began_ns / 1e9:.6f}"
            return f"{when}  process {record.pid} read {record.key}: {record.made} from {record.source}, {record.versions}"
        case Written():
            when = f"{record.began_ns / 1e9:.6f} to {record.ended_ns / 1e9:.6f}"
            durable = "durable" if record.durable else "not durable"
            return f"{when}  process {record.pid} invalidated {' '.join(record.patterns)}: {record.versions}, {durable}"
        case Applied():
            return f"{record.ended_ns / 1e9:.6f}  node {record.node} applied {record.written}: {record.versions}"
    return repr(record)
