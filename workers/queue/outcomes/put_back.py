"""Tasks that go back to their queue, whatever pool runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import Task
from celery.exceptions import BackendStoreError, Reject
from celery.worker.request import Request


class ReturnableTask(Task):
    """A task whose message goes back to its queue also when Reject is raised after its body: its outcome could not be stored.

    Celery 5.7 lets such a Reject out of the code that runs a task. A prefork pool hands it on to what then rejects the message.
    Pools of threads drop it, so that the message is neither acknowledged nor given back, and it ends the main process of
    `--pool=solo`. Here it is returned as a Reject from within the body is, which all pools hand on alike.
    """

    abstract = True
    _tracer: Callable[..., Any] | None = None

    @property
    def __trace__(self) -> Callable[..., Any] | None:
        """What runs the task with all around it; Celery sets it when a process begins to work."""
        return self._tracer

    @__trace__.setter
    def __trace__(self, tracer: Callable[..., Any] | None) -> None:
        self._tracer = tracer and _returning_rejections(tracer)


class ReturnableRequest(Request):
    """A request whose message goes back, too, when a main process cannot store that it has ended the task (a hard time limit), or
    that the task has ended its processes. Celery's own is acknowledged before it is tried to store that."""

    _held = _ended = _returned = False

    def on_failure(self, *args: Any, **kwargs: Any) -> None:
        self._held = True
        try:
            super().on_failure(*args, **kwargs)
        except BackendStoreError:
            self._returned = True
            self.reject(requeue=True)
        finally:
            self._held = False
            if self._ended:
                self.acknowledge()  # nothing happens if it has been rejected

    def on_timeout(self, soft: bool, timeout: float) -> None:
        if not self._returned:  # Celery calls `on_failure` first, and stores the same again here
            super().on_timeout(soft, timeout)

    def acknowledge(self) -> None:
        if self._held:
            self._ended = True
        else:
            super().acknowledge()


def _returning_rejections(tracer: Callable[..., Any]) -> Callable[..., Any]:
    def trace(*args: Any, **kwargs: Any) -> Any:
        try:
            return tracer(*args, **kwargs)
        except Reject as rejected:
            from celery.app.trace import REJECTED, TraceInfo, trace_ok_t  # a program that asks does not load it

            return trace_ok_t(ExceptionInfo(internal=True), TraceInfo(REJECTED, rejected), 0.0, None)

    return trace
