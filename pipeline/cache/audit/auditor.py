"""The auditor of one process: judges what was served a moment ago."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from pipeline.cache.audit.evidence import Evidence, script
from pipeline.cache.audit.judge import Verdict, judge
from pipeline.cache.audit.sampler import ROOM, Sample, Sampler
from pipeline.cache.keys import KeySpace
from pipeline.cache.locks import begins_anew_in_children
from pipeline.cache.server.connection import RedisConnection

logger: Final = logging.getLogger(__name__)

LOGGED: Final = 5
"""Of the stale serves of one round."""

Told = Callable[[int, int, int], None]
"""Is told of each round: how many samples were judged and found fresh or stale, how many of these were stale, and how many could
not be decided."""


class Auditor:
    """Judges a sampler's samples by the log in Redis and by Redis's clock. For one thread at a time; in a forked child it begins
    anew.

    What a caller may rely on: a sample that is called stale was served beyond the bound, whatever the clocks, the network and the
    process did meanwhile. Not every stale serve is found: it must be among the samples, and what it missed must be certain.
    Without samples nothing is sent.
    """

    def __init__(
        self,
        sampler: Sampler,
        keys: KeySpace,
        *,
        bound_s: float,
        told: Told,
        room: int = ROOM,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` must be the cache's. `room`: how many samples may wait while Redis is away."""
        self._sampler, self._keys, self._clock = sampler, keys, clock
        self._bound_s = bound_s
        self._told = told
        self._room = room
        script()
        self.begin_anew()
        begins_anew_in_children(self)

    def begin_anew(self) -> None:
        """In a child that was just forked."""
        self._waiting: deque[Sample] = deque(maxlen=self._room)
        self._evidence = Evidence(self._keys, self._clock)

    def audit(self, connection: RedisConnection, occasion: str = "due") -> None:
        """Judge what waits, in one call of Redis (one more for each 2,000 new records). Raises SharedTierUnavailableError: then
        it waits for the next time. The `last` occasion is none: what is told from then on is not reported."""
        if occasion == "last":
            return
        self._waiting += self._sampler.take()
        if not self._waiting:
            return
        self._evidence.look(connection)
        counts: Counter[str] = Counter()
        while self._waiting:
            sample = self._waiting.popleft()
            verdict = judge(sample, self._evidence, self._bound_s)
            counts[verdict.kind] += 1
            if verdict.kind == "stale" and counts["stale"] <= LOGGED:
                self._log(sample, verdict)
        self._told(counts["fresh"] + counts["stale"], counts["stale"], counts["undecided"])

    def _log(self, sample: Sample, verdict: Verdict) -> None:
        digest = hashlib.blake2b(sample.key.encode(errors="replace"), digest_size=8).hexdigest()
        logger.error(
            "cache.stale_serve: key %s from %s, %.3f s beyond what is allowed (as of %s:%d)",
            digest, sample.tier, verdict.late_s, sample.epoch, sample.seq,
            extra={"key_digest": digest, "tier": sample.tier, "late_s": round(verdict.late_s, 6)},
        )  # fmt: skip
