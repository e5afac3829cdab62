"""The auditor beside the caches of a workload: a thread of its own judges what its process has served."""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from coherence.history import Audited, Journal, Record, now_ns
from coherence.settings import NAMESPACE, ProcessSettings

from pipeline.cache.audit import auditor
from pipeline.cache.audit.auditor import Auditor
from pipeline.cache.audit.sampler import Sampler
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.connection import RedisConnection

ROOM: Final = 1_000_000


class Audit:
    """One process's. Does nothing unless the settings say how much. Made after the fork."""

    def __init__(self, settings: ProcessSettings, journal: Journal, url: str) -> None:
        self._settings, self._journal = settings, journal
        self.sampler = Sampler(settings.audit_per_s, room=ROOM)
        self._connection = RedisConnection(url, retry_pause_s=0.25)
        self._auditor = Auditor(self.sampler, KeySpace(NAMESPACE), bound_s=settings.bound_s, told=self._told, room=ROOM)
        self._lock = threading.Lock()

    def begin(self) -> None:
        if self._settings.audit_per_s:
            auditor.logger.addHandler(_ToLog())
            auditor.logger.propagate = False
            threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._settings.audit_every_s):
            self.turn()

    def turn(self) -> None:
        """Judge what waits."""
        if not self._settings.audit_per_s:
            return
        with self._lock, suppress(SharedTierUnavailableError):  # the next turn has more to judge
            self._auditor.audit(self._connection)

    def _told(self, checks: int, stale: int, undecided: int) -> None:
        self._journal.note(Audited(self._settings.name, checks, stale, undecided, now_ns()))
        if stale:
            self._journal.flush()


class _ToLog(logging.Handler):
    """To the programs' common log, which is shown where a run fails."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{os.getpid()}: {record.getMessage()}\n")
        sys.stderr.flush()


@dataclass
class Audits:
    """What the auditors of a run have found, together and by program."""

    checks: int = 0
    stale: dict[str, int] = field(default_factory=dict)
    undecided: int = 0
    first_ns: float = math.inf
    """When the first stale serve was reported."""

    @classmethod
    def of(cls, history: Iterable[Record]) -> Audits:
        audits = cls()
        for record in history:
            if isinstance(record, Audited):
                audits.checks += record.checks
                audits.undecided += record.undecided
                if record.stale:
                    audits.stale[record.program] = audits.stale.get(record.program, 0) + record.stale
                    audits.first_ns = min(audits.first_ns, record.at_ns)
        return audits

    def add(self, other: Audits) -> None:
        self.checks += other.checks
        self.undecided += other.undecided
        for program, stale in other.stale.items():
            self.stale[program] = self.stale.get(program, 0) + stale
