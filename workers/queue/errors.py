"""What a producer may meet beside the pipeline's own errors. Every message says what to look at."""

from __future__ import annotations


class WorkerError(Exception):
    """Root of what a client raises on purpose."""


class QueueUnavailableError(WorkerError, ConnectionError):
    """The broker could not be reached, so that the request was probably not queued. Asking again is safe."""


class AnswerTimeoutError(WorkerError, TimeoutError):
    """No answer within the time given. The request may still be queued or running."""


class AnswerExpiredError(AnswerTimeoutError):
    """The answer was there for as long as results are kept, and nobody took it. Asking again is safe."""


class AnswerFailedError(WorkerError):
    """The worker gave up on the request; the message is its own."""
