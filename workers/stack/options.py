"""The options of a stack."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from workers.stack.errors import StackError

SERVICES: Final = ("broker", "cache", "model", "worker", "beat", "flower")


@dataclass(frozen=True, kw_only=True)
class StackOptions:
    """Every default is visible here. Raises StackError naming an option that is not allowed.

    For a port that is None the stack chooses a free one.
    """

    services: tuple[str, ...] = SERVICES
    directory: Path | None = None  # None: PERSONA_STACK_DIR, or .persona in the working directory
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    broker_port: int | None = None
    cache_port: int | None = None
    model_port: int | None = None
    flower_port: int | None = None
    concurrency: int | None = None  # pool children of the worker; None: one for each core, at least 2
    cache_memory: str = "256mb"
    ready_timeout_s: float = 60.0  # for one service, from its start to its first answer
    worker_grace_s: float = 20.0  # for the tasks that are running when the stack stops
    grace_s: float = 5.0  # for any other service to end

    def __post_init__(self) -> None:
        for name in self.services:
            if name not in SERVICES:
                raise StackError(f"services: unknown service {name!r}; allowed are {', '.join(SERVICES)}")
        if not self.services:
            raise StackError(f"services: none is named; allowed are {', '.join(SERVICES)}")
        if self.concurrency is not None and self.concurrency < 1:
            raise StackError(f"concurrency: {self.concurrency} is not allowed; a worker has at least 1 pool child")
        owners: dict[int, str] = {}
        for name, port in self.ports.items():
            if port is None:
                continue
            if not 1 <= port <= 65535:
                raise StackError(f"{name}_port: {port} is not a port; allowed are 1-65535")
            if port in owners:
                raise StackError(f"{name}_port: {port} is also the port of {owners[port]}; each needs its own")
            owners[port] = name

    @property
    def ports(self) -> dict[str, int | None]:
        """The port in the options, by service."""
        return {
            "broker": self.broker_port,
            "cache": self.cache_port,
            "model": self.model_port,
            "flower": self.flower_port,
        }
