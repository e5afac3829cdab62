"""`install`, in apps and programs of other people: real workers of every pool, a plain program, and what is refused."""

from __future__ import annotations

import os
import statistics
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from fleet import Pool, WorkerNode
from polling import until
from programs import run_program
from servers import ValkeyServer

from benchmarks.kit.board import Board
from pipeline.cache import LocalCache, RedisCache, TwoTierCache

KEY = "price:apple"
RUN_S = 60.0
ROUNDS = 30
LOADED_MS = 250.0
"""What a test may ask of a machine that does other things. The figure itself is the benchmark's: `coherence`."""


class Shop:
    """Workers of the app, its servers, and the app as another program of it has it."""

    def __init__(self, pool: Pool, *, nodes: int, slots: int, broker_url: str = "", bound_s: float = 60.0) -> None:
        self.slots = nodes * slots
        self._resources = ExitStack()
        broker, self.cache_server = (self._resources.enter_context(ValkeyServer()) for _ in range(2))
        environ = {
            "SHOP_BROKER_URL": broker_url or broker.url,
            "SHOP_RESULT_URL": broker.url_of(1),
            "SHOP_CACHE_URL": self.cache_server.url,
            "SHOP_BOUND_S": str(bound_s),
        }
        options: dict[str, Any] = {"pool": pool, "concurrency": slots, "app": "installed_app", "environ": environ}
        self.nodes = [WorkerNode(broker_url=environ["SHOP_BROKER_URL"], name=f"shop{each}", **options) for each in range(nodes)]
        for node in self.nodes:
            self._resources.callback(node.close)
        # As its authors' other programs have it; the queue's names begin with the prefix, and so do those of the broadcast.
        self.app = Celery("shop", broker=environ["SHOP_BROKER_URL"], backend=environ["SHOP_RESULT_URL"], set_as_current=False)
        self.app.conf.update(
            task_default_queue="shop",
            broker_transport_options={"global_keyprefix": "shop-"},
        )
        self._resources.callback(self.app.close)

    def start(self) -> Shop:
        for node in self.nodes:
            node.start(wait=False)
        for node in self.nodes:
            until(lambda: not node.running or f"{node.name} ready." in node.log(), f"{node.name} is ready", bound_s=30)  # noqa: B023
            assert node.running, node.log()
        return self

    def cache(self) -> TwoTierCache:
        """As a program that knows no broker has it."""
        return TwoTierCache(LocalCache(10), RedisCache(url=self.cache_server.url))

    def __enter__(self) -> Shop:
        try:
            return self.start()
        except BaseException:
            self._resources.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._resources.close()


def fresh_ms(shop: Shop, directory: Path, rounds: int = ROUNDS) -> list[float]:
    """How long it took each slot, all of which are busy, until it served fresh; by a program without a broker. Fails when one
    served stale beyond the bound."""
    with (
        closing(Board.create(directory / "board", children=shop.slots, versions=rounds)) as board,
        closing(shop.cache()) as elsewhere,
    ):
        children = range(shop.slots)
        for child in children:
            shop.app.send_task("shop.busy", args=[str(board.path), child, RUN_S], ignore_result=True)
        until(lambda: all(map(board.occupant, children)), "every slot is busy, and has read", bound_s=30)
        took_ms = []
        for version in range(1, rounds + 1):
            asked_ns = time.monotonic_ns()
            board.source = version
            assert elsewhere.invalidate(KEY).durable
            until(lambda: all(board.first_served_ns(child, version) for child in children), f"version {version}")  # noqa: B023
            took_ms += [(board.first_served_ns(child, version) - asked_ns) / 1e6 for child in children]
        board.stopped = True
        until(lambda: not any(map(board.occupant, children)), "every slot is free")
    return took_ms


@pytest.mark.parametrize(
    ("pool", "slots"),
    [
        ("prefork", 3),
        ("threads", 2),
        pytest.param("gevent", 2, marks=pytest.mark.long),
        pytest.param("solo", 1, marks=pytest.mark.long),
    ],
)
def test_every_process_of_two_nodes_serves_fresh_long_before_the_bound(pool: Pool, slots: int, tmp_path: Path) -> None:
    """With every slot busy, in every pool; the bound is a minute, so that the lease has no part in it."""
    if pool == "gevent":
        pytest.importorskip("gevent")
    with Shop(pool, nodes=2, slots=slots) as shop:
        took_ms = fresh_ms(shop, tmp_path)
        assert len(took_ms) == ROUNDS * shop.slots
        assert statistics.median(took_ms) < LOADED_MS, sorted(took_ms)[-5:]
        for node in shop.nodes:
            assert "Traceback" not in node.log()


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    """One node of two children, with a bound of a second."""
    with Shop("prefork", nodes=1, slots=2, bound_s=1.0) as shop:
        yield shop


