"""Celery's result backend on Redis, with one exchange an outcome in the place of three, and a patience that outlasts a restart.

Keys, channels and bytes are those of Celery's own backend (`celery.backends.redis`): callers without this package, and workers
without it on the same queue, read and write them alike.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any, Final, NamedTuple

import msgspec
from celery import states
from celery._state import get_current_task
from celery.backends.redis import RedisBackend
from celery.exceptions import BackendStoreError, Reject, SoftTimeLimitExceeded
from kombu.utils.encoding import bytes_to_str
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, NoScriptError, OutOfMemoryError, RedisError
from redis.retry import Retry

from pipeline.cache.server.scripts import Script
from workers.queue.celery_settings import FULL_AT_OPTION, MAX_BYTES_OPTION, PATIENCE_OPTION
from workers.queue.errors import ResultTooLongError
from workers.queue.outcomes import haste
from workers.queue.outcomes.room import Room, kept_s

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 0.5
ENDING_S: Final = 3.0
"""How long it is still tried once the worker has been told to end: a task that goes back costs another run, and no answer."""
BATCH: Final = 200
"""So many outcomes go in one exchange: the server does nothing else meanwhile, for a millisecond or two."""

MOST_USED: Final = 1.05
"""Up to this share of its memory a full server is given outcomes all the same: each lets go of a message."""

_KEEP: Final = Script.read(__file__, "keep")
_KEEP_IN_FULL: Final = _KEEP.flagged("allow-oom")

logger: Final = logging.getLogger(__name__)


class Success(NamedTuple):
    """What a task without children has returned. `result`: its JSON. The others as the task's message has them."""

    task_id: str
    result: bytes
    group_id: str | None = None
    parent_id: str | None = None


class _Outcome(msgspec.Struct):
    """What Celery 5.7 writes for a success, in its order."""

    status: str
    result: msgspec.Raw
    traceback: None
    children: tuple[()]
    date_done: str
    group_id: str | msgspec.UnsetType
    parent_id: str | msgspec.UnsetType
    task_id: str


_encode: Final = msgspec.json.Encoder().encode


