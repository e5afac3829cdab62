"""Reverse proxies in front of a test's Flower: a small one, and nginx where it is installed."""

from __future__ import annotations

import http.client
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from polling import until
from servers import free_port

from workers.stack.processes import ChildProcess

HOST: Final = "127.0.0.1"
NGINX: Final = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
# docs/operations.md has the same location.
_NGINX: Final = """
daemon off; master_process off; error_log stderr; pid {folder}/pid;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen {host}:{port};
    location {prefix}/ {{
      proxy_pass http://{host}:{target};
      proxy_set_header Host $host:$server_port;
      proxy_set_header X-Real-Ip $remote_addr;
      proxy_set_header X-Scheme $scheme;
    }}
  }}
}}
"""


@contextmanager
def small_proxy(target: int, prefix: str) -> Iterator[int]:
    """Its port. It passes on what is beneath `prefix`, as it is, and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._pass_on()

        def do_POST(self) -> None:
            self._pass_on()

        def _pass_on(self) -> None:
            if not self.path.startswith(f"{prefix}/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {**dict(self.headers.items()), "X-Real-Ip": self.client_address[0], "X-Scheme": "http"}
            with closing(http.client.HTTPConnection(HOST, target, timeout=20)) as there:
                there.request(self.command, self.path, body=body or None, headers=headers)
                answer = there.getresponse()
                text = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="proxy", daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join(5)


@contextmanager
def nginx(target: int, prefix: str, folder: Path) -> Iterator[int]:
    """Its port."""
    assert NGINX is not None
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, host=HOST, port=port, target=target, prefix=prefix))
    child = ChildProcess([NGINX, "-p", str(folder), "-c", str(config)], log=folder / "log", directory=folder)
    try:
        until(lambda: child.exit_code is not None or _listens(port), "nginx listens")
        assert child.exit_code is None, (folder / "log").read_text()
        yield port
    finally:
        child.kill()


def _listens(port: int) -> bool:
    with closing(http.client.HTTPConnection(HOST, port, timeout=1)) as connection:
        try:
            connection.connect()
        except OSError:
            return False
        return True
