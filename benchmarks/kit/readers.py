"""Processes that read through a cache of their own and belong to no node: `python -m benchmarks.kit.readers BOARD --nap-s 0.005`.

As many as the board has children. Each notes on the board which version of the source it was served, until the board says stop.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from benchmarks.kit.bare import read_bare
from benchmarks.kit.board import Board
from benchmarks.kit.routes import PROBE_KEY, PROBE_TTL_S
from pipeline.settings import get_settings
from workers.install import Installed, install

READS_A_NOTE: Final = 100  # without a nap, the note would cost as much as the read
LONGEST_S: Final = 120.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kit.readers", description=__doc__)
    parser.add_argument("board", type=Path)
    parser.add_argument(
        "--way", choices=("listening", "deaf", "shared", "bare"), default="listening", help="how each learns of it"
    )
    parser.add_argument("--nap-s", type=float, required=True, help="between two reads; 0: as fast as it can")
    options = parser.parse_args()
    with closing(Board(options.board)) as board:
        children = board.children
    settings = get_settings().model_copy(update={"listen": options.way != "deaf"})
    installed = install(settings=settings)
    if options.way == "shared":
        installed.follow()
    # Forked before the cache connects: the imported modules and the bus are shared, and nothing else.
    pids = []
    for child in range(children):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                read(options.board, child, options.nap_s, installed, bare=options.way == "bare")
                code = 0
            finally:
                os._exit(code)  # not back into the rest of the parent's work
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    return max(map(abs, codes), default=0)


def read(path: Path, child: int, nap_s: float, installed: Installed, *, bare: bool) -> None:
    """Until the board says stop, or for LONGEST_S: then the program that would say it is gone."""
    with closing(Board(path)) as board, closing(installed):
        cache = installed.cache

        def compute() -> int:
            return board.source

        board.enter(child, os.getpid())
        reads = 1 if nap_s else READS_A_NOTE
        ends_s = time.monotonic() + LONGEST_S
        if bare:
            read_bare(board, child, nap_s, installed.settings, ends_s)
        while not board.stopped and time.monotonic() < ends_s:
            asked_ns = time.monotonic_ns()
            for _ in range(reads):
                version = cache.get_or_compute(PROBE_KEY, compute, ttl=PROBE_TTL_S)
            board.served(child, version, asked_ns, time.monotonic_ns())
            if nap_s:
                time.sleep(nap_s)
        board.leave(child)


if __name__ == "__main__":
    sys.exit(main())
