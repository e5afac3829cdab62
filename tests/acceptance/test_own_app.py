"""`examples/own_app`, by real workers and a real ASGI server; and every program of docs/your-own-app.md, as it is printed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from fleet import ROOT
from polling import until
from servers import NO_STACK, ValkeyServer, free_port

from benchmarks.kit.nodes import own_environment
from workers.stack.processes import ChildProcess

EXAMPLE = ROOT / "examples" / "own_app"
PAGE = (ROOT / "docs" / "your-own-app.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PYTHON = [block for language, block in BLOCKS if language == "python"]
FRESH_S = 5.0
"""Long before the bound of a minute, and long enough for a machine that does other things."""


class Running:
    """The shop: servers, two workers of two children, a web server of two processes."""

    def __init__(self, directory: Path) -> None:
        self._resources = ExitStack()
        self.directory = directory
        broker, cache = (self._resources.enter_context(ValkeyServer()) for _ in range(2))
        self.environ = environment(
            SHOP_BROKER_URL=broker.url,
            SHOP_RESULT_URL=broker.url_of(1),
            SHOP_CACHE_URL=cache.url,
            SHOP_DATABASE=str(directory / "shop.sqlite3"),
            PERSONA_STALENESS_BOUND_S="60",  # so that the lease is not what made a process forget
        )
        subprocess.run([sys.executable, "shop.py"], cwd=EXAMPLE, env=self.environ, check=True, timeout=60)
        port = free_port()
        for number in (1, 2):
            self.start(f"worker{number}", "celery", "-A", "shop", "worker", "-c", "2", "-n", f"shop{number}@here", "-l", "INFO")
        self.web = self.start("web", "uvicorn", "web:api", "--workers", "2", "--port", str(port))
        for number in (1, 2):
            until(lambda: "ready." in self.log(f"worker{number}"), "the worker is ready", bound_s=60)  # noqa: B023
        self.url = f"http://127.0.0.1:{port}"
        until(self._answers, "the web server answers", bound_s=60)

    def start(self, name: str, *command: str) -> ChildProcess:
        process = ChildProcess(
            [sys.executable, "-m", *command], log=self.directory / name, environ=self.environ, directory=EXAMPLE
        )
        self._resources.callback(process.kill)
        return process

    def log(self, name: str) -> str:
        return (self.directory / name).read_text(encoding="utf-8", errors="replace")

    def get(self, path: str) -> Any:
        """By a connection of its own, so that every process of the server has its turn."""
        answer = httpx.get(self.url + path, timeout=20)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def _answers(self) -> bool:
        try:
            return bool(httpx.get(f"{self.url}/price/tea", timeout=5).status_code == 200)
        except httpx.TransportError:
            assert self.web.exit_code is None, self.log("web")
            return False

    def task(self, name: str, *arguments: object) -> Any:
        """The result of a task, asked for by a program of the shop's own."""
        program = (
            f"import json, shop; print(json.dumps(shop.{name}.delay(*{arguments!r}).get(timeout=30))); shop.installed.close()"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=EXAMPLE,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def close(self) -> None:
        self._resources.close()


def environment(**variables: str) -> dict[str, str]:
    environ = own_environment() | {"PERSONA_STACK_DIR": NO_STACK, "PYTHONDONTWRITEBYTECODE": "1"}
    return environ | {"PYTHONPATH": str(ROOT), **variables}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("shop"))
    try:
        yield running
    finally:
        sys.stdout.write(running.log("web")[-2000:])
        running.close()


def all_say(shop: Running, path: str, what: Callable[[Any], object], value: object) -> None:
    """Every process of the web server answers so within FRESH_S, and none otherwise after that."""

    def told() -> bool:
        answers = [shop.get(path) for _ in range(12)]
        return {what(answer) for answer in answers} == {value} and len({answer["pid"] for answer in answers}) >= 2

    until(told, f"{path}: {value}", bound_s=FRESH_S + 15)


def test_a_price_that_one_process_changes_is_the_price_of_all(shop: Running) -> None:
    """Web processes, which are no workers, hear of it from each other."""
    all_say(shop, "/price/tea", lambda answer: answer["price"], 3.0)
    for price in (4.5, 2.25, 3.75):
        assert httpx.put(f"{shop.url}/price/tea", params={"price": price}, timeout=20).status_code == 200
        all_say(shop, "/price/tea", lambda answer: answer["price"], price)
    assert httpx.get(f"{shop.url}/price/none", timeout=20).status_code == 404


