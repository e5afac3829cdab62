"""Celery apps by settings. Making one connects to nothing and leaves the importing program's own app alone."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlsplit

from celery import Celery

from pipeline.settings import Settings
from workers.queue.celery_settings import celery_settings
from workers.queue.censor import Censor
from workers.queue.redaction import RedactedTask
from workers.queue.redis_client import guard_redis_client
from workers.queue.tls.options import without_tls_options

FOREIGN_VARIABLES: Final = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND")
"""Variables that Celery prefers to any setting: another app of the same program or machine may have its queue there."""

OUTCOME_STORE: Final = "workers.queue.outcomes.store:OutcomeStore"
"""By name: imported when an app first uses its results."""
TRACED_OUTCOME_STORE: Final = "workers.queue.outcomes.traced:TracedOutcomeStore"


class PersonaApp(Celery):
    """An app whose broker and result backend are those of `settings`, whatever FOREIGN_VARIABLES say."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("persona", task_cls=RedactedTask, set_as_current=False)
        self.settings = settings
        self._broker_url = without_tls_options(settings.broker_url)
        self.backend_cls = _backend_of(settings)
        self.config_from_object(celery_settings(settings))
        self.amqp_cls = "workers.queue.aside.purging:PurgingAMQP"
        self.control_cls = "workers.queue.aside.purging:PurgingControl"
        self.worker_cls = "celery.apps.worker:Worker"
        """By name: imported when a worker starts."""

    @cached_property
    def Worker(self) -> Any:  # noqa: N802 - the library's name
        return self.subclass_with_self(self.worker_cls)

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        return super().connection_for_read(url or self._broker_url, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        return super().connection_for_write(url or self._broker_url, **options)

    def connection(self, hostname: str | None = None, **options: Any) -> Any:
        return super().connection(hostname or self._broker_url, **options)

    def bugreport(self) -> str:
        """As Celery's, without secrets."""
        return str(Censor(self.settings)(super().bugreport()))


def _backend_of(settings: Settings) -> str:
    """As Celery writes a URL whose backend is not its own. rpc:// is: its outcomes are messages."""
    url = without_tls_options(settings.result_backend_url)
    store = TRACED_OUTCOME_STORE if settings.traces else OUTCOME_STORE
    return f"{store}+{url}" if urlsplit(url).scheme in ("redis", "rediss") else url


def make_app(settings: Settings) -> PersonaApp:
    """An app with the settings of `workers.queue.celery_settings`. Connects on first use."""
    guard_redis_client()
    return PersonaApp(settings)


def not_obeyed(settings: Settings) -> list[str]:
    """Those of FOREIGN_VARIABLES that are set and name another server than the settings do."""
    named = {"CELERY_RESULT_BACKEND": settings.result_backend_url}
    return [
        name
        for name in FOREIGN_VARIABLES
        if (foreign := os.environ.get(name, "")) and _server(foreign) != _server(named.get(name, settings.broker_url))
    ]


def _server(url: str) -> str:
    """The URL without its word on certificates: the settings add one to each `rediss://` that has none."""
    parts = urlsplit(url)
    options = [option for option in parts.query.split("&") if option and not option.startswith("ssl_cert_reqs=")]
    return parts._replace(query="&".join(options)).geturl()
