"""One process that starts the stack's services, keeps them running, and ends them all, in order, whatever happens."""

from __future__ import annotations

import atexit
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from signal import SIGTERM, Signals
from types import TracebackType
from typing import Final, Self

from pipeline.discovery import VERSION
from workers.stack.errors import StackError
from workers.stack.folder import StackFolder
from workers.stack.log_files import bound
from workers.stack.options import StackOptions
from workers.stack.plan import CELERY, SERVERS, Plan, Service, make_plan, stack_directory
from workers.stack.processes import ChildProcess
from workers.stack.signals import StopSignals
from workers.stack.state import ServiceInfo, StackInfo

STACK_LOG: Final = "stack"
"""The log of this process itself, if it is in the background, beside those of its services."""
POLL_S: Final = 0.05
LOG_TAIL_LINES: Final = 15
MAX_RESTARTS: Final = 3
RESTART_WINDOW_S: Final = 60.0
LOG_LOOK_S: Final = 10.0
FIRST_PAUSE_S: Final = 0.5
"""Before the first restart; before each further one within the window twice as long."""

# The order of need: the worker finishes its tasks while everything else runs, the servers go last.
STOP_ORDER: Final = (("worker",), ("beat", "flower"), ("model",), SERVERS)


class RunningService:
    """A service and the process that runs it now."""

    def __init__(self, service: Service, folder: StackFolder, ready_timeout_s: float) -> None:
        self.service = service
        self.ready_timeout_s = ready_timeout_s
        self.ready = False
        self.ended_at_s: deque[float] = deque(maxlen=MAX_RESTARTS)
        self.restart_at_s: float | None = None
        self._folder = folder
        self.launch()

    def launch(self) -> None:
        log = self._folder.log(self.service.name)
        self._log_start = log.stat().st_size if log.exists() else 0
        # In the stack's folder: no file of the user's directory is imported or taken for a configuration.
        self.process = ChildProcess(
            self.service.command,
            log=log,
            environ=self.service.environ,
            directory=self._folder.path,
            stdin=self.service.stdin,
        )
        self.ready, self.restart_at_s = False, None
        self.deadline = time.monotonic() + self.ready_timeout_s

    @property
    def log(self) -> str:
        """The log of the process since its start."""
        with self.process.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def log_is_cut(self) -> None:
        self._log_start = 0

    @property
    def info(self) -> ServiceInfo:
        return ServiceInfo(self.service.name, self.process.pid, str(self.process.log))


