"""What needs rights over the kernel: a network of a node's own, and a bound on its memory. Linux, and root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from polling import until

_GROUPS: Final = Path("/sys/fs/cgroup")
_NETWORK: Final = "10.213.77"
HOST: Final = f"{_NETWORK}.1"
"""This machine, as a process in a `Network` sees it."""


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Network:
    """`with Network() as network:` a network of its own, whose one interface leads to this machine. One at a time a machine.
    Raises OSError where that is not permitted."""

    def __init__(self) -> None:
        self.name = f"soak-{os.getpid()}"
        self._here, self._there = f"vh{os.getpid() % 10**7}", f"vn{os.getpid() % 10**7}"

    def command(self, words: Sequence[str]) -> list[str]:
        """What runs a command in it, as the same process."""
        return ["nsenter", f"--net=/run/netns/{self.name}", *words]

    def down(self) -> None:
        """Nothing goes through, and nobody is told: connections stay as they are."""
        _ip("link", "set", self._here, "down")

    def up(self) -> None:
        _ip("link", "set", self._here, "up")

    def __enter__(self) -> Self:
        missing = [name for name in ("ip", "nsenter") if shutil.which(name) is None]
        if missing:
            raise OSError(f"not installed: {', '.join(missing)}")
        try:
            _ip("netns", "add", self.name)
            _ip("link", "add", self._here, "type", "veth", "peer", "name", self._there, "netns", self.name)
            _ip("addr", "add", f"{HOST}/30", "dev", self._here)
            inside = ("-n", self.name)
            _ip(*inside, "addr", "add", f"{_NETWORK}.2/30", "dev", self._there)
            _ip(*inside, "link", "set", "lo", "up")
            _ip(*inside, "link", "set", self._there, "up")
            self.up()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._remove()

    def _remove(self) -> None:
        for words in (("link", "del", self._here), ("netns", "del", self.name)):
            with suppress(OSError):
                _ip(*words)


class MemoryGroup:
    """`with MemoryGroup(mb) as group:` what its processes touch from then on may be so much, together: the kernel kills one of
    them that touches more. Raises OSError where that is not permitted."""

    def __init__(self, mb: int) -> None:
        self._bytes = mb * 2**20
        first = (_GROUPS / "cgroup.controllers").exists()
        self._directory = (_GROUPS if first else _GROUPS / "memory") / f"soak-{os.getpid()}"
        self._limits = ("memory.max", "memory.swap.max") if first else ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")

    def take(self, pid: int) -> None:
        (self._directory / "cgroup.procs").write_text(f"{pid}")

    def __enter__(self) -> Self:
        self._directory.mkdir()
        try:
            (self._directory / self._limits[0]).write_text(f"{self._bytes}")
            with suppress(OSError):  # a kernel that does not count what is swapped out
                (self._directory / self._limits[1]).write_text("0" if self._limits[0] == "memory.max" else f"{self._bytes}")
        except BaseException:
            self._directory.rmdir()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        until(self._is_empty, "all its processes have ended, or it is a machine's that keeps them")
        self._directory.rmdir()

    def _is_empty(self) -> bool:
        return not (self._directory / "cgroup.procs").read_text().split()
