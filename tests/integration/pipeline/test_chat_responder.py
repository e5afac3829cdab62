"""The chat responder against a real endpoint on loopback, with every fault that an endpoint has."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from polling import until

from benchmarks.kit.endpoint import Fault, ScriptedEndpoint, echo
from pipeline.errors import ModelError, PermanentModelError, TransientModelError
from pipeline.models import Message
from pipeline.prompts import Prompt
from pipeline.responders import ChatResponder

CANARY = "canary-of-the-user"
KEY = "sk-canary-of-the-key"
BOUND_S = 5.0
"""A deadline of half a second that holds is far below this, on any machine; one that does not is far above."""


def prompt_of(text: str = CANARY) -> Prompt:
    return Prompt(system="Be kind.", history=(Message(role="assistant", content="Hi."),), user=text, language="en")


def expected_answer(text: str = CANARY) -> str:
    return echo(
        [
            {"role": "system", "content": "Be kind."},
            {"role": "assistant", "content": "Hi."},
            {"role": "user", "content": text},
        ]
    )


def tasks_of(responder: ChatResponder) -> set[asyncio.Task[Any]]:
    """The calls under way on this process's connection."""
    connection = responder._own[os.getpid()].connection
    assert connection is not None
    return asyncio.all_tasks(connection._loop)


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    with ScriptedEndpoint() as endpoint:
        yield endpoint


@pytest.fixture
def pauses() -> list[float]:
    """How long the responder would have paused: it does not, so that no test waits."""
    return []


@pytest.fixture
def make(endpoint: ScriptedEndpoint, pauses: list[float]) -> Iterator[Callable[..., ChatResponder]]:
    """Makes responders of the endpoint, and closes them."""
    made: list[ChatResponder] = []

    def make(**changes: Any) -> ChatResponder:
        standard = {"base_url": endpoint.url, "model": "some-model", "deadline_s": 30.0, "pause": pauses.append}
        made.append(ChatResponder(**{**standard, **changes}))
        return made[-1]

    yield make
    for responder in made:
        responder.close()


@pytest.fixture(scope="module", autouse=True)
def _client_imported() -> None:
    """The first import takes part of a deadline; here the deadlines are short and about something else."""
    with ScriptedEndpoint() as endpoint:
        responder = ChatResponder(base_url=endpoint.url, model="some-model")
        responder.respond(prompt_of())
        responder.close()


def connect(responder: ChatResponder) -> None:
    """Make its connection now: on a busy machine that takes much of a short deadline."""
    responder._connection()


def error_of(responder: ChatResponder, prompt: Prompt | None = None) -> ModelError:
    with pytest.raises(ModelError) as caught:
        responder.respond(prompt or prompt_of())
    return caught.value


def test_the_prompt_goes_out_whole_and_the_answer_comes_back(
    endpoint: ScriptedEndpoint, make: Callable[..., ChatResponder]
) -> None:
    """The endpoint is asked what the prompt says, of the model and with the parameters that are configured."""
    responder = make(api_key=KEY, max_tokens=17, temperature=0.25)
    text = "안녕 {x} %s \N{WAVING HAND SIGN}"
    assert responder.respond(prompt_of(text)) == expected_answer(text)
    (asked,) = endpoint.asked
    assert asked.body == {
        "model": "some-model",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "assistant", "content": "Hi."},
            {"role": "user", "content": text},
        ],
        "max_tokens": 17,
        "temperature": 0.25,
    }
    assert asked.headers["authorization"] == f"Bearer {KEY}"


