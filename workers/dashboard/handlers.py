"""Handlers beside Flower's own, and in place of some."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, Final

import prometheus_client
import redis
from flower.api import BaseApiHandler
from flower.views import BaseHandler
from tornado.httputil import url_concat
from tornado.web import HTTPError, RequestHandler, StaticFileHandler, authenticated, stream_request_body

from workers.dashboard.acting.handlers import user_of
from workers.dashboard.metrics import exposition
from workers.dashboard.page import page_document
from workers.queue.dead_letters.letter import DEAD_LETTERS
from workers.queue.failures.box import FAILURES, kept_now

logger: Final = logging.getLogger(__name__)

FOLDER: Final = Path(__file__).parent
STATIC: Final = FOLDER / "static"
TEMPLATES: Final = FOLDER / "html"
PAGE: Final = "fleet"
QUEUES_BOUND_S: Final = 1.0
TEXT_FORMAT: Final = "text/plain; version=0.0.4; charset=utf-8"
# Scripts, styles and figures from this server alone, so that no name's text can become a script. Bootstrap's own style sheet has
# its images within, and its scripts set styles of elements.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@stream_request_body
class Refusal(RequestHandler):
    """The answer to a request without a valid login: 401, whatever was asked for, before a body is read. Under OAuth, a browser
    is led to the login."""

    def initialize(self, login_url: str = "") -> None:
        self._login_url = login_url

    def prepare(self) -> None:
        if self._login_url and self.request.method == "GET":
            self.redirect(url_concat(self._login_url, {"next": self.request.uri}))
        else:
            self._refuse()

    def data_received(self, chunk: bytes) -> None:
        """The body is dropped."""

    def check_xsrf_cookie(self) -> None:
        """Refused in any case: the answer does not tell which of two reasons it is."""

    def write_error(self, status_code: int, **_: Any) -> None:  # noqa: ARG002 - an unknown method, for one
        self._refuse()

    def _refuse(self) -> None:
        self.set_status(401)
        self.set_header("WWW-Authenticate", 'Basic realm="flower"')
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish("Access denied\n")


class FleetPage(BaseHandler):
    """The page. It asks for its figures itself."""

    @authenticated
    async def get(self) -> None:
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Referrer-Policy", "same-origin")
        acting = self.application.acting
        self.render("fleet.html", acting=acting.allowed, mark=acting.mark(user_of(self.request, self.current_user)))


class FleetDocument(BaseHandler):
    """The page's figures."""

    @authenticated
    async def get(self) -> None:
        document = await page_document(self.application.figures)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.write(document)


class Asset(StaticFileHandler):
    """The page's script and style. Revalidated each time, so that a new release's page never meets an old script."""

    def set_extra_headers(self, path: str) -> None:  # noqa: ARG002 - all alike
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Content-Type-Options", "nosniff")


class Metrics(BaseHandler):
    """Flower's metrics and the fleet's. Behind the login, as Flower's own are not: they tell who works on what."""

    @authenticated
    async def get(self) -> None:
        self.application.purge_offline_worker_metrics()
        figures, lengths, failed = await asyncio.gather(
            self.application.figures.latest(), self._queue_lengths(), self._failed_tasks()
        )
        self.set_header("Content-Type", TEXT_FORMAT)
        dead = lengths.pop(DEAD_LETTERS, None)
        self.write(prometheus_client.generate_latest() + exposition(figures, lengths, dead, failed))

    async def _queue_lengths(self) -> dict[str, int]:
        """The lengths of the configured queues: a user cannot choose a label. RabbitMQ is asked by --broker_api. On Redis the
        list of dead letters is asked with them."""
        names = [queue.name for queue in self.capp.conf.task_queues]
        names += [DEAD_LETTERS] * self.capp.conf.broker_url.startswith("redis")
        try:
            queues = await asyncio.wait_for(self.get_broker().queues(names), QUEUES_BOUND_S)
        except (
            redis.RedisError,
            OSError,
            HTTPError,
        ) as error:  # a TimeoutError is an OSError; HTTPError: a broker of another kind
            logger.info("dashboard.queues_not_read: %s", type(error).__name__)
            return {}
        return {queue["name"]: queue["messages"] for queue in queues if queue["name"] in names}

    async def _failed_tasks(self) -> int | None:
        """How many are kept; None where nobody could be asked, or the broker is not Redis."""
        if not self.capp.conf.broker_url.startswith("redis"):
            return None
        client = self.get_broker().redis
        try:
            return int(await asyncio.wait_for(client.zcount(FAILURES, *kept_now()), QUEUES_BOUND_S))
        except (redis.RedisError, OSError) as error:
            logger.info("dashboard.failed_tasks_not_read: %s", type(error).__name__)
            return None
        finally:
            await client.aclose()


class WithheldResult(BaseApiHandler):
    """In place of Flower's view of the result backend: an answer is for its caller alone, and may quote the request."""

    @authenticated
    async def get(self, _task_id: str) -> None:
        raise HTTPError(403, "answers are not shown here")
