"""Flower with a login, a page more, and the fleet's figures among its metrics."""

from __future__ import annotations

from functools import partial
from typing import Any, Final, cast

import click
from flower.app import Flower
from tornado.httputil import HTTPServerRequest
from tornado.web import url

from pipeline.errors import ConfigurationError
from pipeline.settings import get_settings
from workers.dashboard import handlers
from workers.dashboard.acting import handlers as acts
from workers.dashboard.acting.handlers import Acting
from workers.dashboard.asked import Asked, AskedSource
from workers.dashboard.explaining import Explain, Explaining
from workers.dashboard.login import USER, Login, login_of
from workers.dashboard.queues import Onlooker, queue_lengths
from workers.dashboard.source import FigureSource
from workers.dashboard.templates import stock_and_ours
from workers.queue.tls.refusals import check_certificates

LOOPBACK: Final = "127.0.0.1"
HEALTH: Final = "/healthcheck"


class Dashboard(Flower):
    """A user may rely on this: without the login nothing but the health check is served, whatever the path, the method or the
    options; and unless --address names another address, only this host can connect.
    """

    def __init__(self, options: Any, capp: Any, **settings: Any) -> None:
        """`options` are those that Flower has read. Raises ClickException naming one that is not allowed."""
        self.login: Final[Login] = login_of(options, settings["cookie_secret"])
        try:
            check_certificates(get_settings())
        except ConfigurationError as error:
            raise click.ClickException(str(error)) from None
        if not options.address and not options.unix_socket:
            options.address = LOOPBACK  # Flower's own default is every interface
        super().__init__(options=options, capp=capp, **{**settings, "template_loader": stock_and_ours(settings["template_path"])})
        self._root = f"/{options.url_prefix.strip('/')}" if options.url_prefix else ""
        self._login_url: Final[str] = settings["login_url"]
        self.figures = FigureSource(get_settings())
        self._onlooker = Onlooker(get_settings(), partial(queue_lengths, self))
        allowed = not get_settings().flower_read_only and bool(self.login.basic or self.login.emails)
        self.acting = Acting(get_settings(), settings["cookie_secret"], allowed=allowed)
        self.asked = AskedSource(get_settings(), self.figures)
        self.explaining = Explaining(get_settings())
        page = f"{self._root}/{handlers.PAGE}"
        landing = [url(f"{self._root}/?", handlers.Landing)] if get_settings().flower_landing == "fleet" else []
        self.add_handlers(
            ".*",
            [
                *landing,
                url(page, handlers.FleetPage, name=handlers.PAGE),
                url(f"{page}/figures", handlers.FleetDocument),
                url(f"{page}/asked", Asked),
                url(f"{page}/explain", Explain),
                url(f"{page}/letters", acts.Letters),
                url(f"{page}/ask", acts.Ask),
                url(f"{page}/confirm", acts.Confirm),
                url(f"{page}/static/(.*)", handlers.Asset, {"path": str(handlers.STATIC)}),
                url(f"{self._root}/metrics", handlers.Metrics),
                url(f"{self._root}/api/task/result/(.+)", handlers.WithheldResult),
            ],
        )

    def find_handler(self, request: HTTPServerRequest, **more: Any) -> Any:
        """The one way to every handler: those that Flower or Tornado may add beside their pages need the login, too."""
        if self._is_open(request) or self.login.admits(request):
            return super().find_handler(request, **more)
        to_login = self.login.emails and self.login.knows(request)
        return self.get_handler_delegate(request, handlers.Refusal, {"login_url": self._login_url if to_login else ""})

    def _is_open(self, request: HTTPServerRequest) -> bool:
        if request.path == self._root + HEALTH:
            return True
        return bool(self.login.emails) and request.path.rstrip("/") == self._login_url and self.login.knows(request)

    def start_http_server(self) -> int | None:
        port = cast("int | None", super().start_http_server())
        if self.login.made:
            where = f"unix socket {self.options.unix_socket}" if port is None else f"port {port}"
            click.echo(
                f"Flower on {where}: no login was given, so one was made for this run.\n"
                f"  user      {USER}\n"
                f"  password  {self.login.made}\n"
                "For one of your own, set FLOWER_BASIC_AUTH=user:password.",
                err=True,
            )
        return port

    def start(self) -> None:
        self._onlooker.begin(self.io_loop.asyncio_loop)
        super().start()

    def stop(self) -> None:
        super().stop()
        self._onlooker.close()
        self.figures.close()
        self.acting.close()
        self.asked.close()
        self.explaining.close()
