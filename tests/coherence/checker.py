"""Whether a history keeps the promises of docs/coherence.md. A pure function of the history.

| rule    | what it demands of a value that was served                                                                      |
|---------|-----------------------------------------------------------------------------------------------------------------|
| l2      | from L2, joined or computed: nothing in it is older than what was acknowledged as durable before the read began  |
| bound   | from L1: nothing in it was superseded by what was acknowledged as durable the staleness bound before that        |
| process | from anywhere: nothing in it is older than what this process itself has acknowledged, durable or not             |
| node    | from anywhere: nothing in it is older than what the node's main process had applied before the read began        |
| strict  | nothing was served from L1 that could not be confirmed                                                           |
| value   | it was computed or set before, for this key, with these versions                                                 |

What is judged is when a read *began*: a process that is frozen after the cache has decided returns an old value late, and no
cache can tell. An invalidation that was not durable is promised to its own process and to the nodes that applied it, so only
the rules `process` and `node` know it. A value that a read computed is judged by when the operation around it began where its
inputs came through the cache: each of them is a read of its own in the history, and judged there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from coherence.history import Applied, Ended, Fault, Made, Read, Record, Written


@dataclass(frozen=True)
class Violation:
    rule: str
    read: Read
    what: str


@dataclass
class Report:
    """What a history shows. `stale_in_bound`: values from L1 that were superseded elsewhere, and still within the bound."""

    violations: list[Violation] = field(default_factory=list)
    steps: int = 0
    misses: int = 0
    reads: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    applied: int = 0
    stale_in_bound: int = 0
    stalest_s: float = 0.0

    @property
    def rules(self) -> set[str]:
        return {violation.rule for violation in self.violations}

    def figures(self) -> dict[str, object]:
        return {
            "steps": self.steps,
            "violations": len(self.violations),
            "broken_rules": sorted(self.rules),
            "reads": dict(self.reads),
            "misses": self.misses,
            "written": dict(self.written),
            "applied": self.applied,
            "faults": dict(sorted(self.faults.items())),
            "stale_in_bound": self.stale_in_bound,
            "stalest_s": round(self.stalest_s, 4),
        }


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

    def __init__(self, history: Iterable[Record], report: Report) -> None:
        self.everywhere = Acknowledged()
        self.by_process: defaultdict[int, Acknowledged] = defaultdict(Acknowledged)
        self.by_node: defaultdict[str, Acknowledged] = defaultdict(Acknowledged)
        self.made: dict[str, Made] = {}
        self.reads: list[Read] = []
        for record in history:
            match record:
                case Made():
                    self.made[record.id] = record
                case Read():
                    self.reads.append(record)
                    report.reads[record.source] += 1
                case Written():
                    self._note_written(record, report)
                case Applied():
                    report.applied += 1
                    self.by_node[record.node].note(record.versions, record.ended_ns)
                case Fault():
                    report.faults[record.name] += 1
                case Ended():
                    report.steps += record.steps
                    report.misses += record.misses

    def _note_written(self, record: Written, report: Report) -> None:
        report.written["durable" if record.durable else "not durable"] += 1
        self.by_process[record.pid].note(record.versions, record.ended_ns)
        if record.durable:
            self.everywhere.note(record.versions, record.ended_ns)


def check(history: Iterable[Record], bound_s: float) -> Report:
    """Judge every read of a history, in any order. `bound_s`: the staleness bound that its caches were given."""
    report = Report()
    known = _Sorted(history, report)
    bound_ns = bound_s * 1e9
    for read in known.reads:
        _judge_value(report, read, known.made.get(read.made))
        if read.degraded and read.source == "l1":
            report.violations.append(Violation("strict", read, "served from L1 without being confirmed"))
        for key in read.versions:
            through_cache = read.source == "no" and key not in read.direct
            began_ns = read.operation_ns if through_cache else read.began_ns
            if read.source == "l1" or through_cache:
                _judge(report, "bound", read, key, known.everywhere.newest(key, began_ns - bound_ns))
            else:
                _judge(report, "l2", read, key, known.everywhere.newest(key, began_ns))
            _judge(report, "process", read, key, known.by_process[read.pid].newest(key, began_ns))
            if read.node:
                _judge(report, "node", read, key, known.by_node[read.node].newest(key, began_ns))
        if read.source == "l1":
            _count_staleness(report, read, known.everywhere)
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