def test_an_endpoint_that_wants_no_key_is_sent_none_of_the_environments(
    endpoint: ScriptedEndpoint, make: Callable[..., ChatResponder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client reads a key of its own from the environment: it must not go to an endpoint that it was not meant for."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    assert make().respond(prompt_of()) == expected_answer()
    assert KEY not in str(endpoint.asked[0].headers)


def test_a_user_and_password_in_the_url_are_sent_but_not_shown(
    endpoint: ScriptedEndpoint, make: Callable[..., ChatResponder], caplog: pytest.LogCaptureFixture
) -> None:
    """The HTTP client logs each URL, and an error names the endpoint."""
    caplog.set_level(logging.DEBUG)
    responder = make(base_url=endpoint.url.replace("//", "//me:p%40ss@"))
    responder.respond(prompt_of())
    assert endpoint.asked[0].headers["authorization"] == "Basic bWU6cEBzcw=="
    endpoint.script(Fault("status", status=401))
    assert "//me:***@" in str(error_of(responder))
    assert "p%40ss" not in caplog.text
    assert "p@ss" not in caplog.text


def test_connections_are_kept_between_calls(endpoint: ScriptedEndpoint, make: Callable[..., ChatResponder]) -> None:
    """A new connection for each call would cost a handshake each."""
    responder = make()
    for _ in range(3):
        responder.respond(prompt_of())
    assert len({asked.peer for asked in endpoint.asked}) == 1


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_a_status_that_may_pass_is_tried_again_and_then_transient(
    endpoint: ScriptedEndpoint, make: Callable[..., ChatResponder], pauses: list[float], status: int
) -> None:
    """As often as configured, no more: the client's own retries are off."""
    endpoint.script(Fault("status", status=status))
    error = error_of(make(attempts=3))
    assert isinstance(error, TransientModelError)
    assert f"HTTP {status}" in str(error)
    assert "3 attempts" in str(error)
    assert endpoint.calls == 3
    assert len(pauses) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 422, 451])
def test_a_status_that_will_not_pass_is_permanent_at_once(
    endpoint: ScriptedEndpoint, make: Callable[..., ChatResponder], status: int
) -> None:
    """One call, one clear error."""
    endpoint.script(Fault("status", status=status))
    error = error_of(make(attempts=3))
    assert isinstance(error, PermanentModelError)
    assert f"{endpoint.url} answered HTTP {status}" in str(error)
    assert endpoint.calls == 1


@pytest.mark.parametrize("fault", [Fault("status", status=503, times=1), Fault("close", times=1), Fault("cut", times=1)])
def test_what_passes_is_not_noticed(endpoint: ScriptedEndpoint, make: Callable[..., ChatResponder], fault: Fault) -> None:
    """A single hiccup of the endpoint ends in an answer."""
    endpoint.script(fault)
    assert make().respond(prompt_of()) == expected_answer()
    assert endpoint.calls == 2


@pytest.mark.parametrize("fault", ["close", "cut"])
def test_a_connection_that_breaks_is_transient(
    endpoint: ScriptedEndpoint, make: Callable[..., ChatResponder], fault: Any
) -> None:
    """Before the answer or in the middle of it; half an answer is never returned."""
    endpoint.script(Fault(fault))
    error = error_of(make())
    assert isinstance(error, TransientModelError)
    assert "broke the connection" in str(error)
    assert endpoint.calls == 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault("body", body="\x00garbage"),
        Fault("body", body="<html>Sign in</html>", content_type="text/html"),
        Fault("body", body='"just text"', content_type="text/plain"),
        Fault("body", body='{"choices": []}'),
        Fault("body", body='{"choices": [{"message": {"content": null}}]}'),
        Fault("status", status=200),
    ],
    ids=["garbage", "page", "text", "no choice", "no content", "error object"],
)
def test_an_answer_that_is_not_of_the_form_is_permanent(
    endpoint: ScriptedEndpoint, make: Callable[..., ChatResponder], fault: Fault
) -> None:
    """Whatever it is, it does not come back as the model's answer."""
    endpoint.script(fault)
    assert isinstance(error_of(make()), PermanentModelError)
    assert endpoint.calls == 1


@pytest.mark.parametrize("fault", ["hang", "drip", "drip_headers"])
def test_the_deadline_bounds_an_endpoint_that_never_comes_to_an_end(
    endpoint: ScriptedEndpoint, make: Callable[..., ChatResponder], fault: Any
) -> None:
    """A byte every 50 ms would take over 10 s here, and no single read would time out."""
    responder = make(deadline_s=0.5)
    connect(responder)
    endpoint.script(Fault(fault, interval_ms=50.0))
    started = time.monotonic()
    error = error_of(responder)
    assert time.monotonic() - started < BOUND_S
    assert isinstance(error, TransientModelError)
    assert "PERSONA_LLM_TIMEOUT_S" in str(error)
    assert endpoint.calls == 1
    until(lambda: not tasks_of(responder))  # nothing goes on behind the caller
    endpoint.script(Fault())
    assert responder.respond(prompt_of()) == expected_answer()


