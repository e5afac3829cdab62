"""The logs of a running stack: the last lines of each, and what comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

POLL_S: Final = 0.1
READ_BYTES: Final = 1 << 16
LONGEST_LINE: Final = 1 << 16
"""A longer one is given in parts, so that a log without line ends costs no more."""


def logs_in(directory: Path) -> dict[str, Path]:
    """The logs of the stack in that folder, by the name of the service."""
    return {path.stem: path for path in sorted((directory / "logs").glob("*.log"))}


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines, without their ends; none of a log that is gone."""
    return _tail(path, count)[0]


def follow(
    paths: Mapping[str, Path], count: int, goes_on: Callable[[], bool], *, poll_s: float = POLL_S
) -> Iterator[tuple[str, str]]:
    """The last lines of each log, then each line as it is written, with the service's name. Ends once `goes_on` says no."""
    read_to: dict[str, int] = {}
    unfinished: dict[str, bytes] = {}
    for name, path in paths.items():
        lines, read_to[name] = _tail(path, count)
        yield from ((name, line) for line in lines)
    more = True
    while more:
        more = goes_on()  # before the look, so that the last words are seen
        for name, path in paths.items():
            for line in _new_lines(name, path, read_to, unfinished):
                yield name, line
        if more:
            time.sleep(poll_s)


def _new_lines(name: str, path: Path, read_to: dict[str, int], unfinished: dict[str, bytes]) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            if file.seek(0, 2) < read_to[name]:  # it was cut: see `workers.stack.log_files`
                read_to[name], unfinished[name] = 0, b""
            file.seek(read_to[name])
            while chunk := file.read(READ_BYTES):
                read_to[name] += len(chunk)
                *whole, rest = (unfinished.get(name, b"") + chunk).split(b"\n")
                if len(rest) > LONGEST_LINE:
                    whole, rest = [*whole, rest], b""
                unfinished[name] = rest
                yield from (line.decode(errors="replace") for line in whole)
    except OSError:  # it went with its stack
        return


def _tail(path: Path, count: int) -> tuple[list[str], int]:
    """The last whole lines, and where the first line begins that is not whole."""
    try:
        with path.open("rb") as file:
            size = start = file.seek(0, 2)
            text = b""
            while start and text.count(b"\n") <= count:
                step = min(READ_BYTES, start)
                start -= step
                file.seek(start)
                text = file.read(step) + text
    except OSError:
        return [], 0
    *whole, rest = text.split(b"\n")
    shown = whole[-count:] if count else []
    return [line.decode(errors="replace") for line in shown], size - len(rest)