def test_children_follow_the_bus_and_listen_for_themselves_nowhere(shop: Shop) -> None:
    """One connection a node, however many children. Its tasks travel as its own configuration has it (gzip, a prefix)."""
    seen = [shop.app.send_task("shop.who").get(timeout=20) for _ in range(8)]
    assert {each["pid"] for each in seen} <= set(shop.nodes[0].pids)
    assert all(each["follows"] and not each["listens"] for each in seen), seen


def test_nothing_else_of_the_app_is_changed(shop: Shop) -> None:
    """No setting, no transport, no queue and no key of this project at the broker, but the broadcast's own."""
    with shop.app.connection_for_read() as connection:
        client = connection.default_channel.client
        names = {name.decode() for name in client.connection_pool and client.keys("*")}
    assert not {name for name in names if "persona" in name}
    assert all(name.startswith("shop-_kombu.binding") for name in names if "cache.invalidate" in name), names
    log = shop.nodes[0].log()
    assert "fetch." not in log
    conf = shop.app.control.inspect(timeout=5).conf()
    assert conf
    (of_worker,) = conf.values()
    assert of_worker["task_compression"] == "gzip"
    assert not {name for name in of_worker if "persona" in name}


def test_a_program_of_the_app_hears_back_from_the_nodes(shop: Shop) -> None:
    """By the app's own broker, with its prefix: `wait_s` tells which nodes have applied it, a node that began later included."""
    program = """
        import os, time, installed_app
        installed = installed_app.installed
        cache = installed.cache
        ends_s = time.monotonic() + 20
        while True:
            done = cache.invalidate("price:*", wait_s=5)
            if done.applied or time.monotonic() > ends_s:
                break
        print(len(done.applied), done.silent, done.announced, done.durable)
        installed.close()
    """
    done = run_program("import sys; sys.path.insert(0, 'tests')\nimport os\n" + _environ(shop) + _dedented(program))
    assert (done.stdout.strip(), done.returncode) == ("1 () True True", 0), done.stderr


def _environ(shop: Shop) -> str:
    return f"os.environ.update({ {name: value for name, value in shop.nodes[0].environ.items() if name.startswith('SHOP_')}!r})\n"


def _dedented(text: str) -> str:
    return textwrap.dedent(text)


def test_a_child_that_is_replaced_follows_too_and_so_does_a_node_that_was_cut_off(shop: Shop, tmp_path: Path) -> None:
    """What the cache's server tells is heard again at the next beat."""
    shop.nodes[0].kill_child()
    until(lambda: len(shop.nodes[0].pids) == 2, "another has come", bound_s=30)
    with shop.cache_server.client() as control:
        control.client_kill_filter(_type="pubsub")
        until(lambda: control.client_list(_type="pubsub"), "it hears again", bound_s=10)
    assert statistics.median(fresh_ms(shop, tmp_path, rounds=10)) < LOADED_MS


# -- without Celery


PLAIN = """
    import os, sys, time
    from persona_worker import cached, install

    url = sys.argv[1]
    installed = install(cache_url=url, staleness_bound_s=60)

    @cached(ttl=600, key_prefix="now")
    def now(name: str) -> int:
        return time.monotonic_ns()

    old = now("a")
    assert now("a") == old
    pid = os.fork()  # as a web server does
    if pid == 0:
        from pipeline.cache import LocalCache, RedisCache, TwoTierCache
        other = TwoTierCache(LocalCache(10), RedisCache(url=url))
        time.sleep(0.5)
        other.invalidate("now:*")
        other.close()
        os._exit(0)
    began_s = time.monotonic()
    while now("a") == old:
        assert time.monotonic() < began_s + 20
        time.sleep(0.001)
    os.waitpid(pid, 0)
    print("fresh", installed.cache.lookup(now.cache_key("a")).source)
    installed.close()
"""


def test_a_program_without_an_app_needs_one_call(valkey: ValkeyServer) -> None:
    """Or none: `@cached` finds the cache by `PERSONA_CACHE_URL`."""
    done = run_program(PLAIN, valkey.url_of(7))
    assert (done.stdout.split(), done.returncode) == (["fresh", "l1"], 0), done.stderr


PARENT = """
    import os, sys, threading, time
    from persona_worker import install

    url = sys.argv[1]
    installed = install(cache_url=url, staleness_bound_s=60)
    installed.follow()
    installed.follow()
    installed.cache.set("k", "old")
    read, write = os.pipe()
    children = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            cache = installed.cache
            assert cache.get("k") == "old"
            os.write(write, b"r")
            while cache.get("k", None) == "old":
                time.sleep(0.001)
            alone = [thread.name for thread in threading.enumerate() if thread.name.startswith("cache-")]
            os._exit(len(alone))
        children.append(pid)
    for _ in children:
        os.read(read, 1)
    began_s = time.monotonic()
    installed.cache.invalidate("k")
    print([os.waitpid(pid, 0)[1] for pid in children], time.monotonic() - began_s < 20)
    installed.close()
    print(sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("cache-")))
"""


