"""Judges a response: an answer, or a failure that is worth another try or not. No I/O.

A failure's text never quotes the body: an endpoint may echo the prompt or the key in it. For the same reason the
client's errors are named here by their type and never chained: their text is the endpoint's message.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import msgspec

from pipeline.cache.encoding.decoders import ready
from pipeline.responders.connection import Answer, TooLongError

TRANSIENT_STATUSES: Final = frozenset({408, 409, 429})

ENDED: Final = frozenset({
    "", "stop", "length", "complete", "end_turn", "eos", "eos_token", "max_tokens", "model_length", "stop_sequence", "stop_token",
    "function_call", "tool_calls",
})  # fmt: skip
"""The reasons why a model ends a good answer, or one of full length, in lower case."""
BROKEN: Final = frozenset({"error", "abort", "aborted", "cancelled", "canceled", "timeout"})
"""The reasons of an answer that a fault has ended."""

KNOWN_CODES: Final = frozenset({
    "billing_hard_limit_reached", "content_filter", "content_policy_violation", "context_length_exceeded",
    "insufficient_quota", "invalid_api_key", "invalid_request_error", "model_not_found", "not_found_error",
    "overloaded_error", "rate_limit_exceeded", "server_error", "unsupported_parameter", "unsupported_value",
})  # fmt: skip
"""The codes that a message may show. Any other could be the user's own words, from an endpoint that echoes."""

LATER: Final = "try again later; if it lasts, look into the endpoint's own log"
NOT_THE_API: Final = "check that PERSONA_LLM_URL is the base of an OpenAI-compatible API (it usually ends in /v1)"


class CutShort(str):
    """An answer that the model did not end by itself: a filter cut the rest, or the reason of its end is unknown."""

    __slots__ = ()


class Failure(msgspec.Struct, frozen=True):
    """The reason of a missing answer: `what` continues "the model endpoint ...", `advice` says what to do or check."""

    transient: bool
    what: str
    advice: str
    retry_after_s: float = 0.0


NO_TIME_LEFT: Final = Failure(
    transient=True,
    what="gave no whole answer within the deadline",
    advice="check whether it is overloaded, or raise PERSONA_LLM_TIMEOUT_S",
)
CLOSED: Final = Failure(
    transient=True, what="was given up, since the responder was closed", advice="ask again, in a process that goes on"
)


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


@ready
class _Completion(msgspec.Struct):
    choices: list[_Choice]


def judge(answer: Answer, model: str) -> str | Failure:
    """The text of a chat completion without its outer white space, or the failure. `model` is the model of the request."""
    body = _decoded(answer.body)
    error = body.get("error") if isinstance(body, dict) else None
    if not 200 <= answer.status < 300 or error:
        return _refused(answer, error, model)
    if body is None:
        return _undecodable(answer)
    try:
        completion = msgspec.convert(body, _Completion)
    except (ValueError, RecursionError):  # its text would quote the body
        return _malformed(answer, "JSON that is not a chat completion")
    if not completion.choices:
        return _malformed(answer, "an empty list of choices")
    choice = completion.choices[0]
    text = (choice.message.content or "").strip()
    reason = (choice.finish_reason or "").lower()
    if reason in BROKEN:
        return Failure(transient=True, what=f"broke off its answer ({reason})", advice=LATER)
    if not text:
        return _empty(choice)
    return text if reason in ENDED and not choice.message.refusal else CutShort(text)


