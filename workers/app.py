"""The Celery app."""

from __future__ import annotations

from celery import Celery

from pipeline.settings import Settings, get_settings
from workers.request import RedactedTask


def make_app(settings: Settings) -> Celery:
    """An app on `celeryconfig`, with the queue and the results of these settings. Connects on first use."""
    app = Celery("persona", task_cls=RedactedTask, set_as_current=False)
    app.config_from_object("celeryconfig")
    app.conf.update(broker_url=settings.broker_url, result_backend=settings.result_backend_url)
    return app


app = make_app(get_settings())
app.conf.imports = ("workers.tasks", "workers.processes", "workers.node", "workers.poison")
app.conf.worker_consumer = "workers.poison:GuardedConsumer"
app.steps["consumer"].add("workers.node:InvalidationStep")
app.set_default()
