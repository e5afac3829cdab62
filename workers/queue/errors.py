"""The errors that a producer may meet beside the pipeline's own. Every message says where to look."""

from __future__ import annotations

from kombu.exceptions import EncodeError


class WorkerError(Exception):
    """Base class of every error that a client raises on purpose."""


class QueueUnavailableError(WorkerError, ConnectionError):
    """The broker could not be reached, so that the request was probably not queued. Asking again is safe."""


class QueueRefusedError(QueueUnavailableError):
    """The broker or the results' server was reached, and does not let this program in or do what it wants. The message has the
    server's words: the command that this user has no right to, or what is wrong with its password or certificate."""


class QueueFullError(QueueUnavailableError):
    """The broker has no room, or soon none, so that the request was not queued. Asking again is of use once workers have answered
    some of what waits: see PERSONA_QUEUE_FULL_AT."""


class NoRedisError(WorkerError):
    """The broker is no Redis server, and what was asked for is kept by such a one alone."""


class AnswerTimeoutError(WorkerError, TimeoutError):
    """No answer within the time given. The request may still be queued or running."""


class AnswerExpiredError(AnswerTimeoutError):
    """The answer was kept for as long as results are, and no caller took it. Asking again is safe."""


class AnswerFailedError(WorkerError):
    """The worker gave up on the request; the message is its own."""


class ResultTooLongError(WorkerError, EncodeError):
    """What a task returned, or the text of its error, has more bytes than PERSONA_RESULT_MAX_KB allows. It was not kept."""


class CallbackUnsentError(WorkerError):
    """What a caller wanted sent after its task could not be. The task's own result stands."""
