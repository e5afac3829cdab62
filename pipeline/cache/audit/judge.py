"""The judgement of a sample. A pure function of the sample and the evidence."""

from __future__ import annotations

import math
from typing import Final, Literal, NamedTuple

from pipeline.cache.audit.evidence import DRIFT, Evidence
from pipeline.cache.audit.sampler import Sample
from pipeline.cache.audit.seen_log import Appended

SLACK_S: Final = 0.0001
"""So much may be wrong with a time that was taken from one clock to the other, beyond what the looks say."""

Kind = Literal["fresh", "stale", "undecided"]


class Verdict(NamedTuple):
    """`late_s`, of a stale serve: by how much, at least, the read began too late for what it served."""

    kind: Kind
    late_s: float = 0.0


FRESH: Final = Verdict("fresh")
UNDECIDED: Final = Verdict("undecided")


def judge(sample: Sample, evidence: Evidence, bound_s: float) -> Verdict:
    """Whether the answer may have been served. The evidence must include a look that was sent after the read began.

    It may not, if something that means its key or a dep was appended after its `as_of`, and before the read began; in the case
    of L1, by more than the staleness bound before. Nor if its epoch had ended by then. Only what is certain is `fresh` or
    `stale`: what the looks and the two clocks leave open is `undecided`.
    """
    allowed_s = bound_s if sample.tier == "l1" else 0.0
    log, worst = evidence.log, FRESH
    if not sample.epoch or sample.epoch != log.epoch:
        end = evidence.ended(sample.epoch)
        if end is None:
            return UNDECIDED
        if sample.began_s > end.seen_s + allowed_s:
            return Verdict("stale", sample.began_s - end.seen_s - allowed_s)
        log = evidence.former
        if sample.epoch != log.epoch:
            return UNDECIDED
        if sample.began_s > end.after_s + allowed_s:
            worst = UNDECIDED  # the epoch may have been over for too long, and may have had records that nobody here has seen
    if sample.seq < log.whole_from:
        worst = UNDECIDED
    made = evidence.server_s(sample.made_s) if math.isfinite(sample.made_s) else None
    for appended in log.first_after(sample, made):
        verdict = _judge(sample, appended, evidence, allowed_s)
        if verdict.kind == "stale":
            return verdict
        if verdict.kind == "undecided":
            worst = verdict
    return worst


def _judge(sample: Sample, appended: Appended, evidence: Evidence, allowed_s: float) -> Verdict:
    # By this process's clock alone: it had seen the record, and it had not.
    late_s = sample.began_s - appended.seen_s - allowed_s
    if late_s > 0:
        return Verdict("stale", late_s)
    if sample.began_s <= appended.after_s + allowed_s:
        return FRESH
    # By the server's, where the two can be held against each other.
    began = evidence.server_s(sample.began_s)
    if began is None or began[2] != appended.run:
        return UNDECIDED
    earliest_s, latest_s, _ = began
    slack_s = SLACK_S + DRIFT * allowed_s
    if earliest_s - appended.by_s > allowed_s + slack_s:
        return Verdict("stale", earliest_s - appended.by_s - allowed_s)
    return FRESH if latest_s - appended.since_s <= allowed_s - DRIFT * allowed_s else UNDECIDED
