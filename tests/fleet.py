"""Real worker nodes for tests: `celery -A workers worker` processes on servers of their own, gone with the test process.

with Fleet(nodes=2) as fleet:
    fleet.client.ask("How do I begin?", "calm-flowing-planning")
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import redis
from celery import Celery
from celery.exceptions import OperationalError
from celery.result import AsyncResult
from forked import Program, start_celery
from polling import until
from servers import NO_STACK, ValkeyServer

from benchmarks.kit.endpoint import Messages, ScriptedEndpoint, echo
from benchmarks.kit.nodes import node_command, own_environment
from pipeline.discovery import STACK_DIR
from pipeline.models import ChatContext, PersonaRequest, PersonaResponse
from pipeline.settings import load_settings
from workers.client import PersonaClient
from workers.node.events import FLUSH_S
from workers.node.fetch.claims import CLAIMS

Pool = Literal["prefork", "threads", "solo", "gevent"]

ROOT: Final = Path(__file__).parents[1]
START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 30.0
BOUND_S: Final = 20.0
ANSWER_S: Final = 60.0
API_KEY: Final = "sk-canary-of-the-key"


def bare_app(broker_url: str, result_url: str = "") -> Celery:
    """An app without any configuration of this project, as a foreign program has it. The caller closes it."""
    app = Celery("foreign", broker=broker_url, backend=result_url or None, set_as_current=False)
    app.conf.broker_connection_timeout = 2
    return app


def send_plain(app: Celery, request: PersonaRequest, queue: str = "persona") -> AsyncResult:
    """One task for the workers, as any program queues it: without a look into the cache, and joining no other task."""
    return app.send_task("persona.process", args=[request.to_wire()], queue=queue)


def answers_of(results: Sequence[AsyncResult], timeout_s: float = ANSWER_S) -> list[PersonaResponse]:
    """The workers' results, in order; each is waited for no longer than that. Raises the error of one that failed."""
    return [PersonaResponse.from_wire(result.get(timeout=timeout_s)) for result in results]


