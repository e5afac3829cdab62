"""What processes know of invalidations: the checker's workloads, each for so long until its fault has happened often enough, and
real nodes whose slots are busy or whose children come and go."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from coherence.profiles import PROFILES
from coherence.workload import Workload
from fleet import Fleet
from polling import until
from schedules.campaign import run as run_schedules
from schedules.running import staged

from benchmarks.kit.compare import quantile
from benchmarks.kit.endpoint import Fault
from benchmarks.kit.model_server import answer_to
from pipeline.models import PersonaRequest
from reliability.bench import BOUND_S, Bench
from reliability.result import SEED, Result, Row, Say
from reliability.watch import PATTERN

STEPS: Final = 3000
ROUNDS: Final = 40
SCHEDULES: Final = 10_000
WAIT_S: Final = 5.0
LONG_BOUND: Final = {"PERSONA_STALENESS_BOUND_S": "60"}
EQUAL: Final = 60
KEY: Final = "calm-flowing-planning"


def checked(profile: str, *faults: str) -> Callable[[int, Say], Result]:
    """The checker's run of this profile until these faults together have happened so often."""

    def run(trials: int, say: Say) -> Result:
        happened: Counter[str] = Counter()
        reads, violations, rounds, stalest_s = 0, [], 0, 0.0
        while sum(happened[name] for name in faults) < trials and rounds < ROUNDS:
            report = Workload(seed=SEED + rounds, steps=STEPS, **PROFILES[profile]).run()
            rounds += 1
            happened += report.faults
            reads += sum(report.reads.values())
            violations += report.violations
            stalest_s = max(stalest_s, report.stalest_s)
            say(f"{profile}: {sum(happened[name] for name in faults)} of {trials} faults, {len(violations)} violations")
        counts = {name: float(happened[name]) for name in faults}
        told = tuple(f"{each.rule}: {each.what}" for each in violations[:10])
        more = counts | {"stalest_s": stalest_s}
        return Result(int(sum(counts.values())), reads, wrong=len(violations), more=more, problems=told)

    return run


def raced(trials: int, say: Say) -> Result:
    """Fills against invalidations, in chosen orders of the steps of the cache's own classes."""
    with staged() as execute:
        campaign = run_schedules(execute, max(trials, 1) if trials != 30 else SCHEDULES, seed=SEED)
    found = tuple(f"{name}: {outcome.broken}" for name, (_, _, outcome) in campaign.found.items())
    say(f"raced: {campaign.schedules} schedules")
    return Result(campaign.schedules, campaign.schedules, wrong=len(found), problems=found)


def busy(trials: int, say: Say) -> Result:
    """All slots run tasks that do not end; the staleness bound is a minute, so that only the notice can be what a node heard."""
    with Fleet(nodes=2, concurrency=2, environ=LONG_BOUND) as fleet:
        fleet.endpoint.script(Fault("hang"))
        questions = [PersonaRequest.create(f"Question {number}?", KEY) for number in range(16)]
        tickets = [fleet.client.submit_request(question) for question in questions]
        until(lambda: fleet.endpoint.calls >= 4, "all slots are busy")
        before, began_s, took_s, missed = _cpu_s(fleet), time.monotonic(), [], 0
        for trial in range(1, trials + 1):
            asked_s = time.monotonic()
            done = fleet.client.invalidate(PATTERN, wait_s=WAIT_S)
            took_s.append(time.monotonic() - asked_s)
            missed += len(done.applied) != 2
            if trial % 10 == 1:
                say(f"busy: {trial} of {trials}")
            time.sleep(0.1)
        share = (_cpu_s(fleet) - before) / (time.monotonic() - began_s) / 2 * 100
        for ticket in tickets:
            ticket.revoke()
        fleet.endpoint.script(Fault())
        del tickets, ticket
        problems = (f"{missed} times a node did not hear of it",) if missed else ()
        more = {"heard_p50_s": quantile(took_s, 0.5), "heard_max_s": max(took_s), "main_cpu_percent": share}
        return Result(trials, 2 * trials, wrong=missed, more=more, problems=problems)