def test_children_of_one_parent_share_what_it_hears(valkey: ValkeyServer) -> None:
    """None of them has a listener, and each is fresh long before the bound."""
    done = run_program(PARENT, valkey.url_of(8))
    assert (done.stdout.splitlines(), done.returncode) == (["[0, 0, 0] True", "[]"], 0), done.stderr


# -- what is refused


REFUSED = {
    "no cache URL": ("install(celery.Celery())", "no cache URL; pass cache_url="),
    "a malformed URL": ("install(celery.Celery(), cache_url='http://x')", "PERSONA_CACHE_URL: malformed URL"),
    "an unknown setting": ("install(cache_url=URL, colour='red')", "unknown setting 'colour'"),
    "a setting that does not fit": ("install(cache_url=URL, staleness_bound_s=-1)", "PERSONA_STALENESS_BOUND_S"),
    "twice": ("install(cache_url=URL); install(cache_url=URL)", "has called it before"),
    "twice for one app": (
        "app = celery.Celery(); install(app, cache_url=URL); install(app, cache_url=URL)",
        "has called it before",
    ),
    "no app": ("install('shop', cache_url=URL)", "expected a Celery app or none, got str"),
    "no memory for the bus": (
        "import resource\n"
        "from pipeline.cache.coherence.bus import NodeBus\n"
        "import workers.install\n"
        "from pipeline.settings import discover_settings\n"
        "discover_settings(overrides={'cache_url': URL}); NodeBus()  # all that they load is there\n"
        "pages = int(open('/proc/self/statm').read().split()[0])\n"
        "resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 300_000,) * 2)\n"
        "install(cache_url=URL)",
        "the memory that a node's processes share cannot be made",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_call_that_cannot_be_met_is_one_sentence(case: str) -> None:
    """Where it is written, before anything has begun."""
    call, sentence = REFUSED[case]
    text = (
        "import celery\nfrom persona_worker import install\nfrom pipeline.errors import ConfigurationError\n"
        "URL = 'redis://127.0.0.1:1/0'\n"
        "def attempt():\n" + "".join(f"    {line}\n" for part in call.splitlines() for line in part.split("; ")) + "try:\n"
        "    attempt()\nexcept ConfigurationError as error:\n    print(error)\n"
    )
    done = run_program(text)
    assert done.returncode == 0, done.stderr
    assert sentence in done.stdout
    assert len(done.stdout.strip().splitlines()) == 1


LATE_APP = """
import os
from celery import Celery, signals
from persona_worker import InstallError, install

app = Celery("late", broker=os.environ["LATE_BROKER_URL"], backend=os.environ["LATE_RESULT_URL"])
app.conf.broker_connection_retry_on_startup = True
URL = os.environ["LATE_CACHE_URL"]


def attempt():
    try:
        install(app, cache_url=URL)
    except InstallError as error:
        return str(error)
    return "installed"


@signals.worker_ready.connect
def ready(**_):
    print(f"in the main process: {attempt()}", flush=True)


@app.task(name="late.attempt")
def late():
    return attempt()
"""


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_after_the_worker_has_begun_it_is_too_late(pool: Pool, tmp_path: Path) -> None:
    """In its main process, and in the children that were forked: nothing would follow for them, in silence."""
    (tmp_path / "late_app.py").write_text(LATE_APP, encoding="utf-8")
    with ValkeyServer() as broker:
        environ = {
            "LATE_BROKER_URL": broker.url,
            "LATE_RESULT_URL": broker.url_of(1),
            "LATE_CACHE_URL": broker.url_of(2),
            "PYTHONPATH": os.pathsep.join((str(tmp_path), str(Path(__file__).parents[2]))),
        }
        with (
            WorkerNode(broker_url=broker.url, name="late", app="late_app", pool=pool, concurrency=1, environ=environ) as node,
            closing(Celery("late", broker=broker.url, backend=broker.url_of(1), set_as_current=False)) as app,
        ):
            said = app.send_task("late.attempt").get(timeout=20)
            assert said.startswith("install: the worker of app 'late' has begun"), said
            until(lambda: "in the main process: install: the worker of app 'late' has begun" in node.log(), "the main process")


# -- RabbitMQ


@pytest.mark.long
def test_on_rabbitmq_every_child_is_as_fast(rabbit_url: str, tmp_path: Path) -> None:
    """The same app, on another broker."""
    with Shop("prefork", nodes=2, slots=3, broker_url=rabbit_url) as shop:
        assert statistics.median(fresh_ms(shop, tmp_path)) < LOADED_MS
