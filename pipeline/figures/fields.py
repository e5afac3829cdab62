"""The series that processes record, and the fields in which Redis keeps their sums. No other module spells a field's name.

A field is `n.<name>` (how many, of a series or an event), `us.<series>` (the sum of the times, in microseconds),
`b.<series>.<bucket>` (how many in a bucket), `max.<series>` (the longest, in microseconds) and, in the sums without an end,
`w.<series>.<wide bucket>` and `p.<source>` (requests that a producer counted). `lua/report.lua` adds them up, and knows `max.`
alone. In the slots `max.queued.<queue>` is the most that waited in a queue, as it was seen a few times in each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Final, NamedTuple

from pipeline.figures.histogram import wide_bucket_of
from pipeline.figures.records import Role


class Series(NamedTuple):
    """A time that processes record. `metric` is its histogram's name for Prometheus, which adds the unit; `help` says from when
    to when the time is; `label` names it on a terminal. Without `has_max` the longest is not kept."""

    name: str
    metric: str
    help: str
    label: str
    has_max: bool = True


ANSWERED: Final = ("l1", "l2", "joined", "stale", "no")
"""Where an answer came from; `no`: from nowhere, it was computed."""
FAILED: Final = "failed"
REQUESTS: Final = (*ANSWERED, FAILED)
STALENESS: Final = "staleness"
QUEUE_WAIT: Final = "queue_wait"
SPREADS: Final = (
    Series(
        QUEUE_WAIT,
        "persona_queue_wait",
        "From a task's publication until a process began with it.",
        "queue wait",
    ),
    Series(
        STALENESS,
        "persona_invalidation_staleness",
        "From an invalidation's publication until a node had applied it.",
        "staleness",
    ),
)
"""A further series is a line here and a `Tally.record` where the time is known: fleet, Prometheus and terminal show it by
this."""
SERIES: Final = (*REQUESTS, *(series.name for series in SPREADS))

INVALIDATIONS: Final = "invalidations"
"""An event: this process published an invalidation."""
NOT_SHOWN: Final = "not_shown"
"""An event: a request was answered, and Flower was not shown it as a task."""
AUDITED: Final = "audited"
"""An event: the auditor has judged an answer that was served, and could tell."""
STALE_SERVES: Final = "stale_serves"
"""An event: it was served although it was invalidated, beyond the bound. Counted as audited, too."""
UNDECIDED: Final = "audit_undecided"
"""An event: the auditor could not tell."""
MISSED: Final = "missed"
"""An event: a process looked for an answer, found none and joined no computation. It queued a task, which a worker counts
as a request."""

_WITH_MAX: Final = frozenset(series.name for series in SPREADS if series.has_max)
_MAX: Final = "max."
_QUEUED: Final = "max.queued."


def count_event(fields: Counter[str], event: str, amount: int) -> None:
    """Add an event, so many times."""
    fields[f"n.{event}"] += amount


def count_times(fields: Counter[str], series: str, times_ms: list[float], sum_us: int, buckets: Mapping[int, int]) -> None:
    """Add these times of a series, at least one. `sum_us`: their sum in whole microseconds."""
    fields[f"n.{series}"] += len(times_ms)
    fields[f"us.{series}"] += sum_us
    if series in _WITH_MAX:  # a third of the whole work, which hits need not pay for
        longest = _MAX + series
        fields[longest] = max(fields[longest], int(max(times_ms) * 1000))
    for bucket, in_bucket in buckets.items():
        fields[f"b.{series}.{bucket}"] += in_bucket


def add(to: Counter[str], more: Mapping[str, int]) -> None:
    """Add sums to sums."""
    known = to.get
    for field, amount in more.items():
        before = known(field, 0)
        # A comparison of one character is half the price of looking for the whole of it.
        to[field] = max(before, amount) if field[0] == "m" and field.startswith(_MAX) else before + amount


def lasting(fresh: Counter[str], role: Role) -> Counter[str]:
    """The part that is summed without an end."""
    kept: Counter[str] = Counter()
    for field, amount in fresh.items():
        kind, _, series = field.partition(".")
        if kind in ("n", "us"):
            kept[field] += amount
        if kind == "n" and role == "producer" and series in REQUESTS:
            kept[f"p.{series}"] += amount
        if kind == "b":
            series, _, bucket = series.partition(".")
            kept[f"w.{series}.{wide_bucket_of(int(bucket))}"] += amount
    return kept


def queued_fields(lengths: Mapping[str, int]) -> Counter[str]:
    """So many messages are waiting, by queue."""
    return Counter({_QUEUED + queue: length for queue, length in lengths.items()})


def as_arguments(sums: Counter[str]) -> list[Any]:
    """As `lua/report.lua` reads them: how many, then each field with its amount."""
    return [len(sums), *(part for item in sums.items() for part in item)]


class Sums:
    """What some hashes of fields say together. Hundreds of slots are read each second where somebody looks: a field is looked at
    once for all series."""

    def __init__(self, *hashes: Mapping[bytes, bytes]) -> None:
        self._fields: Counter[str] = Counter()
        for each in hashes:
            add(self._fields, {field.decode(): int(amount) for field, amount in each.items()})

    @classmethod
    def of(cls, parts: Iterable[Sums]) -> Sums:
        total = cls()
        for part in parts:
            add(total._fields, part._fields)
        return total

    def count(self, name: str) -> int:
        """How many, of a series or an event."""
        return self._fields[f"n.{name}"]

    def by_producers(self, source: str) -> int:
        return self._fields[f"p.{source}"]

    def sum_ms(self, series: str) -> float:
        return self._fields[f"us.{series}"] / 1000

    def longest_ms(self, series: str) -> float:
        return self._fields[_MAX + series] / 1000

    def queued(self) -> dict[str, int]:
        """Queue -> the most that were seen to wait in it; without the queues that nobody looked at."""
        return {field.removeprefix(_QUEUED): amount for field, amount in self._fields.items() if field.startswith(_QUEUED)}

    def buckets(self, series: str) -> dict[int, int]:
        """Bucket -> how many."""
        return self._numbered["b"].get(series, {})

    def wide_buckets(self, series: str) -> dict[int, int]:
        """Wide bucket -> how many, of sums without an end."""
        return self._numbered["w"].get(series, {})

    @cached_property
    def _numbered(self) -> dict[str, dict[str, dict[int, int]]]:
        """Kind -> series -> number -> amount."""
        found: dict[str, dict[str, dict[int, int]]] = {"b": {}, "w": {}}
        for field, amount in self._fields.items():
            of_kind = found.get(field[0]) if field[1:2] == "." else None
            if of_kind is not None:
                _, series, number = field.split(".")
                of_kind.setdefault(series, {})[int(number)] = amount
        return found
