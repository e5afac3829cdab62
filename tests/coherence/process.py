"""The programs of a workload, told on stdin what to be. Run as `python -m coherence.process`.

They are forked from one process that has imported what they need, and made nothing yet: it is done once, and not by each.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable

from coherence.desk import Desk
from coherence.history import Journal
from coherence.manners import at_once
from coherence.mutants import MUTANTS
from coherence.node import Main
from coherence.settings import ProcessSettings, decode_settings, report_ready
from coherence.source import Source
from coherence.steps import Worker

from pipeline.cache.coherence.bus import NodeBus
from pipeline.cache.server import scripts
from workers.stack.launch import PR_SET_PDEATHSIG

_LONGEST_S = 30.0
_LIVES = 2
"""How many children follow each other in a slot of a prefork pool, as with `max-tasks-per-child`."""


def main() -> None:
    # What imports something when it is first used must not be broken off in the middle of that.
    for name in ("append", "beat", "read", "claim", "exchange", "renew", "sweep", "probe"):
        scripts._script(name)
    # An exception between the two steps of `logging.Handler.handle` that take its lock and watch over it leaves the lock held
    # (until Python 3.13), and every thread that logs after that waits for ever. No fault of the cache's: no handler, no wait.
    logging.lastResort = None
    told = decode_settings(sys.stdin.buffer.read())
    programs = {_fork(lambda settings=settings: _become(settings)): settings.name for settings in told}
    while programs:
        pid, status = os.wait()
        if status:
            sys.exit(f"{programs[pid]} ended with status {status}")
        del programs[pid]


def _fork(act: Callable[[], None]) -> int:
    """A process that ends with this one, if not before, when it has done that."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            _end_with(parent)
            act()
            status = 0
        except SystemExit as end:
            sys.stderr.write(f"{end}\n")
        except BaseException:  # noqa: BLE001 - the forked child never returns into its parent's code
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(status)
    return pid


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def _become(settings: ProcessSettings) -> None:
    threading.excepthook = _end_program
    if settings.switch_s:
        sys.setswitchinterval(settings.switch_s)
    if settings.mutant:
        MUTANTS[settings.mutant]()
    source = Source(settings.directory / "versions")
    run = {"lone": run_lone, "prefork": run_prefork, "threads": run_threads, "newcomer": run_newcomer}[settings.kind]
    run(settings, source)
    (settings.pids / str(os.getpid())).unlink(missing_ok=True)


def wait_for_go(settings: ProcessSettings) -> None:
    while not settings.go.exists():
        time.sleep(0.005)


def run_lone(settings: ProcessSettings, source: Source) -> None:
    """A program that is not a worker: an L1 of its own, and no notices."""
    desk = Desk(settings, source, None)
    report_ready(settings, os.getpid())
    wait_for_go(settings)
    _work(desk, settings)


def run_newcomer(settings: ProcessSettings, source: Source) -> None:
    """A program that comes and goes: it begins with nothing, and is the first whom another server sees."""
    rng = random.Random(settings.seed)
    wait_for_go(settings)
    while settings.go.exists():
        if not settings.call.exists():
            time.sleep(0.005)
            continue
        desk = Desk(settings, source, None, url=settings.call.read_text())
        seed, steps, awaits = rng.getrandbits(30), rng.randint(1, 3), settings.awaited(rng.randrange(2))
        _work_as(desk, [(seed, 0)], steps, 0.0, awaits=awaits)
        desk.cache.close()
        settings.call.unlink()


def run_threads(settings: ProcessSettings, source: Source) -> None:
    """A worker with a pool of threads: consumer and timer are two more of them."""
    bus = NodeBus()
    main = Main(settings, bus, Journal(settings.directory, settings.name))
    desk = Desk(settings, source, bus)
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

    def live(slot: int, life: int) -> None:
        desk = Desk(settings, source, bus)
        desk.cache.refresh()
        report_ready(settings, os.getpid())
        wait_for_go(settings)
        awaits = settings.awaited(slot)
        seed = settings.seed + 100 * slot + life
        seeds = [(seed, 0), (seed + 50, 0)] if awaits else [(seed, 0)]
        _work_as(desk, seeds, settings.steps // _LIVES // len(seeds), settings.seconds / _LIVES, awaits=awaits)

    def fork(slot: int, life: int) -> int:
        return _fork(lambda: live(slot, life))

    children = {fork(slot, 0): (slot, 0) for slot in range(settings.workers)}
    report_ready(settings, os.getpid())
    while children:
        main.turn(0.02)
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            slot, life = children.pop(pid)
            (settings.pids / str(pid)).unlink(missing_ok=True)  # it may have failed before it was ready
            if status:
                sys.exit(f"a child ended with status {status}")
            if life + 1 < _LIVES:
                children[fork(slot, life + 1)] = (slot, life + 1)
    main.journal.flush()


def _work(desk: Desk, settings: ProcessSettings) -> None:
    def work(numbers: list[int], *, awaits: bool) -> None:
        workers = [(settings.seed + number, number) for number in numbers]
        _work_as(desk, workers, settings.steps, settings.seconds, awaits=awaits)

    alone = [[number] for number in range(settings.workers) if not settings.awaited(number)]
    tasks = [number for number in range(settings.workers) if settings.awaited(number)]
    half = len(tasks) // 2  # any number of event loops may use one cache
    loops = [part for part in (tasks[:half], tasks[half:]) if part]
    threads = [threading.Thread(target=work, args=(each,), kwargs={"awaits": False}) for each in alone]
    threads += [threading.Thread(target=work, args=(each,), kwargs={"awaits": True}) for each in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _work_as(desk: Desk, workers: list[tuple[int, int]], steps: int, seconds: float, *, awaits: bool) -> None:
    """Be these workers, each of a seed and a number: tasks of an event loop of this thread's, or the thread itself."""
    if awaits:
        asyncio.run(_in_loop(desk, workers, steps, seconds))
        desk.journal.flush()  # what a computation has made that nobody waited for
        return
    for seed, number in workers:
        at_once(Worker(desk, seed, number).run(steps, seconds))


async def _in_loop(desk: Desk, workers: list[tuple[int, int]], steps: int, seconds: float) -> None:
    """Fails as soon as one of them does. Computations that go on without their callers are waited for."""

    async def be(seed: int, number: int) -> None:
        await Worker(desk, seed, number, awaits=True).run(steps, seconds)

    async with asyncio.TaskGroup() as group:
        for seed, number in workers:
            group.create_task(be(seed, number))
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    if rest:
        await asyncio.wait(rest, timeout=_LONGEST_S)


def _end_program(failed: threading.ExceptHookArgs) -> None:
    """An error in any thread ends the program: nothing may go missing in silence."""
    sys.excepthook(failed.exc_type, failed.exc_value or failed.exc_type(), failed.exc_traceback)
    os._exit(1)


if __name__ == "__main__":
    main()
