"""How a node begins to tell: before its pool forks, so that its children have all that they need from their first moment."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

from celery import bootsteps
from celery.signals import worker_init, worker_shutdown

from pipeline.errors import ConfigurationError
from pipeline.tracing.process import check_extra, provide, tracer_to, version_of_this
from pipeline.tracing.sending import Collector, instance_name, is_disabled, resource_of
from workers.node.tracing.exporting import Exporter
from workers.node.tracing.tasks import trace_tasks

SEEN_TO_S: Final = 1.0

_exporter: Exporter | None = None


@worker_init.connect(weak=False)
def begin(sender: Any = None, **_: Any) -> None:
    global _exporter  # noqa: PLW0603 - one a worker, made here
    if is_disabled(os.environ) or not hasattr(sender.app, "settings"):
        return
    try:
        check_extra()
        from pipeline.tracing import wire

        version = version_of_this()
        resource = resource_of(os.environ, "worker", sender.hostname or instance_name(), version)
        _exporter = Exporter(sender.app.settings, Collector.of(os.environ), wire.head(resource), wire.scope(version))
        tracer = tracer_to(_exporter.put, os.environ)
    except ConfigurationError as error:
        sys.exit(f"error: {error}.")
    tracer.hand_on = _exporter.hand_on
    provide(tracer)
    trace_tasks(tracer, [task for name, task in sender.app.tasks.items() if not name.startswith("celery.")])
    _exporter.see_to_it()


@worker_shutdown.connect(weak=False)
def end(**_: Any) -> None:
    if _exporter is not None:
        _exporter.close()


class ExporterStep(bootsteps.StartStopStep):
    """Has the process that sends spans begun anew where it was killed."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._entry: Any = None

    def start(self, c: Any) -> None:
        if _exporter is not None:
            self._entry = c.timer.call_repeatedly(SEEN_TO_S, _exporter.see_to_it)

    def stop(self, c: Any) -> None:  # noqa: ARG002 - the library's signature
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None

    def shutdown(self, c: Any) -> None:
        self.stop(c)
