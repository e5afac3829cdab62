"""The errors of the embedded stack. Every message says what to do and shows no password."""

from __future__ import annotations

from pathlib import Path


class StackError(Exception):
    """The stack, or one of its services, cannot do what was asked. The message names the service."""


class StackRunningError(StackError):
    """Another process runs a stack in the same directory."""

    def __init__(self, directory: Path, pid: int | None) -> None:
        self.directory, self.pid = directory, pid
        who = f"process {pid}" if pid else "another process"
        super().__init__(
            f"a stack is already running in {directory} ({who}). `persona status` shows it and `persona down` stops it; "
            "for a second one set PERSONA_STACK_DIR to another directory."
        )
