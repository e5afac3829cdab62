"""Whether a service works: bounded questions, which the stack repeats until one is answered."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from contextlib import closing
from functools import lru_cache
from typing import Any

import redis

from workers.queue.tls.options import library_options, without_tls_options
from workers.stack.errors import StackError
from workers.stack.servers.valkey_server import HOST, answers

QUESTION_TIMEOUT_S = 1.0


def server_is_ready(url: str) -> bool:
    """PING with the password. Raises StackError if it is refused: then it is not the server that was started."""
    try:
        return answers(url, QUESTION_TIMEOUT_S)
    except redis.AuthenticationError as error:
        raise StackError(f"the password is refused; another program has taken the port ({error})") from error


def http_is_ready(port: int, path: str, bearer: str = "") -> bool:
    """GET answers 200."""
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    with closing(http.client.HTTPConnection(HOST, port, timeout=QUESTION_TIMEOUT_S)) as connection:
        try:
            connection.request("GET", path, headers=headers)
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False


def worker_is_ready(broker_url: str, node_name: str) -> bool:
    """The worker answers a ping over the broker: it has connected, subscribed and reads."""
    from kombu.exceptions import OperationalError

    try:
        replies = _bare_app(broker_url).control.ping(destination=[node_name], timeout=QUESTION_TIMEOUT_S)
    except (OperationalError, OSError, redis.RedisError):
        return False
    return bool(replies)


def log_says(sentence: str) -> Callable[[str], bool]:
    """For a service that answers no question."""
    return lambda log: sentence in log


@lru_cache(maxsize=4)
def _bare_app(broker_url: str) -> Any:
    """Not the project's app: that one takes its settings from this process's environment, which is not the stack's."""
    from celery import Celery

    app = Celery("persona-stack", set_as_current=False)
    app.conf.update(
        # Both, and not `broker_url`: Celery prefers the variable CELERY_BROKER_URL to that one.
        broker_read_url=without_tls_options(broker_url),
        broker_write_url=without_tls_options(broker_url),
        broker_use_ssl=library_options(broker_url) or False,
        broker_connection_timeout=QUESTION_TIMEOUT_S,
        broker_transport_options={"max_retries": 1, "interval_start": 0, "socket_timeout": QUESTION_TIMEOUT_S * 2},
    )
    return app