def _cpu_s(fleet: Fleet) -> float:
    """Of the main processes."""
    ticks = 0
    for node in fleet.nodes:
        fields = Path(f"/proc/{node.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / 100


def reforked(trials: int, say: Say) -> Result:
    """Children that are replaced after ten tasks, on nodes that have answers already; a child that stands still for longer than
    the bound serves nothing of before when it goes on."""

    def freeze(bench: Bench) -> None:
        node = bench.any_node()
        if node.pids:
            pid = bench.chance.choice(node.pids)
            try:
                node.freeze(pid)
                time.sleep(1.5 * BOUND_S)
                node.thaw(pid)
            except ProcessLookupError:
                pass  # it has had its ten tasks

    # Each replacement is a second of a processor, and without the door each read waits in a slot for the answer that was just
    # invalidated: at the usual load the queue would grow, and nothing but its length would be measured.
    rates = {"hits_per_s": 5.0, "slow_per_s": 1.0, "delay_ms": 100.0}
    with Bench(say, environ={"PERSONA_DOOR": "false"}, arguments=["--max-tasks-per-child", "10"], **rates) as bench:
        return bench.befall("reforked", trials, freeze)


def stampede(trials: int, say: Say) -> Result:
    """Many equal new questions at once; one computation each, or one more where the child that computes is killed."""
    with Fleet(nodes=2, concurrency=3, delay_ms=400) as fleet:
        fleet.endpoint.answer = answer_to
        wrong, too_many, longest_s, killed = 0, 0, 0.0, 0
        for trial in range(1, trials + 1):
            kills = trial % 5 == 0
            request = PersonaRequest.create(f"Question of all in trial {trial}?", KEY)
            calls, began_s = fleet.endpoint.calls, time.monotonic()
            waiting = [fleet.app.send_task("persona.process", args=[request.to_wire()], queue="persona") for _ in range(EQUAL)]
            if kills:
                until(lambda calls=calls: fleet.endpoint.calls > calls, "one computes")
                peer = fleet.endpoint.asked[-1].peer
                pid = _pid_of(fleet, peer[1])
                if pid is not None:
                    fleet.nodes[0].kill_child(pid)
                    killed += 1
            answers = {result.get(timeout=60)["content"] for result in waiting}
            longest_s = max(longest_s, time.monotonic() - began_s)
            wrong += len(answers) != 1
            too_many += fleet.endpoint.calls - calls > 1 + kills
            if trial % 5 == 1:
                say(f"stampede: {trial} of {trials}")
        problems = (f"{too_many} times a question was computed too often",) if too_many else ()
        more = {"children_killed": killed, "longest_s": longest_s}
        return Result(trials, trials * EQUAL, wrong=wrong, more=more, problems=problems)


def _pid_of(fleet: Fleet, port: int) -> int | None:
    """The pool child that has the connection from that port."""
    inodes = {
        fields[9]
        for fields in (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
        if int(fields[1].rpartition(":")[2], 16) == port
    }
    for node in fleet.nodes:
        for pid in node.pids:
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                try:
                    if str(descriptor.readlink())[len("socket:[") : -1] in inodes:
                        return pid
                except FileNotFoundError:
                    continue
    return None


HOLD: Final = ("freeze",)
ROWS: Final = (
    Row(
        "notices-lost",
        (13,),
        "connections to the log break, and nothing goes through for a moment",
        checked("network", "break_off", "cut"),
        stock="a broadcast that is missed is told to nobody",
    ),
    Row("busy", (15,), "invalidations while every slot runs a task", busy, stock="a Broadcast queue waits for a slot"),
    Row("reforked", (16, 17), "children come and go, and stand still", reforked),
    Row("process-frozen", (17,), "processes stand still across invalidations", checked("loopback", *HOLD)),
    Row(
        "log-lost",
        (18,),
        "the log is trimmed, wiped, evicted, and begins anew",
        checked("loopback", "trim", "flush", "evict_records", "evict_tail", "restart_empty"),
    ),
    Row("raced", (19,), "fills against invalidations, schedule by schedule", raced),
    Row("stampede", (20,), f"{EQUAL} equal new questions at once; each fifth time the child that computes is killed", stampede),
)