def test_the_deadline_bounds_all_attempts_together(endpoint: ScriptedEndpoint, make: Callable[..., ChatResponder]) -> None:
    """Many attempts do not add up to more than the one deadline."""
    endpoint.script(Fault("status", status=503))
    started = time.monotonic()
    error = error_of(make(deadline_s=0.5, attempts=1000, pause=time.sleep))
    assert time.monotonic() - started < BOUND_S
    assert isinstance(error, TransientModelError)
    assert endpoint.calls < 10


def test_an_endpoint_that_is_not_there_is_transient(make: Callable[..., ChatResponder]) -> None:
    """It may be about to start. The message says where it was looked for."""
    with ScriptedEndpoint() as gone:
        url = gone.url
    error = error_of(make(base_url=url))
    assert isinstance(error, TransientModelError)
    assert f"{url} could not be reached (ConnectError" in str(error)
    assert "PERSONA_LLM_URL" in str(error)


def test_the_pause_grows_and_is_drawn_at_random(
    endpoint: ScriptedEndpoint, make: Callable[..., ChatResponder], pauses: list[float]
) -> None:
    """Callers that failed together do not come back together."""
    endpoint.script(Fault("status", status=503))
    error_of(make(attempts=4, rng=random.Random(7)))
    assert [0.125 <= pauses[0] <= 0.25, 0.25 <= pauses[1] <= 0.5, 0.5 <= pauses[2] <= 1.0] == [True] * 3
    error_of(make(attempts=2, rng=random.Random(8)))
    assert pauses[3] != pauses[0]


def test_a_pause_that_the_endpoint_asks_for_is_kept(
    endpoint: ScriptedEndpoint, make: Callable[..., ChatResponder], pauses: list[float]
) -> None:
    """Coming back earlier would only be turned away again."""
    endpoint.script(Fault("status", status=429, retry_after="7", times=1))
    assert make().respond(prompt_of()) == expected_answer()
    (pause_s,) = pauses
    assert 7.0 < pause_s < 8.0


def test_a_pause_beyond_the_deadline_is_not_waited_for(
    endpoint: ScriptedEndpoint, make: Callable[..., ChatResponder], pauses: list[float]
) -> None:
    """The caller learns at once what the endpoint asked for, while it still has time to do something else."""
    endpoint.script(Fault("status", status=429, retry_after="31"))
    error = error_of(make(deadline_s=30.0))
    assert isinstance(error, TransientModelError)
    assert "asks to wait 31 s" in str(error)
    assert (endpoint.calls, pauses) == (1, [])


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=400, code=CANARY, message=f"{CANARY} {KEY}"),
        Fault("status", status=503, message=f"{CANARY} {KEY}"),
        Fault("body", body=f"{CANARY} {KEY}"),
        Fault("cut"),
        Fault("close"),
    ],
    ids=["400", "503", "body", "cut", "close"],
)
def test_nothing_personal_and_no_key_is_in_an_error_its_traceback_or_a_log(
    endpoint: ScriptedEndpoint, make: Callable[..., ChatResponder], caplog: pytest.LogCaptureFixture, fault: Fault
) -> None:
    """Even from an endpoint that echoes its requests, and even with every log at its most talkative."""
    caplog.set_level(logging.DEBUG)
    endpoint.script(fault)
    error = error_of(make(api_key=KEY))
    shown = "".join(traceback.format_exception(error)) + caplog.text + repr(error)
    assert CANARY not in shown
    assert KEY not in shown
    assert error.__cause__ is None
    assert error.__context__ is None


def test_threads_share_one_responder_and_get_their_own_answers(
    endpoint: ScriptedEndpoint, make: Callable[..., ChatResponder]
) -> None:
    """Their calls run side by side: all of them are at the endpoint at the same time before one is answered."""
    responder = make()
    endpoint.script(Fault("answer", delay_ms=60_000))
    texts = [f"text {number}" for number in range(16)]
    with ThreadPoolExecutor(len(texts)) as threads:
        answers = threads.map(lambda text: responder.respond(prompt_of(text)), texts)
        until(lambda: endpoint.calls == len(texts))
        endpoint.release()
        assert list(answers) == [expected_answer(text) for text in texts]
    assert [thread.name for thread in threading.enumerate()].count("model-endpoint") == 1


