"""Every part with every server behind TLS: in each spelling of the URL, with certificates on both sides, with wrong ones."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from fleet import ROOT, WorkerNode, persona_environ
from front import Certificates, TlsFront
from kombu.exceptions import OperationalError
from monitor import FlowerServer
from polling import until
from redbeat.schedulers import get_redis
from servers import NO_STACK, ValkeyServer

from benchmarks.kit.nodes import own_environment
from pipeline.discovery import STACK_DIR
from pipeline.errors import ConfigurationError
from pipeline.settings import load_settings
from workers.client import PersonaClient
from workers.queue.errors import QueueRefusedError
from workers.queue.factory import make_app
from workers.queue.reach import bound_waits
from workers.queue.tls.refusals import check_certificates
from workers.stack.processes import ChildProcess

PASSWORD = "s3cret"
KEY = "calm-medium-learning"
WORKER = ["-m", "celery", "-A", "workers", "worker", "--pool=solo"]
BEAT = ["-m", "celery", "-A", "workers", "beat", "--pidfile="]
FLOWER = ["-m", "celery", "-A", "workers", "flower", "--port=0"]


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    """The broker's database is 0, that of the results 1, the cache's 2."""
    with ValkeyServer(password=PASSWORD, keep_on_disk=True) as server:
        yield server


@pytest.fixture(scope="module")
def front(server: ValkeyServer) -> Iterator[TlsFront]:
    with TlsFront(server.port) as front:
        yield front


@pytest.fixture(scope="module")
def mutual(server: ValkeyServer) -> Iterator[TlsFront]:
    """Clients need a certificate, too."""
    with TlsFront(server.port, mutual=True) as front:
        yield front


def environ_of(broker: str, results: str, cache: str) -> dict[str, str]:
    environ = persona_environ(broker_url=broker, result_url=results, cache_url=cache)
    environ["PERSONA_CACHE_NAMESPACE"] = uuid.uuid4().hex  # the nodes of the others, which were killed, are still waited for
    return environ


def run(arguments: list[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    environ = {**own_environment(), STACK_DIR: NO_STACK, **environ}
    return subprocess.run(
        [sys.executable, *arguments], env=environ, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("said", "named"),
    [
        pytest.param("", True, id="results named", marks=pytest.mark.long),
        pytest.param("&ssl_cert_reqs=CERT_REQUIRED", False, id="as Celery's documentation, results beside the queue"),
    ],
)
def test_a_worker_behind_tls_answers_and_forgets(front: TlsFront, said: str, named: bool) -> None:
    """The certificate is checked whether the URL says so or not; results beside the queue are behind TLS as it is."""
    broker, results, cache = (front.url_of(database, PASSWORD) + said for database in range(3))
    environ = environ_of(broker, results if named else "", cache)
    settings = load_settings(environ)
    with WorkerNode(broker_url=broker, environ=environ, concurrency=1) as node, PersonaClient(settings) as client:
        question = f"How do I begin, {named}{said}?"
        assert client.submit(question, KEY).result(20).cached == "no"
        assert client.ask(question, KEY, timeout_s=20).cached in ("l1", "l2")
        done = client.invalidate("persona:*", wait_s=5)
        assert (done.durable, done.applied, done.silent) == (True, (node.name,), ())
    with closing(make_app(settings)) as app:
        assert get_redis(app).ping(), "the schedule of beat lies there, too"


@pytest.mark.long
def test_every_part_has_a_certificate_of_its_own(mutual: TlsFront, server: ValkeyServer, tmp_path: Path) -> None:
    """Worker, caller, beat, Flower and the commands, with a key under a password and options that only some libraries read from a
    URL by themselves."""
    own = "&ssl_min_version=772&ssl_ciphers=ECDHE%2BAESGCM&ssl_check_hostname=true"
    environ = environ_of(*(mutual.url_of(database, PASSWORD, client=True) + own for database in range(3)))
    environ |= {"PERSONA_PRELOAD_INTERVAL_S": "2"}
    log = tmp_path / "beat"
    beat = ChildProcess(
        [sys.executable, *BEAT], log=log, environ={**own_environment(), STACK_DIR: NO_STACK, **environ}, directory=ROOT
    )
    login = {"FLOWER_BASIC_AUTH": "reader:a-login"}
    # The test looks at the node by an app that has no options of its own, and so by the server's own door.
    node = WorkerNode(broker_url=server.url, environ=environ, concurrency=1)
    try:
        node.start(wait=False)
        with PersonaClient(load_settings(environ)) as client:
            assert client.submit("Who is there?", KEY).result(30).cached == "no"
            assert client.invalidate("persona:*", wait_s=5).applied == (node.name,)
        with FlowerServer(broker_url=server.url, environ=environ | login) as flower:
            flower.login = login["FLOWER_BASIC_AUTH"]
            until(lambda: node.name in flower.ask("/api/workers?refresh=1").json(), "Flower asks the worker")
            assert flower.ask("/fleet/figures").json()["state"] == "live"
            assert "persona_queue_length" in flower.ask("/metrics").text
            assert flower.ask("/broker").status == 200
        for words in (["stats"], ["invalidate", "persona:*", "--timeout", "1"], ["preload"], ["dead-letters"]):
            done = run(["-m", "workers.cli", *words, "--json"], environ)
            assert done.returncode == 0, (words, done.stdout, done.stderr)
        with server.client(decode_responses=True) as redis:
            until(lambda: redis.hget("persona:redbeat:cache.preload", "meta"), "beat has queued a task", bound_s=30)
    finally:
        beat.kill()
        node.close()
    assert "rror" not in log.read_text()


def test_a_wrong_certificate_is_told_by_the_variable(front: TlsFront, mutual: TlsFront) -> None:
    """Each of the three URLs, whichever side does not accept the other; a server that is away is no fault of a certificate."""
    good, own = front.url_of(0), mutual.url_of(0, client=True)
    stranger = front.url_of(0, authority=front.certificates.stranger)
    check_certificates(load_settings(environ_of(good, own, own)))
    check_certificates(load_settings({"PERSONA_BROKER_URL": "rediss://127.0.0.1:1/0"}))
    check_certificates(load_settings({"PERSONA_BROKER_URL": stranger + "&ssl_cert_reqs=none"}))
    check_certificates(load_settings({"PERSONA_BROKER_URL": mutual.url_of(0)}))  # it says nothing, as one that is away
    with strict(mutual.certificates) as port:
        nobody = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={mutual.certificates.authority}"
        other = f"{nobody}&ssl_certfile={front.certificates.certificate}&ssl_keyfile={front.certificates.key}"
        for url, why in (
            (stranger, "is not accepted"),
            (nobody, "wants a certificate"),
            (other, "does not accept the certificate of ssl_certfile"),
        ):
            for name in ("PERSONA_BROKER_URL", "PERSONA_RESULT_URL", "PERSONA_CACHE_URL"):
                with pytest.raises(ConfigurationError, match=f"^{name}: .*{why}.*$"):
                    check_certificates(load_settings(environ_of(good, own, own) | {name: url}))


@contextmanager
def strict(made: Certificates) -> Iterator[int]:
    """The port of a server that says why it lets nobody in, as OpenSSL has it and as asyncio's does not."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(made.authority))
    context.load_cert_chain(made.certificate, made.key)
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):  # the end of the test
                while True:
                    plain, _ = listening.accept()
                    with plain, suppress(ssl.SSLError), context.wrap_socket(plain, server_side=True):
                        raise AssertionError("nobody has the certificate")

        thread = threading.Thread(target=serve, name="strict", daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_a_caller_is_told_of_a_wrong_certificate(front: TlsFront) -> None:
    """Not that the broker may not be running; and no password is in the message."""
    key = "&ssl_password=canary"
    wrong = [front.url_of(database, PASSWORD, authority=front.certificates.stranger) + key for database in range(2)]
    with (
        PersonaClient(load_settings(environ_of(*wrong, ""))) as client,
        pytest.raises(QueueRefusedError, match=r"not accepted .*ssl_ca_certs in PERSONA_BROKER_URL") as refusal,
    ):
        client.submit("Who is there?", KEY)
    assert PASSWORD not in str(refusal.value)
    assert "canary" not in str(refusal.value)


def test_two_apps_of_one_process_do_not_share_connections_by_other_certificates(mutual: TlsFront) -> None:
    """kombu's pools are the process's: an app without a certificate would send by the connections of one that has it."""
    certified, bare = (load_settings(environ_of(mutual.url_of(0, PASSWORD, client=client), "", "")) for client in (True, False))
    with closing(make_app(certified)) as first, closing(make_app(bare)) as second:
        bound_waits(first)
        bound_waits(second)
        with first.producer_pool.acquire(block=True) as producer:
            producer.connection.default_channel.client.ping()
        with second.producer_pool.acquire(block=True) as producer, pytest.raises(OperationalError):
            producer.connection.ensure_connection(max_retries=1, interval_start=0)


@pytest.mark.long
@pytest.mark.parametrize("command", [WORKER, BEAT, FLOWER, ["-m", "workers.cli", "dead-letters"]], ids=lambda words: words[-1])
def test_each_part_ends_at_its_start_with_the_variables_name(front: TlsFront, command: list[str]) -> None:
    """It would try for ever else, or say that the broker is not running."""
    url = front.url_of(0, PASSWORD, authority=front.certificates.stranger)
    done = run(command, environ_of(url, "", ""))
    assert done.returncode != 0
    assert "PERSONA_BROKER_URL" in done.stderr
    assert "not accepted" in done.stderr
    assert "Traceback" not in done.stderr