class Stack:
    """The embedded stack. `with Stack(options) as stack:` starts it, and stops it on the way out.

    Between `start` and `stop`, INT raises KeyboardInterrupt, and TERM and HUP raise SystemExit, in the main thread
    (within `wait` they end the wait). When this process ends, however it does, no process of the stack is left (Linux:
    even by KILL, which leaves the folder; the next start cleans it). One stack at a time in one directory.
    """

    def __init__(self, options: StackOptions | None = None, on_progress: Callable[[str], None] | None = None) -> None:
        self._options = options or StackOptions()
        self._on_progress = on_progress
        self._folder = StackFolder(stack_directory(self._options))
        self._signals = StopSignals()
        self._running: dict[str, RunningService] = {}
        self._plan: Plan | None = None
        self._info: StackInfo | None = None

    @property
    def info(self) -> StackInfo:
        """The contents of `stack.json`. Raises StackError before `start` has returned and after `stop`."""
        if self._info is None:
            raise StackError("the stack is not running: start it first")
        return self._info

    def start(self) -> StackInfo:
        """Start every service and return when each of them works.

        Raises StackRunningError if a stack runs in this directory, else StackError naming the service, its exit code
        and the end of its log. In these cases, and after a stop signal, every started service has been stopped.
        """
        if self._folder.held:
            raise StackError("this stack is already started")
        self._signals.install()
        with self._signals.deferred():
            try:
                self._folder.acquire()
                atexit.register(self.stop)
                self._plan = make_plan(self._options, self._folder)
                for note in self._plan.notes:
                    self._tell(note)
                self._start_services(self._plan)
                self._publish()
            except BaseException:
                self.stop()
                raise
        try:
            self._signals.raise_received()  # a signal that came after the last service was ready
        except BaseException:
            self.stop()
            raise
        return self.info

    def check(self) -> None:
        """Raise StackError if a service has ended. For programs that do not `wait`; restarts nothing."""
        for running in self._running.values():
            if running.process.exit_code is not None:
                raise self._failure(running, "ended")

    def wait(self) -> Signals:
        """Keep the services running until a stop signal comes, and return that signal. Main thread only.

        A service that ends is started again, after a pause that doubles, at most 3 times within a minute; after that, or
        if it does not come up again, the stack is stopped and StackError raised.
        """
        _ = self.info  # raises if it is not started
        with self._signals.deferred():
            try:
                looked_s = time.monotonic()
                while self._signals.received is None:
                    for running in self._running.values():
                        self._look_after(running)
                    if time.monotonic() - looked_s > LOG_LOOK_S:
                        looked_s = time.monotonic()
                        self._bound_logs()
                    time.sleep(POLL_S)
            except BaseException:
                self.stop()
                raise
            return self._signals.received

    def stop(self) -> None:
        """End every service, in order, by TERM and after its time by KILL; remove the folder. May be called again.

        Returns when all are gone. A stop signal meanwhile leads to KILL at once.
        """
        if not self._folder.held:
            self._signals.restore()
            return
        with self._signals.deferred():
            seen = self._signals.count
            self._info = None
            self._folder.retract()
            for group in STOP_ORDER:
                self._end(group, in_a_hurry=lambda: self._signals.count > seen)
            self._running.clear()
            self._folder.release()
            self._signals.restore()
        atexit.unregister(self.stop)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _tell(self, message: str) -> None:
        if self._on_progress is not None:
            try:
                self._on_progress(message)
            except OSError:  # the terminal or the pipe is gone; the rest must be done all the same
                self._on_progress = None

    def _start_services(self, plan: Plan) -> None:
        """Servers that others connect to go first; the rest starts in parallel."""
        for name, service in plan.services.items():
            if name not in CELERY:
                self._launch(service)
        self._await(name for name in SERVERS if name in plan.services)
        for name, service in plan.services.items():
            if name in CELERY:
                self._launch(service)
        self._await(plan.services)

    def _launch(self, service: Service) -> None:
        self._signals.raise_received()
        self._running[service.name] = RunningService(service, self._folder, self._options.ready_timeout_s)

    def _await(self, names: Iterable[str]) -> None:
        pending = [self._running[name] for name in names if not self._running[name].ready]
        while pending:
            for running in pending:
                self._signals.raise_received()
                self._ask(running)
            pending = [running for running in pending if not running.ready]
            time.sleep(POLL_S)

    def _ask(self, running: RunningService) -> None:
        """Note whether it is ready. Raises StackError if it has ended, or its time is over."""
        if running.process.exit_code is not None:
            raise self._failure(running, "did not start")
        try:
            running.ready = running.service.is_ready(running.log)
        except StackError as error:
            raise self._failure(running, str(error)) from error
        if running.ready:
            self._tell(f"{running.service.name}: ready {running.service.where}".rstrip())
        elif time.monotonic() > running.deadline:
            raise self._failure(running, f"did not answer within {self._options.ready_timeout_s:g} s")

    def _look_after(self, running: RunningService) -> None:
        now_s = time.monotonic()
        if running.restart_at_s is not None:
            if now_s >= running.restart_at_s:
                running.launch()
                self._publish()
        elif running.process.exit_code is not None:
            recent = sum(now_s - at_s < RESTART_WINDOW_S for at_s in running.ended_at_s)
            if recent == MAX_RESTARTS:
                raise self._failure(running, f"ended again after {MAX_RESTARTS} restarts within a minute")
            pause_s = FIRST_PAUSE_S * 2**recent
            self._tell(f"{running.service.name}: ended ({_reason(running)}); starting it again in {pause_s:g} s")
            running.process.kill()  # whatever is left in its group
            running.ended_at_s.append(now_s)
            running.restart_at_s = now_s + pause_s
        elif not running.ready:
            self._ask_again(running)

    def _ask_again(self, running: RunningService) -> None:
        """As `_ask`, but a process that ended while it was asked is left to `_look_after`, which counts restarts."""
        try:
            self._ask(running)
        except StackError:
            if running.process.exit_code is None:
                raise

    def _bound_logs(self) -> None:
        """A stack in the background runs for weeks."""
        for running in self._running.values():
            if bound(running.process.log):
                running.log_is_cut()
        bound(self._folder.log(STACK_LOG))

    def _end(self, group: Iterable[str], in_a_hurry: Callable[[], bool]) -> None:
        ending = [self._running[name] for name in group if name in self._running]
        begun = time.monotonic()
        for running in ending:
            running.process.send_signal(SIGTERM)
        for running in ending:
            deadline = begun + running.service.grace_s
            while not running.process.wait(POLL_S) and time.monotonic() < deadline and not in_a_hurry():
                pass
            ended = running.process.exit_code is not None
            running.process.kill()  # even if it ended: it may have left children of its own
            how = "stopped" if ended else f"killed, as it did not end within {time.monotonic() - begun:.0f} s"
            self._tell(f"{running.service.name}: {how}")

    def _publish(self) -> None:
        assert self._plan is not None  # noqa: S101 - for the type checker: `start` has made it
        self._info = StackInfo(
            version=VERSION,
            pid=os.getpid(),
            started_at=self._info.started_at if self._info else datetime.now(UTC).isoformat(timespec="seconds"),
            environment=self._plan.environment,
            services=tuple(running.info for running in self._running.values()),
            flower=self._plan.flower,
        )
        self._folder.publish(self._info)

    def _failure(self, running: RunningService, problem: str) -> StackError:
        assert self._plan is not None  # noqa: S101 - for the type checker: `start` has made it
        if running.process.exit_code is not None:
            problem += f" ({_reason(running)})"
        tail = running.log.splitlines()[-LOG_TAIL_LINES:]
        lines = "\n".join(f"  {line}" for line in tail) or "  (nothing)"
        return StackError(self._plan.redacted(f"{running.service.name}: {problem}. The end of its log:\n{lines}"))


def _reason(running: RunningService) -> str:
    code = running.process.exit_code
    return f"killed by {Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
