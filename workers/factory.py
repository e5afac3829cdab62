"""Celery apps by settings. Making one connects to nothing and leaves the importing program's own app alone."""

from __future__ import annotations

from celery import Celery

from pipeline.settings import Settings
from workers.redis_client import guard_redis_client
from workers.request import RedactedTask


def make_app(settings: Settings) -> Celery:
    """An app on `celeryconfig`, with the queue and the results of these settings. Connects on first use."""
    guard_redis_client()
    app = Celery("persona", task_cls=RedactedTask, set_as_current=False)
    app.config_from_object("celeryconfig")
    app.conf.update(
        broker_url=settings.broker_url, result_backend=settings.result_backend_url, result_expires=settings.result_ttl_s
    )
    return app
