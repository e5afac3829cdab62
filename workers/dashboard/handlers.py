"""Handlers beside Flower's own, and in place of some."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, Final

import prometheus_client
from flower.api import BaseApiHandler
from flower.views import BaseHandler
from tornado.httputil import url_concat
from tornado.web import HTTPError, RequestHandler, StaticFileHandler, authenticated, stream_request_body

from workers.dashboard.acting.handlers import user_of
from workers.dashboard.metrics import exposition
from workers.dashboard.page import page_document, window_of
from workers.dashboard.queues import failed_tasks, queue_lengths
from workers.dashboard.source import WINDOW_S, WINDOWS
from workers.queue.dead_letters.letter import DEAD_LETTERS

logger: Final = logging.getLogger(__name__)

FOLDER: Final = Path(__file__).parent
STATIC: Final = FOLDER / "static"
TEMPLATES: Final = FOLDER / "html"
PAGE: Final = "fleet"
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
        mark = acting.mark(user_of(self.request, self.current_user))
        self.render("fleet.html", acting=acting.allowed, mark=mark, windows=WINDOWS, window_s=WINDOW_S)


class Landing(BaseHandler):
    """Flower's address itself: leads to the page."""

    @authenticated
    async def get(self) -> None:
        self.redirect(self.reverse_url(PAGE))


class FleetDocument(BaseHandler):
    """The page's figures. `window`: of how many of the last seconds, one of those that there are."""

    @authenticated
    async def get(self) -> None:
        try:
            window_s = window_of(self.get_query_argument("window", str(WINDOW_S)))
        except ValueError as error:
            self.set_status(400)
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish(f"{error}\n")
            return
        document = await page_document(self.application.figures, window_s)
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
            self.application.figures.latest(), queue_lengths(self.application), failed_tasks(self.application)
        )
        self.set_header("Content-Type", TEXT_FORMAT)
        dead = lengths.pop(DEAD_LETTERS, None)
        self.write(prometheus_client.generate_latest() + exposition(figures, lengths, dead, failed))


class WithheldResult(BaseApiHandler):
    """In place of Flower's view of the result backend: an answer is for its caller alone, and may quote the request."""

    @authenticated
    async def get(self, _task_id: str) -> None:
        raise HTTPError(403, "answers are not shown here")