def in_a_fork(work: Callable[[], str]) -> str:
    """The result of `work`, or its failure, in a forked child."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # From Python 3.12 on a fork beside threads warns; the test is that such a child works.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)  # a child that hangs must not outlive the run
            os.write(writer, work().encode())
        except BaseException as error:  # noqa: BLE001 - the child must never return into pytest
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        result = pipe.read().decode()
    os.waitpid(child, 0)
    return result


def test_a_forked_child_opens_a_connection_of_its_own(endpoint: ScriptedEndpoint, make: Callable[..., ChatResponder]) -> None:
    """On the parent's, the answers of the two would get mixed up. The parent's goes on as before."""
    responder = make()
    responder.respond(prompt_of("parent"))

    def in_child() -> str:
        answer = responder.respond(prompt_of("child"))
        responder.close()
        return answer

    assert in_a_fork(in_child) == expected_answer("child")
    assert responder.respond(prompt_of("parent again")) == expected_answer("parent again")
    before, child, after = (asked.peer for asked in endpoint.asked)
    assert before == after
    assert child != before


def test_a_child_forked_while_another_thread_connects_is_not_locked_out(make: Callable[..., ChatResponder]) -> None:
    """The lock that was held at the fork stays held in the child, where no thread is left to release it."""
    responder = make(deadline_s=BOUND_S)
    responder.respond(prompt_of())
    with responder._own[os.getpid()].lock:
        assert in_a_fork(lambda: responder.respond(prompt_of("child"))) == expected_answer("child")


def test_closing_ends_the_thread_and_the_calls_under_way(endpoint: ScriptedEndpoint, make: Callable[..., ChatResponder]) -> None:
    """Nothing is left behind, and a caller who still waits is told at once rather than at the deadline."""
    responder = make()
    endpoint.script(Fault("hang"))
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(responder.respond, prompt_of())
        until(lambda: endpoint.calls == 1)
        connection = responder._own[os.getpid()].connection
        assert connection is not None
        responder.close()
        with pytest.raises(TransientModelError, match="closed"):
            waiting.result(BOUND_S)
    assert endpoint.calls == 1
    assert not connection._thread.is_alive()
    assert connection._loop.is_closed()
    responder.close()
    endpoint.script(Fault())
    assert responder.respond(prompt_of()) == expected_answer()


def test_a_signal_that_ends_the_wait_ends_the_call(endpoint: ScriptedEndpoint, make: Callable[..., ChatResponder]) -> None:
    """A task's soft time limit is an exception raised by a signal; the request must not go on without its task."""

    class TimeLimitError(Exception):
        pass

    def limit(_signal: int, _frame: object) -> None:
        raise TimeLimitError

    responder = make()
    endpoint.script(Fault("hang"))
    previous = signal.signal(signal.SIGALRM, limit)

    def strike() -> None:
        until(lambda: endpoint.calls == 1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

    striker = threading.Thread(target=strike)
    try:
        striker.start()
        with pytest.raises(TimeLimitError):
            responder.respond(prompt_of())
    finally:
        striker.join()
        signal.signal(signal.SIGALRM, previous)
    until(lambda: not tasks_of(responder))


def test_a_process_that_asks_no_model_does_not_load_the_client() -> None:
    """The client takes about half a second to import; a prompt, a producer or a hit in the cache has no use for it."""
    program = (
        "import sys, threading\n"
        "from pipeline.responders import ChatResponder, PromptResponder\n"
        "ChatResponder(base_url='http://127.0.0.1:1/v1', model='m').fingerprint\n"
        "print(sorted({'openai', 'httpx2'} & sys.modules.keys()), threading.active_count())\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == "[] 1\n"


def test_an_answer_that_is_too_long_is_given_up_at_once(make: Callable[..., ChatResponder]) -> None:
    """Another try would bring as much. It is not read to its end: the connection is closed meanwhile."""
    with ScriptedEndpoint(answer=lambda _: CANARY * 200_000) as endpoint:
        error = error_of(make(base_url=endpoint.url, max_bytes=100_000))
        assert isinstance(error, PermanentModelError)
        assert "answers with more than 100000 bytes" in str(error)
        assert CANARY not in str(error)
        assert endpoint.calls == 1
        assert make(base_url=endpoint.url, max_bytes=10_000_000).respond(prompt_of()) == CANARY * 200_000
