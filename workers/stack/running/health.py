"""How the parts of a running stack are: each is asked once, with a bound, all at the same time."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

from pipeline.settings import without_password
from workers.stack.endpoint import answers
from workers.stack.errors import StackError
from workers.stack.options import SERVICES
from workers.stack.plan import node_name
from workers.stack.readiness import http_is_ready, server_is_ready, worker_is_ready
from workers.stack.state import StackInfo

State = Literal["ready", "silent", "gone", "elsewhere"]
VARIABLES: Final = {"broker": "PERSONA_BROKER_URL", "cache": "PERSONA_CACHE_URL", "model": "PERSONA_LLM_URL"}


class Part(NamedTuple):
    """One part. `ready`: it answers; `silent`: it does not; `gone`: its process ended (a stack starts it again);
    `elsewhere`: no part of this stack, and of a kind that is not asked."""

    name: str
    state: State
    pid: int | None
    where: str
    """Its address, without a password."""


def parts_of(info: StackInfo) -> list[Part]:
    """Every service of the stack, and the servers that it uses and did not start."""
    started = {service.name: service.pid for service in info.services}
    names = [name for name in SERVICES if name in started or info.environment.get(VARIABLES.get(name, ""))]
    with ThreadPoolExecutor(len(names) or 1) as pool:
        states = list(pool.map(lambda name: _state(info, name, started.get(name)), names))
    return [Part(name, state, started.get(name), _where(info, name)) for name, state in zip(names, states, strict=True)]


def _state(info: StackInfo, name: str, pid: int | None) -> State:
    if pid is not None and not _runs(pid):
        return "gone"
    question = _question(info, name)
    if question is None:
        return "elsewhere" if pid is None else "ready"
    try:
        return "ready" if question() else "silent"
    except StackError:  # another program has taken the port
        return "silent"


def _question(info: StackInfo, name: str) -> Callable[[], bool] | None:
    """How it is asked whether it works; None for what answers no question."""
    url = info.environment.get(VARIABLES.get(name, ""), "")
    if name in ("broker", "cache"):
        return (lambda: server_is_ready(url)) if urlsplit(url).scheme == "redis" else None
    if name == "model":
        return lambda: answers(url, info.environment.get("PERSONA_LLM_API_KEY", ""))
    if name == "worker":
        return lambda: worker_is_ready(info.environment["PERSONA_BROKER_URL"], node_name())
    if name == "flower" and info.flower is not None:
        port = urlsplit(info.flower.url).port
        return lambda: http_is_ready(port or 0, "/healthcheck")
    return None


def _where(info: StackInfo, name: str) -> str:
    if name == "flower" and info.flower is not None:
        return info.flower.url
    return without_password(info.environment.get(VARIABLES.get(name, ""), ""))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
