"""One program of a workload, told on stdin what to be. Run as `python -m coherence.process`."""

from __future__ import annotations

import os
import sys
import threading
import time

from coherence.history import Journal
from coherence.mutants import MUTANTS, STAGE_MUTANT
from coherence.node import Main
from coherence.settings import ProcessSettings, decode_settings, report_ready
from coherence.source import Source
from coherence.steps import Desk, Worker

from pipeline.cache.bus import NodeBus

_LIVES = 2
"""How many children follow each other in a slot of a prefork pool, as with `max-tasks-per-child`."""


def main() -> None:
    threading.excepthook = _end_program
    settings = decode_settings(sys.stdin.buffer.read())
    if settings.mutant:
        MUTANTS[settings.mutant]()
    source = Source(settings.directory / "versions")
    {"lone": run_lone, "prefork": run_prefork, "threads": run_threads}[settings.kind](settings, source)


def wait_for_go(settings: ProcessSettings) -> None:
    while not settings.go.exists():
        time.sleep(0.005)


def _desk(settings: ProcessSettings, source: Source, bus: NodeBus | None) -> Desk:
    return Desk(settings, source, bus, stage_mutant=settings.mutant == STAGE_MUTANT)


def run_lone(settings: ProcessSettings, source: Source) -> None:
    """A program that is no worker: an L1 of its own, and nobody who tells it anything."""
    desk = _desk(settings, source, None)
    report_ready(settings, os.getpid())
    wait_for_go(settings)
    _work(desk, settings)


def run_threads(settings: ProcessSettings, source: Source) -> None:
    """A worker with a pool of threads: consumer and timer are two more of them."""
    bus = NodeBus()
    main = Main(settings, bus, Journal(settings.directory, settings.name))
    desk = _desk(settings, source, bus)
    report_ready(settings, os.getpid())
    wait_for_go(settings)
    over = threading.Event()

    def beat() -> None:
        while not over.wait(settings.bound_s / 2):
            main.beat()

    threads = [
        threading.Thread(target=beat, daemon=True),
        threading.Thread(target=lambda: main.run_until(over.is_set), daemon=True),
    ]
    for thread in threads:
        thread.start()
    _work(desk, settings)
    over.set()
    for thread in threads:
        thread.join()


def run_prefork(settings: ProcessSettings, source: Source) -> None:
    """A worker with a pool of processes: children are forked from a main process that has one thread."""
    bus = NodeBus()
    main = Main(settings, bus, Journal(settings.directory, settings.name))

    def fork(slot: int, life: int) -> int:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                desk = _desk(settings, source, bus)
                desk.cache.refresh()
                report_ready(settings, os.getpid())
                wait_for_go(settings)
                Worker(desk, settings.seed + 100 * slot + life).run(settings.steps // _LIVES, settings.seconds / _LIVES)
                status = 0
            finally:
                os._exit(status)
        return pid

    children = {fork(slot, 0): (slot, 0) for slot in range(settings.workers)}
    report_ready(settings, os.getpid())
    while children:
        main.turn(0.02)
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            slot, life = children.pop(pid)
            (settings.pids / str(pid)).unlink()
            if status:
                sys.exit(f"a child ended with status {status}")
            if life + 1 < _LIVES:
                children[fork(slot, life + 1)] = (slot, life + 1)
    main.journal.flush()


def _work(desk: Desk, settings: ProcessSettings) -> None:
    workers = [Worker(desk, settings.seed + number) for number in range(settings.workers)]
    threads = [threading.Thread(target=worker.run, args=(settings.steps, settings.seconds)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _end_program(failed: threading.ExceptHookArgs) -> None:
    """An error in any thread ends the program: nothing may go missing in silence."""
    sys.excepthook(failed.exc_type, failed.exc_value or failed.exc_type(), failed.exc_traceback)
    os._exit(1)


if __name__ == "__main__":
    main()
