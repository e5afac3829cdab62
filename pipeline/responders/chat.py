"""A model behind an OpenAI-compatible endpoint: OpenAI, vLLM, Ollama, llama.cpp and the like."""

from __future__ import annotations

import base64
import os
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import wait
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

import msgspec

from pipeline.cache.locks import Lock
from pipeline.errors import ConfigurationError, PermanentModelError, TransientModelError
from pipeline.prompts import Prompt
from pipeline.responders.connection import ClosedError, Connection
from pipeline.responders.failures import CLOSED, NO_TIME_LEFT, Failure, failure_of, judge
from pipeline.settings import without_password

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 2.0
NO_KEY: Final = "none"
"""Sent where no key is configured: many local servers need none, but the client refuses an empty one."""


MAX_BYTES: Final = 1 << 20
"""Of a response, unless its responder is told otherwise."""


class _OwnConnection:
    """The place of one process's connection."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.connection: Connection | None = None


class ChatResponder:
    """Asks the model, within a deadline that holds for the whole call, however slowly the endpoint answers.

    Errors that may pass (time-out, lost connection, half an answer, HTTP 408, 409, 429, 5xx) are tried again, up to
    `attempts` times in all and never beyond the deadline, and then raised as TransientModelError; all others are raised
    at once as PermanentModelError. Their messages never hold the prompt, the key or the endpoint's text.

    Nothing is opened before the first call. Each process opens its own: a forked child never touches its parent's
    connection. Importing the client takes part of the first call's deadline (about half a second).
    """

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        api_key: str = "",
        deadline_s: float = 30.0,
        max_tokens: int = 256,
        temperature: float = 0.7,
        attempts: int = 2,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
        rng: random.Random | None = None,
    ) -> None:
        """`clock` gives seconds and never goes back. A user and password in `base_url` are sent unless there is a key.
        A response of more than `max_bytes` is given up, and is a PermanentModelError.

        Raises ConfigurationError for a key that no HTTP header can carry.
        """
        if api_key and not (api_key.isascii() and api_key.isprintable() and api_key == api_key.strip()):
            raise ConfigurationError(
                "PERSONA_LLM_API_KEY: holds a line end, an outer space or a character beyond ASCII; expected the key"
            )
        self.model = model
        self._base_url, self._headers = _without_credentials(base_url, api_key)
        self._shown_url = without_password(base_url)
        self._api_key = api_key or NO_KEY
        self._deadline_s, self._attempts = deadline_s, attempts
        self._max_tokens, self._temperature = max_tokens, temperature
        self._max_bytes = max_bytes
        self._clock, self._pause, self._rng = clock, pause, rng or random.Random()  # noqa: S311 - jitter, no secret
        self.headers_of_call: Callable[[], Mapping[str, str] | None] = lambda: None
        """Headers for the call that the calling thread makes, beside those of the client."""
        # By process id. A child leaves its parent's entry alone but keeps it: collecting it would touch an event loop that is
        # the parent's. One lock for all would stay held in a child that was forked while a thread held it.
        self._own: dict[int, _OwnConnection] = {}

    @property
    def fingerprint(self) -> str:
        parts = ("chat", self._base_url, self.model, self._max_tokens, float(self._temperature))
        return msgspec.json.encode(parts).decode()

    def respond(self, prompt: Prompt) -> str:
        """The model's answer without its outer white space. Raises TransientModelError or PermanentModelError."""
        started = self._clock()
        deadline = started + self._deadline_s
        attempt = 1
        while True:
            outcome = self._try(prompt, deadline)
            if isinstance(outcome, str):
                return outcome
            pause_s = self._pause_s(attempt, outcome)
            worth_it = outcome.transient and outcome is not CLOSED and attempt < self._attempts
            if not worth_it or self._clock() + pause_s >= deadline:
                break
            self._pause(pause_s)
            attempt += 1
        # Outside any `except`: the client's error, whose text may quote the prompt, is not even this one's context.
        error = TransientModelError if outcome.transient else PermanentModelError
        raise error(self._message(outcome, attempt, self._clock() - started))

    def close(self) -> None:
        """End this process's connection; calls under way raise TransientModelError. A later call opens a new one."""
        own = self._own.get(os.getpid())
        if own is None:
            return
        with own.lock:
            connection, own.connection = own.connection, None
        if connection is not None:
            connection.close()

    def _try(self, prompt: Prompt, deadline: float) -> str | Failure:
        connection = self._connection()
        left_s = deadline - self._clock()
        if left_s <= 0:
            return NO_TIME_LEFT
        try:
            future = connection.send(
                model=self.model,
                messages=_messages(prompt),
                max_tokens=self._max_tokens,
                temperature=self._temperature,
                headers=self.headers_of_call(),
            )
        except ClosedError:
            return CLOSED
        try:
            in_time = bool(wait([future], timeout=left_s).done)
        finally:  # also when a signal, such as a task's time limit, ends the wait
            future.cancel()
        if not in_time:
            return NO_TIME_LEFT
        if future.cancelled():
            return CLOSED
        error = future.exception()
        return judge(future.result(), self.model) if error is None else failure_of(error)

    def _connection(self) -> Connection:
        own = self._own.setdefault(os.getpid(), _OwnConnection())
        with own.lock:
            connection = own.connection
            if connection is None:
                made = Connection(self._base_url, self._api_key, self._headers, self._max_bytes)
                connection = own.connection
                if connection is None:
                    connection = own.connection = made
                else:  # a signal handler was here meanwhile
                    made.close()
            return connection

    def _pause_s(self, attempt: int, failure: Failure) -> float:
        """The endpoint's requested wait and a random part more, lest the callers that it refused come back together."""
        longest_s = min(FIRST_PAUSE_S * 2 ** (attempt - 1), LONGEST_PAUSE_S)
        return failure.retry_after_s + self._rng.uniform(longest_s / 2, longest_s)

    def _message(self, failure: Failure, attempts: int, took_s: float) -> str:
        asked = f"; it asks to wait {failure.retry_after_s:g} s" if failure.retry_after_s else ""
        tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        return f"the model endpoint {self._shown_url} {failure.what} ({took_s:.2f} s, {tries}{asked}): {failure.advice}"


def _messages(prompt: Prompt) -> list[ChatCompletionMessageParam]:
    messages: list[ChatCompletionMessageParam] = [{"role": "system", "content": prompt.system}]
    for turn in prompt.history:
        if turn.role == "assistant":
            messages.append({"role": "assistant", "content": turn.content})
        else:
            messages.append({"role": "user", "content": turn.content})
    messages.append({"role": "user", "content": prompt.user})
    return messages


def _without_credentials(url: str, api_key: str) -> tuple[str, dict[str, str]]:
    """The URL without user and password, and the header that carries them unless a key takes its place.

    They must not stay in the URL: the HTTP client logs it at level INFO.
    """
    parts = urlsplit(url)
    credentials, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    bare = parts._replace(netloc=host).geturl()
    if api_key:
        return bare, {}
    user, _, password = credentials.partition(":")
    token = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
    return bare, {"Authorization": f"Basic {token}"}
