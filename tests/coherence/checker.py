"""Whether a history keeps the promises of docs/coherence.md. A pure function of the history.

| rule    | what it demands of a value that was served                                                                      |
|---------|-----------------------------------------------------------------------------------------------------------------|
| l2      | from L2, joined or computed: nothing in it is older than what was acknowledged as durable before the read began  |
| bound   | from L1: nothing in it was superseded by what was acknowledged as durable the staleness bound before that        |
| process | from anywhere: nothing in it is older than what this process itself has acknowledged, durable or not             |
| node    | from anywhere: nothing in it is older than what the node's main process had applied before the read began        |
| strict  | nothing was served from L1 that could not be confirmed                                                           |
| value   | it was computed or set before, for this key, with these versions                                                 |

A read is judged by when it *began*: a process that is frozen after the cache has decided returns an old value late, and no
cache can tell. An invalidation that was not durable is promised to its own process and to the nodes that applied it, so only
the rules `process` and `node` know it. A value that a read computed is judged by when the operation around it began where its
inputs came through the cache: each of them is a read of its own in the history, and judged there.

A server that acknowledged and lost it (a failover to a replica that lagged, a restart from an old snapshot) excuses nothing: the
log that follows is another one, by which all older entries are void. With `lost_excused` the invalidations that were acknowledged
by the old server and may be lost are not held against reads that ended after it did; those acknowledged later always are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from coherence.audited import Audits
from coherence.history import Applied, Ended, Fault, Made, Read, Record, Written


@dataclass(frozen=True)
class Violation:
    rule: str
    read: Read
    what: str


@dataclass
class Report:
    """The counts of a history. `awaited`: the reads that were a task's. `stale_in_bound`: values from L1 that were superseded
    elsewhere, and still within the bound."""

    violations: list[Violation] = field(default_factory=list)
    steps: int = 0
    misses: int = 0
    broken_off: int = 0
    reads: Counter[str] = field(default_factory=Counter)
    awaited: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    applied: int = 0
    stale_in_bound: int = 0
    stalest_s: float = 0.0
    audits: Audits = field(default_factory=Audits)

    @property
    def rules(self) -> set[str]:
        return {violation.rule for violation in self.violations}

    def figures(self) -> dict[str, object]:
        return {
            "steps": self.steps,
            "violations": len(self.violations),
            "broken_rules": sorted(self.rules),
            "reads": dict(self.reads),
            "awaited": dict(self.awaited),
            "misses": self.misses,
            "broken_off": self.broken_off,
            "written": dict(self.written),
            "applied": self.applied,
            "faults": dict(sorted(self.faults.items())),
            "stale_in_bound": self.stale_in_bound,
            "stalest_s": round(self.stalest_s, 4),
        }

    def add(self, other: Report) -> None:
        """Take in what another history has shown."""
        self.violations += other.violations
        for name in ("steps", "misses", "broken_off", "applied", "stale_in_bound"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("reads", "awaited", "written", "faults"):
            getattr(self, name).update(getattr(other, name))
        self.stalest_s = max(self.stalest_s, other.stalest_s)
        self.audits.add(other.audits)


class Acknowledged:
    """The newest version of each key that had been acknowledged before a moment."""

    def __init__(self) -> None:
        self._noted: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        self._ordered: dict[str, tuple[list[int], list[int]]] = {}

    def note(self, versions: dict[str, int], ended_ns: int) -> None:
        for key, version in versions.items():
            self._noted[key].append((ended_ns, version))

    def newest(self, key: str, before_ns: float) -> int:
        """0 for none."""
        times, versions = self._order(key)
        place = bisect_left(times, before_ns)
        return versions[place - 1] if place else 0

    def superseded_ns(self, key: str, version: int) -> int | None:
        """When a newer version than this one was first acknowledged."""
        times, versions = self._order(key)
        place = bisect_left(versions, version + 1)
        return times[place] if place < len(times) else None

    def _order(self, key: str) -> tuple[list[int], list[int]]:
        if key not in self._ordered:
            times, versions, newest = [], [], 0
            for ended_ns, version in sorted(self._noted.get(key, ())):
                newest = max(newest, version)
                times.append(ended_ns)
                versions.append(newest)
            self._ordered[key] = times, versions
        return self._ordered[key]


class _Sorted:
    """A history by what its records are for."""

    def __init__(self, history: Iterable[Record], report: Report, *, lost_excused: bool) -> None:
        self._kept: list[Acknowledged] = [Acknowledged()]
        self._ends_ns: list[int] = []
        self.by_process: defaultdict[int, Acknowledged] = defaultdict(Acknowledged)
        self.by_node: defaultdict[str, Acknowledged] = defaultdict(Acknowledged)
        self.made: dict[str, Made] = {}
        self.reads: list[Read] = []
        writings: list[Written] = []
        losses: list[tuple[int, int]] = []
        for record in history:
            match record:
                case Made():
                    self.made[record.id] = record
                case Read():
                    self.reads.append(record)
                    report.reads[record.source] += 1
                    report.awaited[record.source] += record.awaited
                case Written():
                    report.written["durable" if record.durable else "not durable"] += 1
                    self.by_process[record.pid].note(record.versions, record.ended_ns)
                    if record.durable:
                        writings.append(record)
                case Applied():
                    report.applied += 1
                    self.by_node[record.node].note(record.versions, record.ended_ns)
                case Fault():
                    report.faults[record.name] += 1
                    if lost_excused and record.lost_from_ns:
                        losses.append((record.at_ns, record.lost_from_ns))
                case Ended():
                    report.steps += record.steps
                    report.misses += record.misses
                    report.broken_off += record.broken_off
        self._note_durable(writings, sorted(losses))

    def _note_durable(self, writings: list[Written], losses: list[tuple[int, int]]) -> None:
        """What counts after each of the losses: all but what may be lost by then."""
        self._ends_ns = [at_ns for at_ns, _ in losses]
        self._kept += [Acknowledged() for _ in losses]
        for written in writings:
            lost = False
            for number, kept in enumerate(self._kept):
                if number:
                    at_ns, from_ns = losses[number - 1]
                    lost = lost or (written.ended_ns >= from_ns and written.began_ns <= at_ns)
                if not lost:
                    kept.note(written.versions, written.ended_ns)

    def everywhere(self, read: Read) -> Acknowledged:
        """The fault of this read."""
        return self._kept[bisect_left(self._ends_ns, read.ended_ns)]


def check(history: Iterable[Record], bound_s: float, *, lost_excused: bool = False) -> Report:
    """Judge every read of a history, in any order. `bound_s`: the staleness bound that its caches were given."""
    history = list(history)
    report = Report(audits=Audits.of(history))
    known = _Sorted(history, report, lost_excused=lost_excused)
    bound_ns = bound_s * 1e9
    for read in known.reads:
        everywhere = known.everywhere(read)
        unconfirmed = read.degraded and not read.strict
        _judge_value(report, read, known.made.get(read.made))
        if read.degraded and read.strict and read.source == "l1":
            report.violations.append(Violation("strict", read, "served from L1 without being confirmed"))
        for key in read.versions:
            through_cache = read.source == "no" and key not in read.direct
            began_ns = read.operation_ns if through_cache else read.began_ns
            if unconfirmed:
                pass
            elif read.source == "l1" or through_cache:
                _judge(report, "bound", read, key, everywhere.newest(key, began_ns - bound_ns))
            else:
                _judge(report, "l2", read, key, everywhere.newest(key, began_ns))
            _judge(report, "process", read, key, known.by_process[read.pid].newest(key, began_ns))
            if read.node:
                _judge(report, "node", read, key, known.by_node[read.node].newest(key, began_ns))
        if read.source == "l1" and not unconfirmed:
            _count_staleness(report, read, everywhere)
    return report


def _count_staleness(report: Report, read: Read, everywhere: Acknowledged) -> None:
    moments = [everywhere.superseded_ns(key, version) for key, version in read.versions.items()]
    ages_ns = [read.began_ns - moment for moment in moments if moment is not None and moment < read.began_ns]
    if ages_ns:
        report.stale_in_bound += 1
        report.stalest_s = max(report.stalest_s, max(ages_ns) / 1e9)


def _judge(report: Report, rule: str, read: Read, key: str, acknowledged: int) -> None:
    version = read.versions[key]
    if version < acknowledged:
        what = f"{read.key} from {read.source} holds {key} at version {version}; {acknowledged} had been acknowledged"
        report.violations.append(Violation(rule, read, what))


def _judge_value(report: Report, read: Read, made: Made | None) -> None:
    if made is None:
        report.violations.append(Violation("value", read, f"{read.key}: nobody has made {read.made}"))
    elif (made.key, made.versions) != (read.key, read.versions):
        report.violations.append(Violation("value", read, f"{read.key}: not what was made as {read.made} for {made.key}"))
    elif made.began_ns > read.ended_ns:
        report.violations.append(Violation("value", read, f"{read.key}: served before it was made"))
