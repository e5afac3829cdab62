"""Flower beneath a prefix behind a reverse proxy: by a password, and by OAuth with a provider of the test's own."""

from __future__ import annotations

import base64
import http.client
import json
import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest
from monitor import PASSWORD, USER, Answer, FlowerServer
from proxies import HOST, NGINX, nginx, small_proxy
from servers import ValkeyServer

pytestmark = pytest.mark.long

PREFIX: Final = "/ops"
OURS: Final = "ann@example.com"
BASIC: Final = {"Authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}


def ask(port: int, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Answer:
    with closing(http.client.HTTPConnection(HOST, port, timeout=20)) as connection:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())


@pytest.mark.parametrize("kind", ["small", pytest.param("nginx", marks=pytest.mark.skipif(NGINX is None, reason="no nginx"))])
def test_the_fleets_page_works_beneath_a_prefix_by_a_password(kind: str, valkey: ValkeyServer, tmp_path: Path) -> None:
    """Page, figures, scripts and every link and address that a page names; nothing of it without the password."""
    with (
        FlowerServer(
            broker_url=valkey.url_of(14),
            cache_url=valkey.url_of(15),
            arguments=(f"--url_prefix={PREFIX}", "--xheaders=true"),
            prefix=PREFIX,
        ) as flower,
        small_proxy(flower.port, PREFIX) if kind == "small" else nginx(flower.port, PREFIX, tmp_path) as port,
    ):
        for path in ("/fleet", "/fleet/figures", "/fleet/static/fleet.js", "/metrics", "/api/workers", "/workers", "/", "/none"):
            refused = ask(port, PREFIX + path)
            assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, 'Basic realm="flower"'), path
        assert ask(port, f"{PREFIX}/healthcheck").status == 200
        page = ask(port, f"{PREFIX}/fleet", BASIC)
        assert page.status == 200
        (figures,) = re.findall(r'data-figures="([^"]+)"', page.text)
        assert ask(port, figures, BASIC).json()["state"] == "live"
        named = set(re.findall(r'(?:href|src)="(/[^"]*)"', page.text))
        assert f"{PREFIX}/fleet/static/fleet.js" in named
        assert f"{PREFIX}/fleet" in named
        for path in named:
            assert path.startswith(PREFIX), path
            assert ask(port, path, BASIC).status == (302 if path == f"{PREFIX}/" else 200), path
        assert ask(port, f"{PREFIX}/", BASIC).headers["Location"] == f"{PREFIX}/fleet"
        assert "persona_cache_up" in ask(port, f"{PREFIX}/metrics", BASIC).text
        assert ask(port, "/fleet", BASIC).status == 404, "what is not beneath the prefix is another program's"


@contextmanager
def provider(email: str) -> Iterator[str]:
    """An OAuth provider's two addresses, as Flower's Okta handler asks them; everyone who comes back from it is `email`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            right = sent["code"] == ["a-code"] and sent["client_secret"] == ["a-secret"]
            self._answer(200 if right else 403, {"access_token": "a-token"} if right else {})

        def do_GET(self) -> None:
            right = self.headers["Authorization"] == "Bearer a-token"
            self._answer(200 if right else 403, {"email": email, "email_verified": True})

        def _answer(self, status: int, document: dict[str, Any]) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, name="provider", daemon=True).start()
        yield f"http://{HOST}:{server.server_address[1]}"
        server.shutdown()


def cookies(answer: Answer) -> str:
    return "; ".join(value.partition(";")[0] for value in answer.headers.get_all("Set-Cookie") or ())


@pytest.mark.parametrize(("email", "status"), [(OURS, 302), ("eve@example.org", 403)])
def test_oauth_leads_to_the_provider_and_back_beneath_the_prefix(email: str, status: int, valkey: ValkeyServer) -> None:
    """A browser without a session is led there from any page; the page opens for the address that --auth names alone."""
    with provider(email) as there:
        options = {
            "FLOWER_AUTH": OURS,
            "FLOWER_AUTH_PROVIDER": "flower.views.auth.OktaLoginHandler",
            "FLOWER_OAUTH2_KEY": "a-key",
            "FLOWER_OAUTH2_SECRET": "a-secret",
            "FLOWER_OAUTH2_OKTA_BASE_URL": there,
            "FLOWER_OAUTH2_REDIRECT_URI": f"https://ops.example.com{PREFIX}/login",
        }
        with (
            FlowerServer(
                broker_url=valkey.url_of(14),
                cache_url=valkey.url_of(15),
                environ=options,
                arguments=(f"--url_prefix={PREFIX}",),
                prefix=PREFIX,
            ) as flower,
            small_proxy(flower.port, PREFIX) as port,
        ):
            first = ask(port, f"{PREFIX}/fleet")
            assert (first.status, urlsplit(first.headers["Location"]).path) == (302, f"{PREFIX}/login")
            assert ask(port, f"{PREFIX}/api/workers", method="POST").status == 401
            to_provider = ask(port, first.headers["Location"])
            where = urlsplit(to_provider.headers["Location"])
            query = parse_qs(where.query)
            assert to_provider.headers["Location"].startswith(f"{there}/v1/authorize?")
            assert query["redirect_uri"] == [options["FLOWER_OAUTH2_REDIRECT_URI"]]
            back = f"{PREFIX}/login?code=a-code&state={query['state'][0]}"
            assert ask(port, back).status >= 400, "a link that another site made, without the cookie of this login"
            returned = ask(port, back, {"Cookie": cookies(to_provider)})
            assert returned.status == status, flower.log()
            session = {"Cookie": cookies(returned)}
            if status == 302:
                assert returned.headers["Location"] == PREFIX
                assert ask(port, f"{PREFIX}/", session).headers["Location"] == f"{PREFIX}/fleet"
                assert ask(port, f"{PREFIX}/fleet", session).status == 200
                assert ask(port, f"{PREFIX}/fleet/figures", session).json()["state"] == "live"
            else:
                assert ask(port, f"{PREFIX}/fleet/figures", session).status in (302, 401)
            assert "a-secret" not in flower.log()