def test_what_a_worker_books_ends_the_report_of_every_process(shop: Running) -> None:
    """The report depends on stocks and prices: it is not named by the one who changes one of them."""
    before = shop.get("/report")
    all_say(shop, "/report", lambda answer: answer["total"], before["total"])
    cups = before["goods"]["cups"]
    httpx.post(f"{shop.url}/sold/cups", params={"count": 2}, timeout=20).raise_for_status()
    all_say(shop, "/report", lambda answer: answer["goods"]["cups"], cups - 16.0)
    for _ in range(4):
        assert shop.task("send_report")["goods"]["cups"] == cups - 16.0
    httpx.put(f"{shop.url}/price/cups", params={"price": 9}, timeout=20).raise_for_status()
    all_say(shop, "/report", lambda answer: answer["goods"]["cups"], (cups - 16.0) / 8 * 9)
    assert shop.task("send_report")["goods"]["cups"] == (cups - 16.0) / 8 * 9


def test_the_shop_runs_without_a_word_of_this_project_in_its_logs(shop: Running) -> None:
    """No warning, no traceback."""
    for name in ("worker1", "worker2", "web"):
        assert "Traceback" not in shop.log(name)
        assert "cache." not in shop.log(name)


# -- the page


def test_every_program_of_the_page_is_held_by_a_test_here() -> None:
    """A further one needs a test."""
    assert [language for language, _ in BLOCKS if language in ("python", "bash")] == [
        "python",
        "bash",
        "python",
        "python",
        "python",
    ]


def test_the_quick_start_is_short_and_tells_when_every_child_was_fresh(tmp_path: Path) -> None:
    """As it is printed, but for the server's port."""
    lines = [line for line in PYTHON[0].splitlines() if line.strip()]
    assert len(lines) <= 15
    (commands,) = [block for language, block in BLOCKS if language == "bash"]
    worker, program = commands.strip().splitlines()
    with ValkeyServer() as server, ExitStack() as resources:
        (tmp_path / "shop.py").write_text(PYTHON[0].replace("6379", str(server.port)), encoding="utf-8")
        environ = environment(PATH=f"{Path(sys.executable).parent}{os.pathsep}/usr/bin:/bin")
        process = ChildProcess(worker.removesuffix(" &").split(), log=tmp_path / "log", environ=environ, directory=tmp_path)
        resources.callback(process.kill)
        until(lambda: "ready." in (tmp_path / "log").read_text(encoding="utf-8"), "the worker is ready", bound_s=60)
        done = subprocess.run(program.split(), cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    told = [re.fullmatch(r"(\d+): (\d+\.\d) ms", line) for line in done.stdout.splitlines()]
    assert all(told)
    assert len({match[1] for match in told if match}) == 4, done.stdout
    assert all(float(match[2]) < 500 for match in told if match), done.stdout


FASTAPI = """
    from fastapi.testclient import TestClient

    with TestClient(api) as client:
        first = client.get("/price/tea").json()
        assert client.get("/price/tea").json() == first == {"price": 3.0}
        client.put("/price/tea", params={"price": 4})
        assert client.get("/price/tea").json() == {"price": 4.0}
"""
DJANGO = """
    from django.test import Client

    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE goods (name TEXT PRIMARY KEY, price REAL)")
        cursor.execute("INSERT INTO goods VALUES ('tea', 3)")
    client = Client()
    assert client.get("/price/tea").json() == {"price": 3.0}
    assert client.post("/price/tea", {"price": 4}).status_code == 200
    assert client.get("/price/tea").json() == {"price": 4.0}
"""


@pytest.mark.parametrize(("number", "rest"), [(1, FASTAPI), (2, DJANGO), (3, "")])
def test_a_program_of_the_page_runs(number: int, rest: str, tmp_path: Path) -> None:
    """With a cache's server, and no worker; a comment beside a print is the line that it prints."""
    program = tmp_path / "program.py"
    program.write_text(PYTHON[number] + "\n" + textwrap.dedent(rest), encoding="utf-8")
    with ValkeyServer() as server:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(program)],
            env=environment(PERSONA_CACHE_URL=server.url),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    said = re.findall(r"^ *print\(.*?\)  # (.*)$", PYTHON[number], re.MULTILINE)
    assert done.stdout.splitlines() == said
