"""A caller's way to the servers: waits that end, and one error for all that libraries raise when a server is away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from celery import Celery
from celery.backends.redis import RedisBackend
from celery.exceptions import BackendError
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, OutOfMemoryError, RedisError, ResponseError
from redis.retry import Retry

from pipeline.settings import without_password
from workers.queue.errors import NoRedisError, QueueFullError, QueueRefusedError, QueueUnavailableError
from workers.queue.factory import PersonaApp
from workers.queue.tls.refusals import explained

T = TypeVar("T")

PATIENCE_S: Final = 3.0
"""Grace added to a caller's timeout while the result backend is unreachable."""


def bound_waits(app: PersonaApp) -> None:
    """Make the app's broker and result backend give up within seconds. A worker has tasks to lose and tries for longer."""
    conf = app.conf  # new objects: other apps of this process share the old ones
    if conf.broker_transport_options:  # none for RabbitMQ
        conf.broker_transport_options = {**conf.broker_transport_options, "socket_timeout": PATIENCE_S / 2}
    conf.task_publish_retry_policy = {**conf.task_publish_retry_policy, "max_retries": 1}
    conf.result_backend_transport_options = {**conf.result_backend_transport_options, "retry_policy": {"timeout": PATIENCE_S}}
    conf.update(
        redis_socket_timeout=PATIENCE_S / 2,
        redis_socket_connect_timeout=PATIENCE_S / 2,
        redis_retry_on_timeout=False,
        result_backend_always_retry=False,
    )
    if app.settings.result_backend_url.startswith("redis"):
        # Else each thread would have a backend of its own: a connection more, and results that no other thread hears of.
        conf.result_backend_thread_safe = True
    backend = app.backend
    if isinstance(backend, RedisBackend):
        backend.connparams["retry"] = Retry(NoBackoff(), 1, supported_errors=(ConnectionError,))  # the client's own default: 10


def close_results(app: Celery) -> None:
    """Close the result backend's connections, which `Celery.close` leaves open. Tickets are of no use after that."""
    backend: Any = app.backend
    if isinstance(backend, RedisBackend):
        backend.result_consumer.subscribed_to.clear()  # else each ticket that is collected later would connect to unsubscribe
        backend.result_consumer.stop()
        backend.client.close()


def at_redis(app: PersonaApp, command: Callable[[Any], T]) -> T:
    """What `command` makes of a client of the broker's server. Raises NoRedisError, and as `reaching`."""
    with reaching(f"the broker at {without_password(app.settings.broker_url)}"), app.producer_or_acquire() as producer:
        connected = getattr(producer.channel, "conn_or_acquire", None)
        if connected is None:
            raise NoRedisError("the broker is not Redis: RabbitMQ keeps what is refused by its queues' own policy")
        with connected() as client:
            return command(client)


@contextmanager
def reaching(what: str) -> Iterator[None]:
    """Raise QueueUnavailableError when a server cannot be reached within the block, or refuses; QueueFullError if it is full."""
    try:
        yield
    except QueueUnavailableError:
        raise
    except (OperationalError, BackendError, RedisError, OSError) as error:
        raise _unavailable(what, error) from error
    except RuntimeError as error:
        # How Celery reports a result backend that did not come back in time.
        if not isinstance(error.__cause__, RedisError | OSError):
            raise
        raise _unavailable(what, error.__cause__) from error


def _unavailable(what: str, error: BaseException) -> QueueUnavailableError:
    refusal = _refusal(error)
    if isinstance(refusal, OutOfMemoryError):
        return QueueFullError(f"{what} is full: ask again when workers have answered some of what waits")
    if isinstance(refusal, NoPermissionError):
        # The server's words name the command, no value.
        told = " ".join(str(refusal).split()).rstrip(".")
        return QueueRefusedError(f"{what} refuses: {told}; see this user's rights (docs/security.md)")
    if isinstance(refusal, AuthenticationError):
        return QueueRefusedError(f"{what} refuses the login: see user and password in PERSONA_BROKER_URL and PERSONA_RESULT_URL")
    if refusal is not None:
        return QueueRefusedError(f"{what} refuses ({type(refusal).__name__}): see its role and this user's rights")
    if (why := explained(error)) is not None:
        return QueueRefusedError(f"{what}: {why} PERSONA_BROKER_URL and PERSONA_RESULT_URL")
    return QueueUnavailableError(f"{what} cannot be reached ({type(error).__name__}): is it running?")


def _refusal(error: BaseException | None) -> RedisError | None:
    """What a server that was reached has answered, among an error and its causes."""
    while error is not None and not isinstance(error, ResponseError | AuthenticationError):
        error = error.__cause__ or error.__context__
    return error
