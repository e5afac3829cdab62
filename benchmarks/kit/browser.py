"""A real Chromium without a window, to see a page as its users do. Driven by the DevTools protocol.

with Browser() as browser:
    browser.open("http://user:password@127.0.0.1:5555/fleet")
    assert browser.evaluate("document.title") == "Fleet · Flower"
    assert browser.errors == []
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import tempfile
import time
from collections.abc import Coroutine
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.request import urlopen

from tornado.websocket import WebSocketClientConnection, websocket_connect

from workers.stack.processes import ChildProcess

T = TypeVar("T")

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")
HOW_TO_INSTALL: Final = "apt-get install chromium"
START_TIMEOUT_S: Final = 30.0
ANSWER_TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.05
MAX_MESSAGE_BYTES: Final = 64 << 20  # a screenshot is one message
_OPTIONS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *("--remote-debugging-port=0", "--window-size=1440,900"),
)


@lru_cache(maxsize=1)
def find_chromium() -> str | None:
    """The program, or None if none is installed."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class BrowserError(Exception):
    """The browser, or a script in it, did not do as it was told."""


class PageLeftError(BrowserError):
    """The page was left while a script ran in it."""


class Browser:
    """One tab of a browser of its own, which ends with this process at the latest. Used by one thread."""

    def __init__(self) -> None:
        """Raises BrowserError if no Chromium is installed, or if it does not start."""
        program = find_chromium()
        if program is None:
            raise BrowserError(f"no Chromium is installed: none of {', '.join(PROGRAMS)} is on the PATH ({HOW_TO_INSTALL})")
        self.errors: list[str] = []
        """The console's errors and warnings, and uncaught exceptions, since the page was opened."""
        self.requested: list[str] = []
        """The addresses that the page has requested since it was opened."""
        self._folder = Path(tempfile.mkdtemp(prefix="browser-"))
        self._loop = asyncio.new_event_loop()
        self._number = 0
        self._socket: WebSocketClientConnection | None = None
        command = [program, *_OPTIONS, f"--user-data-dir={self._folder / 'profile'}", "about:blank"]
        self._process = ChildProcess(command, log=self._folder / "log")
        try:
            self._socket = self._run(self._connect())
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.command(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def open(self, url: str) -> None:
        """Show a page; returns when it and its scripts are loaded."""
        self.errors.clear()
        self.requested.clear()
        failure = self.command("Page.navigate", url=url).get("errorText")
        if failure:
            raise BrowserError(f"the page was not loaded: {failure}")
        self.wait("document.readyState === 'complete'")

    def evaluate(self, script: str) -> Any:
        """The value of an expression of JavaScript, as JSON carries it; a promise is awaited."""
        answer = self.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise BrowserError(f"{script}: {_exception(answer['exceptionDetails'])}")
        return answer["result"].get("value")

    def wait(self, condition: str, *, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """Wait until an expression of JavaScript is true. Raises BrowserError when it is not in time."""
        deadline_s = time.monotonic() + timeout_s
        while not self._holds(condition):
            if time.monotonic() > deadline_s:
                raise BrowserError(f"not within {timeout_s:g} s: {condition}")
            time.sleep(POLL_S)

    def _holds(self, condition: str) -> bool:
        try:
            return bool(self.evaluate(f"Boolean({condition})"))
        except PageLeftError:
            return False

    def prefer(self, theme: str) -> None:
        """Have the system's theme be `light` or `dark`."""
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])

    def screenshot(self, path: Path, *, width: int = 1440, height: int | None = None) -> None:
        """Write a PNG of the page, from its top; the whole page unless `height` limits it."""
        if height is None:
            height = int(self.evaluate("document.documentElement.scrollHeight"))
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        image = self.command("Page.captureScreenshot", format="png")["data"]
        self.command("Emulation.clearDeviceMetricsOverride")
        path.write_bytes(base64.b64decode(image))

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command of the protocol."""
        return self._run(self._command(method, parameters))

    def close(self) -> None:
        """End the browser and remove its files. May be called again."""
        self._process.kill()
        if not self._loop.is_closed():
            if self._socket is not None:
                self._run(_hang_up(self._socket))
            self._loop.close()
        self._socket = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    async def _connect(self) -> WebSocketClientConnection:
        found = self._folder / "profile" / "DevToolsActivePort"
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not found.exists() or "\n" not in found.read_text():
            if self._process.exit_code is not None or time.monotonic() > deadline_s:
                log = (self._folder / "log").read_text(encoding="utf-8", errors="replace")
                raise BrowserError(f"the browser did not start: {log[-2000:]}")
            await asyncio.sleep(POLL_S)
        port = found.read_text().split("\n", 1)[0]
        with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=ANSWER_TIMEOUT_S) as answer:
            tabs = json.load(answer)
        address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        return await websocket_connect(address, max_message_size=MAX_MESSAGE_BYTES)

    async def _command(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        if self._socket is None:
            raise BrowserError(f"{method}: the browser is closed")
        self._number += 1
        await self._socket.write_message(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            raw = await asyncio.wait_for(self._socket.read_message(), ANSWER_TIMEOUT_S)
            if raw is None:
                raise BrowserError(f"{method}: the browser is gone")
            message = json.loads(raw)
            if message.get("id") == self._number:
                if "error" in message:
                    problem = message["error"]["message"]
                    raise (PageLeftError if "navigated" in problem else BrowserError)(f"{method}: {problem}")
                result: dict[str, Any] = message["result"]
                return result
            self._note(message.get("method"), message.get("params", {}))

    def _note(self, event: str | None, facts: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            self.errors.append(_exception(facts["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and facts["type"] in ("error", "warning", "assert"):
            self.errors.append(" ".join(str(part.get("value", part.get("description"))) for part in facts["args"]))
        elif event == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
            entry = facts["entry"]
            self.errors.append(f"{entry['text']} {entry.get('url', '')}".strip())
        elif event == "Network.requestWillBeSent":
            self.requested.append(facts["request"]["url"])


async def _hang_up(socket: WebSocketClientConnection) -> None:
    """Runs in the loop, as the socket requires."""
    socket.close()
    while await socket.read_message() is not None:  # until the other side, which is dead, has hung up
        pass


def _exception(details: dict[str, Any]) -> str:
    return str(details.get("exception", {}).get("description", details.get("text")))