def failure_of(error: BaseException) -> Failure:
    """The failure of a request without any response."""
    from openai import APIConnectionError, APITimeoutError

    if isinstance(error, TooLongError):
        return Failure(
            transient=False,
            what=f"answers with more than {error} bytes",
            advice="lower PERSONA_LLM_MAX_TOKENS, or raise PERSONA_RESULT_MAX_KB",
        )
    if isinstance(error, APITimeoutError | TimeoutError):
        return NO_TIME_LEFT
    if not isinstance(error, APIConnectionError | OSError):
        return Failure(
            transient=False,
            what=f"could not be asked ({type(error).__name__})",
            advice="check PERSONA_LLM_URL; if it is right, this is a fault of the program",
        )
    cause = error.__cause__ or error
    if type(cause).__name__ == "ConnectError":
        return Failure(
            transient=True,
            what=f"could not be reached ({_reason(cause)})",
            advice="check PERSONA_LLM_URL and that the endpoint runs",
        )
    return Failure(transient=True, what=f"broke the connection before its answer was whole ({_reason(cause)})", advice=LATER)


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float:
    """The wait that the endpoint asks for, in seconds; 0 if it asks for none, or in a form that cannot be read."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "")
        try:
            wait_s = float(value) * unit_s
        except ValueError:
            try:
                moment = parsedate_to_datetime(value)
            except ValueError:
                continue
            wait_s = (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds()
        if math.isfinite(wait_s):
            return max(wait_s, 0.0)
    return 0.0


def _decoded(body: bytes) -> Any:
    """The JSON value; None for any other body (`null` is no answer either)."""
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, a lone surrogate, nested too deeply
        return None


def _refused(answer: Answer, error: object, model: str) -> Failure:
    status, code = answer.status, None
    if isinstance(error, dict):
        named = (error.get("code"), error.get("type"))
        code = next((name for name in named if isinstance(name, str) and name in KNOWN_CODES), None)
        number = named[0]
        # Some gateways answer 200 and put the status of the endpoint behind them into the body.
        if status < 400 and isinstance(number, int) and 400 <= number < 600:
            status = number
    what = f"answered HTTP {answer.status}"
    if status != answer.status:
        what += f" with the error {status}"
    elif answer.status < 300:
        what += " with an error"
    if code:
        what += f" ({code})"
    return Failure(
        transient=_is_transient(status),
        what=what,
        advice=_advice(status, code, model),
        retry_after_s=retry_after_s(answer.headers, datetime.now(UTC)),
    )


def _is_transient(status: int) -> bool:
    return status in TRANSIENT_STATUSES or status >= 500


def _advice(status: int, code: str | None, model: str) -> str:
    refuses_key = "check PERSONA_LLM_API_KEY and what it may use"
    advice = {
        401: refuses_key,
        403: refuses_key,
        404: f"PERSONA_LLM_MODEL is {model!r}, which the endpoint may not know; else {NOT_THE_API}",
        405: NOT_THE_API,
        413: f"the prompt does not fit PERSONA_LLM_MODEL {model!r}: shorten it, or choose one with a longer context",
        429: "the endpoint limits the rate, or a quota is used up: send less at a time, or check the account",
    }
    status = {"context_length_exceeded": 413, "model_not_found": 404}.get(code or "", status)
    if status in advice:
        return advice[status]
    if _is_transient(status):
        return LATER
    return (
        f"the endpoint does not take the request: check PERSONA_LLM_URL, PERSONA_LLM_MODEL ({model!r}), "
        "PERSONA_LLM_MAX_TOKENS and PERSONA_LLM_TEMPERATURE, and that the prompt fits the model"
    )


def _undecodable(answer: Answer) -> Failure:
    if answer.body and not answer.headers.keys() & {"content-length", "transfer-encoding"}:
        # Such a body ends where the connection ends: a body that was cut looks like one that is wrong.
        return Failure(transient=True, what="broke off its answer, or did not send JSON", advice=f"{LATER}; {NOT_THE_API}")
    if not answer.body:
        return _malformed(answer, "nothing")
    return _malformed(answer, "a page of HTML" if answer.body.lstrip()[:1] == b"<" else "something other than JSON")


def _malformed(answer: Answer, instead: str) -> Failure:
    return Failure(transient=False, what=f"answered HTTP {answer.status} with {instead}", advice=NOT_THE_API)


def _empty(choice: _Choice) -> Failure:
    if choice.finish_reason == "content_filter" or choice.message.refusal:
        return Failure(
            transient=False,
            what="withheld the answer (a content filter or a refusal)",
            advice="put the input in other words",
        )
    if choice.finish_reason == "length":
        return Failure(transient=False, what="used up all tokens before the answer began", advice="raise PERSONA_LLM_MAX_TOKENS")
    return Failure(
        transient=False, what="gave an empty answer", advice="put the input in other words, or change PERSONA_LLM_MODEL"
    )


def _reason(error: BaseException) -> str:
    """The error's type, and the operating system's message for its cause if there is one."""
    words, link = "", error.__cause__ or error.__context__
    while link is not None:
        if isinstance(link, OSError) and link.strerror:
            words = f", {link.strerror[:100]}"
        link = link.__cause__ or link.__context__
    return type(error).__name__ + words
