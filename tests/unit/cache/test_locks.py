"""Locks on which no thread waits for itself, and which no forked child inherits held."""

from __future__ import annotations

import ast
import dis
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import CodeType

import pytest
from programs import ROOT, run_program

from pipeline.cache import ReentrantUseError
from pipeline.cache.locks import Lock, UninterruptedLock, interrupted

BOUND_S = 20.0


@contextmanager
def held_by_another(lock: Lock) -> Iterator[None]:
    """Another thread is inside for as long as the block lasts."""
    inside, over = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            inside.set()
            over.wait(BOUND_S)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(BOUND_S)
    try:
        yield
    finally:
        over.set()
        holder.join(BOUND_S)


@pytest.mark.parametrize("kind", [Lock, UninterruptedLock])
def test_one_thread_at_a_time(kind: type[Lock]) -> None:
    """Eight threads that each read, then write."""
    lock, total = kind(), [0]

    def work(_: int) -> None:
        for _ in range(2_000):
            with lock:
                read = total[0]
                total[0] = read + 1

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
    finally:
        sys.setswitchinterval(before)
    assert total == [16_000]


def test_the_thread_that_is_inside_goes_in_again() -> None:
    """And is out when it has left as often as it went in; also by an error."""
    lock = Lock()
    with lock:
        with pytest.raises(KeyError), lock:
            raise KeyError
        assert lock.held()
    assert not lock.held()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lock.__enter__).result(BOUND_S)


def test_a_section_that_bears_no_interruption_refuses_its_own_thread_and_stays_whole() -> None:
    """It says so; and is left as if there had been no interruption."""
    lock = UninterruptedLock()
    with lock:
        with pytest.raises(ReentrantUseError, match="signal handler"), lock:
            pytest.fail("it went in")
        assert lock.held()
    assert not lock.held()
    with lock:
        assert lock.held()


@pytest.mark.parametrize("kind", [Lock, UninterruptedLock])
def test_whether_it_is_held_is_asked_for_this_thread(kind: type[Lock]) -> None:
    """Another thread's being inside is no interruption of this one."""
    lock = kind()
    with held_by_another(lock):
        assert not lock.held()
        assert not interrupted()
    with lock:
        assert interrupted()
        with ThreadPoolExecutor(1) as pool:
            assert not pool.submit(interrupted).result(BOUND_S)
    assert not interrupted()


def test_a_signal_that_raises_never_leaves_it_held() -> None:
    """Wherever it meets the thread: going in, inside, going out. A lock of functions around another lock would stay held."""
    lock = Lock()
    raised = 0

    class OverError(Exception):
        pass

    def raises(*_: object) -> None:
        raise OverError

    before = signal.signal(signal.SIGALRM, raises)
    try:
        for _ in range(400):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0002)
                while True:
                    with lock:
                        pass
            except OverError:
                raised += 1
            assert not lock.held()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert raised == 400


FORKING = """
    import os, threading
    from pipeline.cache.locks import Lock, UninterruptedLock, begins_anew_in_children

    class Own:
        anew = 0
        def begin_anew(self):
            self.anew += 1

    own, gone = Own(), Own()
    begins_anew_in_children(own)
    begins_anew_in_children(gone)
    del gone
    locks = [Lock(), UninterruptedLock()]
    held, over = threading.Event(), threading.Event()

    def hold():
        with locks[0], locks[1]:
            held.set()
            over.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(20)
    own_lock = Lock()
    with own_lock:  # a fork inside a critical section: the child leaves it like its parent
        child = os.fork()
    assert not own_lock.held()
    if child == 0:
        for lock in locks:
            with lock:
                assert lock.held()
        assert own.anew == 1
        os._exit(0)
    assert own.anew == 0
    over.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.slow
def test_a_forked_child_inherits_no_lock_that_is_held() -> None:
    """Its holder does not exist there."""
    done = run_program(FORKING)
    assert done.returncode == 0, done.stderr


# -- what a `with` does not cover


def uncovered(source: str) -> list[tuple[int, str]]:
    """The lines, with their functions, at which a step under a lock would leave it held if a signal raised there.

    A jump back looks for signals, and from Python 3.12 on one that depends on a condition may lie in no entry of the exception
    table: neither the `with` nor a `finally` around it is run.
    """
    sections = [
        (node.body[0].lineno, node.body[-1].end_lineno or 0)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.With) and any("lock" in ast.unparse(item.context_expr) for item in node.items)
    ]
    found = []
    waiting = [compile(source, "source", "exec")]
    while waiting:
        code = waiting.pop()
        waiting += [each for each in code.co_consts if isinstance(each, CodeType)]
        entries = dis._parse_exception_table(code)
        for step in dis.get_instructions(code):
            line = (step.positions and step.positions.lineno) or 0
            inside = any(first <= line <= last and code.co_firstlineno < first for first, last in sections)
            # A generator expression has a frame of its own: what leaves it arrives at a call, which is covered.
            own = step.opname == "JUMP_BACKWARD" and inside and code.co_name != "<genexpr>"
            if own and not any(entry.start <= step.offset < entry.end for entry in entries):
                found.append((line, code.co_qualname))
    return found


WRONG = """
def f(lock, things):
    with lock:
        for thing in things:
            if thing:
                thing()
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="that step looks for no signal there")
def test_a_step_that_no_with_covers_is_found() -> None:
    """Else the next test would hold of everything."""
    assert uncovered(WRONG) == [(5, "f")]


@pytest.mark.parametrize("module", sorted((ROOT / "pipeline").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_step_under_a_lock_is_covered(module: Path) -> None:
    """By the interpreter that runs this test; `make test-pythons` has the others."""
    assert uncovered(module.read_text(encoding="utf-8")) == []
