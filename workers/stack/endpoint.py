"""Whether a model's endpoint is there: asked once, for a second, before anything relies on it."""

from __future__ import annotations

import http.client
import queue
import ssl
import threading
import urllib.error
import urllib.request
from typing import Final, Literal

from workers.stack.errors import StackError

PATIENCE_S: Final = 1.0

Verdict = Literal["answers", "refuses", "not ready", "silent"]


def check_endpoint(url: str, api_key: str, patience_s: float = PATIENCE_S) -> str:
    """Ask it for its models. Returns what is worth telling of it, empty if it answers.

    Raises StackError if nobody is there, or it refuses the key: then no request could be answered.
    """
    verdict = _ask(url, api_key, patience_s)
    if verdict == "refuses":
        raise StackError(f"PERSONA_LLM_API_KEY: {url} refuses it; set the key of that endpoint")
    if verdict == "not ready":
        return f"model: {url} says that it is not ready (it may be loading); requests will fail until it is"
    if verdict == "silent":
        return f"model: {url} took the connection, and did not answer within {patience_s:g} s; requests may be slow, or fail"
    return ""


def answers(url: str, api_key: str, patience_s: float = PATIENCE_S) -> bool:
    """Whether it answers a question for its models."""
    try:
        return _ask(url, api_key, patience_s) == "answers"
    except StackError:
        return False


def _ask(url: str, api_key: str, patience_s: float) -> Verdict:
    # A thread of its own: looking up a name has no time limit that could be set.
    outcome: queue.SimpleQueue[Verdict | StackError] = queue.SimpleQueue()
    threading.Thread(target=lambda: outcome.put(_asked(url, api_key, patience_s)), name="endpoint", daemon=True).start()
    try:
        found = outcome.get(timeout=2 * patience_s + 0.5)  # connecting and answering have a second each
    except queue.Empty:
        found = _dead(url, f"nothing came within {patience_s:g} s")
    if isinstance(found, StackError):
        raise found
    return found


def _asked(url: str, api_key: str, patience_s: float) -> Verdict | StackError:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        # Not the library that asks for answers: it would be loaded for this alone. Both go by the proxies of the environment.
        request = urllib.request.Request(f"{url.rstrip('/')}/models", headers=headers)  # noqa: S310 - the settings allow http(s) alone
        with urllib.request.urlopen(request, timeout=patience_s):  # noqa: S310
            return "answers"
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
            return "refuses"
        # Any other says that somebody is there: not every endpoint has a list of its models.
        return "not ready" if error.code in (502, 503, 504) else "answers"
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, TimeoutError):
            return _dead(url, f"no connection within {patience_s:g} s")
        if isinstance(reason, OSError) and not isinstance(reason, ssl.SSLError):
            return _dead(url, (reason.strerror or str(reason)).lower())
        return "silent"  # it speaks another language, or shows a certificate that this library does not know
    except TimeoutError:
        return "silent"
    except (OSError, http.client.HTTPException, ValueError):
        return "silent"


def _dead(url: str, why: str) -> StackError:
    return StackError(
        f"PERSONA_LLM_URL: {url} does not answer ({why}). Start the model there, correct the address, or unset the variable: "
        "then a local model answers, or the composed prompts do"
    )