class WorkerNode:
    """One `celery -A workers worker`, ready to work when `start` returns. Used by one thread at a time.

    Linux only: it reads /proc. Its whole output, pool children included, is in `log()`.
    """

    def __init__(
        self,
        *,
        broker_url: str,
        result_url: str = "",
        cache_url: str = "",
        llm_url: str = "",
        pool: Pool = "prefork",
        concurrency: int = 2,
        name: str = "node",
        log_level: str = "INFO",
        environ: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        app: str = "workers",
        working_directory: Path = ROOT,
    ) -> None:
        """`environ` wins over the URLs; `arguments` go to the worker's command line; `app` may be a module beside the tests."""
        self.name = f"{name}@{socket.gethostname()}"
        self.pool = pool
        self.directory = Path(tempfile.mkdtemp(prefix="node-"))
        self.environ = persona_environ(broker_url=broker_url, result_url=result_url, cache_url=cache_url, llm_url=llm_url)
        self.environ |= environ or {}
        self._command = [*node_command(self.name, pool=pool, concurrency=concurrency, app=app, log_level=log_level), *arguments]
        self._working_directory = working_directory
        self._process: Program | None = None

    @property
    def process(self) -> Program:
        assert self._process is not None, "the node is not started"
        return self._process

    @property
    def pid(self) -> int:
        """Of the main process."""
        return self.process.pid

    @property
    def pids(self) -> list[int]:
        """Of the pool's children, those that run now; none for pools of threads."""
        found: list[int] = []
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
        return sorted(found)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.exit_code is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self.process.exit_code

    def start(self, *, wait: bool = True) -> Self:
        """Start it; with `wait`, return when it takes tasks and answers to remote control."""
        seen = len(self.log())
        self._process = start_celery(
            self._command,
            log=self.directory / "log",
            # The tree under test, whichever is installed.
            environ={**own_environment(), STACK_DIR: NO_STACK, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", **self.environ},
            directory=self._working_directory,
        )
        if wait:
            self.wait_ready(seen)
        return self

    def wait_ready(self, seen: int = 0) -> None:
        """Wait until it is ready, by its log beyond the first `seen` characters."""
        until(
            lambda: not self.running or f"{self.name} ready." in self.log()[seen:],
            f"{self.name} is ready",
            bound_s=START_TIMEOUT_S,
        )
        assert self.running, f"{self.name} ended with {self.exit_code}:\n{self.log()}"
        # It says so a moment before it listens to remote control, and to broadcasts.
        with closing(bare_app(self.environ["PERSONA_BROKER_URL"])) as app:
            until(lambda: pings(app, self.name), f"{self.name} answers a ping", bound_s=START_TIMEOUT_S)

    def restart(self) -> Self:
        """Stop it in order and start it anew."""
        assert self.stop(), f"{self.name} did not stop:\n{self.log()}"
        return self.start()

    def stop(self, *, wait: bool = True) -> bool:
        """TERM, as a supervisor sends it. With `wait`: whether it ended by itself within the bound; then it is gone."""
        if wait:
            return self.process.stop(STOP_TIMEOUT_S)
        self.process.send_signal(signal.SIGTERM)
        return False

    def kill(self) -> None:
        """KILL the main process, as the machine does when memory is out; its children end with it. Also when frozen."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.kill()

    def kill_child(self, pid: int | None = None) -> int:
        """KILL one child of the pool, by default the first; its pid."""
        pid = self.pids[0] if pid is None else pid
        os.kill(pid, signal.SIGKILL)
        return pid

    def freeze(self, pid: int | None = None) -> None:
        """Stop a process, by default the main one, where it is: its connections stay open."""
        os.kill(self.pid if pid is None else pid, signal.SIGSTOP)

    def thaw(self, pid: int | None = None) -> None:
        os.kill(self.pid if pid is None else pid, signal.SIGCONT)

    def log(self) -> str:
        """Its log since it was made, over all its starts."""
        path = self.directory / "log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def close(self) -> None:
        """End it at once and remove its files."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Fleet:
    """A broker, a cache's server, a scripted model endpoint and `nodes` worker nodes, all its own.

    `client` asks it, and looks into its own cache before it asks a node: a test of what nodes do sends `plain` tasks. `app` is a
    foreign program's app, for those and for remote control, `environ` is what its nodes run under.
    """

    def __init__(
        self,
        *,
        nodes: int = 1,
        pool: Pool = "prefork",
        concurrency: int = 2,
        delay_ms: float = 0.0,
        answer: Callable[[Messages], str] = echo,
        environ: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        app: str = "workers",
    ) -> None:
        """`delay_ms`: how long the endpoint takes for an answer, which is what `answer` makes of the prompt. The rest is as
        WorkerNode has it."""
        self._resources = ExitStack()
        self.broker = ValkeyServer(keep_on_disk=True)
        self.cache = ValkeyServer()
        self.endpoint = ScriptedEndpoint(delay_ms=delay_ms, answer=answer)
        self.environ = persona_environ(broker_url=self.broker.url, cache_url=self.cache.url, llm_url=self.endpoint.url) | dict(
            environ or {}
        )
        self.nodes: list[WorkerNode] = []
        self._planned = nodes
        self._options: dict[str, Any] = {"pool": pool, "concurrency": concurrency, "arguments": arguments, "app": app}

    def start(self) -> Self:
        try:
            self._resources.callback(self.endpoint.close)
            self._resources.enter_context(self.broker)
            self._resources.enter_context(self.cache)
            self.client = self._resources.enter_context(PersonaClient(load_settings(self.environ)))
            self.app = bare_app(self.broker.url, self.broker.url_of(1))
            self._resources.callback(self.app.close)
            self.queue = self._resources.enter_context(closing(redis.Redis.from_url(self.broker.url, decode_responses=True)))
            for _ in range(self._planned):
                self.add_node(wait=False)
            for node in self.nodes:
                node.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def add_node(self, *, wait: bool = True, environ: Mapping[str, str] | None = None, **options: Any) -> WorkerNode:
        """One more node, with the fleet's settings and these on top."""
        node = WorkerNode(
            broker_url=self.broker.url,
            environ={**self.environ, **(environ or {})},
            **{"name": f"node{len(self.nodes) + 1}", **self._options, **options},
        )
        self._resources.callback(node.close)
        self.nodes.append(node)
        node.start(wait=wait)
        return node

    @property
    def node(self) -> WorkerNode:
        """The first one."""
        return self.nodes[0]

    def plain(self, *requests: PersonaRequest) -> list[PersonaResponse]:
        """The nodes' answers, in order, to tasks that are all queued at once."""
        return answers_of([send_plain(self.app, request) for request in requests])

    def ask_plain(
        self, user_input: str, resonance_key: str, context: ChatContext | dict[str, Any] | None = None, *, use_cache: bool = True
    ) -> PersonaResponse:
        """A node's answer to one task."""
        return self.plain(PersonaRequest.create(user_input, resonance_key, context, use_cache))[0]

    def queued(self, queue: str = "persona") -> int:
        """How many messages wait in the queue; those that a node has taken do not count."""
        length: int = self.queue.llen(queue)
        return length

    def claimed(self) -> int:
        """How many messages the nodes have taken and not finished."""
        return sum(int(self.queue.llen(claims)) for claims in self.queue.keys(f"{CLAIMS}*"))

    def logs(self) -> str:
        return "\n".join(f"---- {node.name}\n{node.log()}" for node in self.nodes)

    def close(self) -> None:
        """End everything at once. Nodes first: none is left to complain about a lost server."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            sys.stdout.write(self.logs())  # shown beside the failure
        self.close()


@contextmanager
def captured_events(app: Celery) -> Iterator[list[dict[str, Any]]]:
    """The events of the nodes, in a list that grows; it has all that were sent before the end of the block.

    A node sends the last event of a task a moment after its caller has the answer: wait for it where it matters.
    """
    seen: list[dict[str, Any]] = []
    ended = threading.Event()
    mark = f"test-{os.urandom(8).hex()}"
    ready = threading.Event()

    def on_event(event: dict[str, Any]) -> None:
        if event["type"] != mark:
            seen.append(event)
        elif event.get("last"):
            receiver.should_stop = True
            ended.set()
        else:
            ready.set()

    with app.connection_for_read() as connection, app.events.default_dispatcher() as dispatcher:
        receiver = app.events.Receiver(connection, handlers={"*": on_event})
        thread = threading.Thread(
            target=lambda: receiver.capture(limit=None, timeout=None, wakeup=False), name="events", daemon=True
        )
        thread.start()
        try:
            until(lambda: _sent(dispatcher, mark, last=False) and ready.wait(0.05), "events are captured")
            time.sleep(2 * FLUSH_S)  # nodes keep events for so long, and none says that it keeps none
            seen.clear()
            yield seen
        finally:
            time.sleep(2 * FLUSH_S)
            # One that is sent after the others arrives after them: the server keeps the order of a channel.
            until(lambda: _sent(dispatcher, mark, last=True) and ended.wait(0.5), "the last event has come")
            thread.join(BOUND_S)


def persona_environ(*, broker_url: str, result_url: str = "", cache_url: str = "", llm_url: str = "") -> dict[str, str]:
    """The settings of a node or a client, as variables."""
    environ = {"PERSONA_BROKER_URL": broker_url, "PERSONA_RESULT_URL": result_url, "PERSONA_CACHE_URL": cache_url}
    if llm_url:
        environ |= {"PERSONA_LLM_URL": llm_url, "PERSONA_LLM_MODEL": "echo", "PERSONA_LLM_API_KEY": API_KEY}
    return environ


def pings(app: Celery, name: str) -> bool:
    """Whether that node answers to remote control, soon."""
    try:
        return bool(app.control.ping(destination=[name], timeout=0.2))
    except (OperationalError, OSError, redis.RedisError):
        return False


def _sent(dispatcher: Any, kind: str, *, last: bool) -> bool:
    dispatcher.send(kind, last=last)
    return True
