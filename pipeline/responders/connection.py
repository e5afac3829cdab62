"""One process's connection to the endpoint: the openai client, on an event loop and a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Future
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from pipeline.cache.locks import Lock
from pipeline.errors import MissingExtraError

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletionMessageParam

log = logging.getLogger(__name__)

CLOSE_S: Final = 5.0
"""How long `close` waits for the calls under way to end."""


def load_client() -> type[AsyncOpenAI]:
    """The client's class. Raises MissingExtraError if it is not installed: a program that calls no model need not have it.

    Takes about half a second, which such a program does not pay either.
    """
    try:
        from openai import AsyncOpenAI
    except ModuleNotFoundError as error:
        if error.name != "openai":
            raise
        raise MissingExtraError("openai", "PERSONA_LLM_URL", "worker") from None
    return AsyncOpenAI


class Answer(msgspec.Struct, frozen=True):
    """An HTTP response of any status. The names of the headers are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ClosedError(Exception):
    """This connection was closed."""


class TooLongError(Exception):
    """The response has more bytes than this many."""


class Connection:
    """Sends requests for any number of threads of the process that made it; no other process may touch it.

    The asynchronous client is used because a task can be cancelled wherever it is: while it resolves a name, connects,
    or reads an answer that comes a byte a second. The synchronous client bounds each read, not their sum.
    """

    def __init__(self, base_url: str, api_key: str, headers: Mapping[str, str], max_bytes: int) -> None:
        """A response of more bytes is not read any further."""
        # No time-outs and no retries of the client's own: the caller has one deadline and one policy for all of it.
        self._client = load_client()(
            base_url=base_url,
            api_key=api_key,
            default_headers=headers,
            timeout=None,
            max_retries=0,
            http_client=_bounded_client(max_bytes),
        )
        self._lock = Lock()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(log_type_of)
        self._thread = threading.Thread(target=self._run, name="model-endpoint", daemon=True)
        self._thread.start()

    def send(
        self,
        *,
        model: str,
        messages: Sequence[ChatCompletionMessageParam],
        max_tokens: int,
        temperature: float,
        headers: Mapping[str, str] | None = None,
    ) -> Future[Answer]:
        """Send a chat completion request, with these headers, too; cancel the future to give it up. Raises ClosedError after
        `close`.

        A response of any status is an Answer. Without a response the future raises the client's error.
        """
        with self._lock:
            if self._closed:
                raise ClosedError
            return asyncio.run_coroutine_threadsafe(self._exchange(model, messages, max_tokens, temperature, headers), self._loop)

    def close(self) -> None:
        """Give up the calls under way (their futures end as cancelled) and end the thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            asyncio.run_coroutine_threadsafe(self._shut(), self._loop)
        self._thread.join(CLOSE_S)

    async def _exchange(
        self,
        model: str,
        messages: Sequence[ChatCompletionMessageParam],
        max_tokens: int,
        temperature: float,
        headers: Mapping[str, str] | None,
    ) -> Answer:
        from openai import APIStatusError

        try:
            # Raw: the client's own models accept a body of any form, even a page of HTML, without an error.
            raw = await self._client.chat.completions.with_raw_response.create(
                model=model, messages=messages, max_tokens=max_tokens, temperature=temperature, extra_headers=headers
            )
            response = raw.http_response
        except APIStatusError as error:
            response = error.response
        return Answer(response.status_code, {name.lower(): value for name, value in response.headers.items()}, response.content)

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def _shut(self) -> None:
        try:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await self._client.close()
            await self._loop.shutdown_asyncgens()
        finally:
            self._loop.stop()


def _bounded_client(max_bytes: int) -> Any:
    """The client's own HTTP client, but that it gives up a response in the middle. The client reads each one whole."""
    from openai import DefaultAsyncHttpxClient

    async def bound(response: Any) -> None:
        kind: Any = type(response.stream)
        response.stream = _bounded(kind)(response.stream, max_bytes)

    # As it comes, so that it is what is counted.
    return DefaultAsyncHttpxClient(event_hooks={"response": [bound]}, headers={"Accept-Encoding": "identity"}, timeout=None)


@cache
def _bounded(kind: Any) -> Any:
    """Streams of that kind with a bound. The HTTP library asks for its own class, and which one that is differs."""

    class Bounded(kind):  # type: ignore[misc]
        def __init__(self, stream: Any, max_bytes: int) -> None:
            self._whole, self._max_bytes = stream, max_bytes

        async def __aiter__(self) -> AsyncIterator[bytes]:
            left = self._max_bytes
            async for piece in self._whole:
                left -= len(piece)
                if left < 0:
                    raise TooLongError(self._max_bytes)
                yield piece

        async def aclose(self) -> None:
            await self._whole.aclose()

    return Bounded


def log_type_of(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log a failure behind a caller that gave up, by its type only: its text may quote the prompt or the key."""
    error = context.get("exception")
    log.warning("responder.abandoned_call_failed: %s", type(error).__name__ if error else context.get("message"))