class OutcomeStore(RedisBackend):
    """Where workers keep outcomes. Thread-safe as far as Celery's own is: each thread has one, unless the app shares it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Once, for a connection that the server had closed while it lay idle. The client's own default is to try a server that
        # does not answer four times, 5 s each, before this has a word in it.
        self.connparams["retry"] = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **_: Any
    ) -> Any:
        """Keep an outcome and tell those that wait for it. Returns it as it is stored.

        While the server is away, full, read-only or loading, an outcome is tried again: by a thread that runs a task for
        PATIENCE_OPTION, or ENDING_S once its worker is told to end; it then raises Reject, and the task goes back to its queue
        (`put_back`). By any other for the retry policy's `timeout`, since a main process has a queue to serve; it then raises
        BackendStoreError. A state on the way to an outcome, which is RETRY, is tried once and then dropped, for nobody waits for
        it.

        One of more than MAX_BYTES_OPTION is not kept. That of a success raises ResultTooLongError, by which Celery makes a
        failure of it; of a failure, that error is kept in its place.
        """
        stored = self.encode_result(result, state)
        meta = self._get_result_meta(result=stored, state=state, traceback=traceback, request=request)
        meta["task_id"] = bytes_to_str(task_id)
        payload = self.encode(meta)
        if len(payload) > self.max_bytes and not isinstance(result, ResultTooLongError):
            error = ResultTooLongError(f"its outcome has {len(payload)} bytes; allowed are up to {self.max_bytes}")
            if state not in states.EXCEPTION_STATES:
                raise error
            return self.store_result(task_id, error, state, None, request)
        key = self.get_key_for_task(task_id)
        expires_s = self.failure_expires if state == states.FAILURE else self.expires
        fault = _within(self._patience_s(state), lambda: self._keep([key], [payload], expires_s), task_id)
        if fault is None:
            return stored
        why = type(fault).__name__
        if state not in states.READY_STATES:
            logger.warning("results.state_dropped: %s of task %s: %s", state, task_id, why)
            return stored
        logger.error("results.not_stored: %s of task %s: %s", state, task_id, why)
        if _task_runs():
            raise Reject(f"its outcome could not be stored ({why})", requeue=True) from fault
        raise BackendStoreError(f"failed to store result on the backend ({why})", state=state, task_id=task_id) from fault

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Whether a look-up that raised it fails with Celery's own error, which makes a task that came back be run again."""
        return _may_pass(exc)

    def store_successes(self, successes: Sequence[Success]) -> int:
        """Keep what tasks without children have returned, and tell those that wait: BATCH of them in one exchange.

        Tries once, and raises RedisError or OSError: then some, all or none are stored, and it is safe to store them again. Not
        for tasks of a chord, whose other part must learn of them. Returns how many had not succeeded before.
        """
        now = self.app.now().isoformat()
        kept = 0
        for start in range(0, len(successes), BATCH):
            batch = successes[start : start + BATCH]
            keys = [self.get_key_for_task(success.task_id) for success in batch]
            kept += self._keep(keys, [_written(success, now) for success in batch], self.expires)
        return kept

    def _keep(self, keys: list[bytes], payloads: list[Any], expires_s: int | None) -> int:
        try:
            return self._keep_by(_KEEP, keys, payloads, self._kept_s(expires_s, self._room.used()))
        except OutOfMemoryError:
            used = self._room.used(anew=True)
            if used >= MOST_USED:
                raise
            # Plain producers push until nothing more goes in. Were outcomes refused then, nothing would ever come out.
            return self._keep_by(_KEEP_IN_FULL, keys, payloads, self._kept_s(expires_s, used))

    def _keep_by(self, script: Script, keys: list[bytes], payloads: list[Any], expires_s: int) -> int:
        arguments = (len(keys), *keys, expires_s, *payloads)
        try:
            return int(self.client.evalsha(script.digest, *arguments))
        except NoScriptError:  # a server that has begun anew
            return int(self.client.eval(script.source, *arguments))

    def _kept_s(self, expires_s: int | None, used: float) -> int:
        return kept_s(expires_s or 0, used, float(self._transport_options.get(FULL_AT_OPTION, 1.0)))

    @property
    def max_bytes(self) -> int:
        """How long an outcome may be as it is kept."""
        return int(self._transport_options.get(MAX_BYTES_OPTION, self._MAX_STR_VALUE_SIZE))

    @cached_property
    def _room(self) -> Room:
        return Room(lambda: nullcontext(self.client))

    def _patience_s(self, state: str) -> float:
        if state not in states.READY_STATES:
            return 0.0
        patience_s = self._transport_options.get(PATIENCE_OPTION) if _task_runs() else self.retry_policy.get("timeout")
        return float(patience_s or 0.0)


def _within(patience_s: float, keep: Callable[[], object], task_id: str) -> Exception | None:
    """Try it until it succeeds, or for so long; then its last error."""
    deadline_s = time.monotonic() + patience_s
    pause_s, hasty = 0.0, False
    try:
        while True:
            fault = _tried(keep)
            if fault is None:
                return None
            if not pause_s:
                logger.warning("results.delayed: of task %s: %s", task_id, type(fault).__name__)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S) or FIRST_PAUSE_S
            if not hasty and haste.is_asked_for():
                hasty, deadline_s = True, min(deadline_s, time.monotonic() + ENDING_S)
            if time.monotonic() + pause_s > deadline_s:
                return fault
            time.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - keeps all the children from coming at once
    except SoftTimeLimitExceeded:
        return TimeoutError()  # the task has ended in time: it is not its failure


def _tried(keep: Callable[[], object]) -> Exception | None:
    try:
        keep()
    except (RedisError, OSError) as error:
        if _may_pass(error):
            return error
        raise
    return None


def _may_pass(error: BaseException) -> bool:
    """Whether another try may do what this one did not.

    That is so of refusals of every kind: key and command are the same for each task, so that a refusal is the server's doing (it
    is full, read-only, its disk is full, rights were taken away) and not the task's."""
    return isinstance(error, RedisError | OSError) and not isinstance(error, DataError)


def _task_runs() -> bool:
    """Whether this thread runs a task: then nothing but its own slot waits with it."""
    return get_current_task() is not None


def _written(success: Success, now: str) -> bytes:
    return _encode(
        _Outcome(
            states.SUCCESS,
            msgspec.Raw(success.result),
            None,
            (),
            now,
            success.group_id or msgspec.UNSET,
            success.parent_id or msgspec.UNSET,
            success.task_id,
        )
    )
