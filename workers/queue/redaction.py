"""What logs, events, Flower and `inspect` show of a task: never a user's words or an answer."""

from __future__ import annotations

from typing import Any, Final

from pipeline.errors import InvalidRequestError
from workers.queue.outcomes.put_back import ReturnableRequest, ReturnableTask

REDACTED: Final = "(redacted)"
TOLD: Final = "request: refused (its sender has been told why)"


class RedactedRequest(ReturnableRequest):
    """A request whose arguments stay with the task. The sender's own `argsrepr`, which any producer may set, is dropped."""

    def __init__(self, message: Any, **options: Any) -> None:
        super().__init__(message, **options)
        self._argsrepr = self._kwargsrepr = REDACTED
        # The pool child logs from this dict.
        self._request_dict.update(argsrepr=REDACTED, kwargsrepr=REDACTED)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """End the running task, since the connection to the broker is lost, and with it the hold on the message, which will come
        back.

        Celery notes that it did so only after it has told the result backend. If that fails, the end of the child passes for a
        revocation, which is final: the caller gets no answer, and the message is dropped when it comes back.
        """
        if self.time_start:
            self._already_cancelled = True
        super().cancel(pool, signal, emit_retry)

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: ARG002 - whatever was asked for
        info: dict[str, Any] = super().info(safe=True)
        return info


class RedactedTask(ReturnableTask):
    """The base of every task here."""

    abstract = True
    Request = f"{__name__}:RedactedRequest"
    resultrepr_maxsize = 10  # shows that there is an answer, and no more of it

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:  # noqa: ARG002 - the library's
        """Called when the result is stored, before the failure is logged and sent as an event: both show `einfo`.

        A refusal quotes the refused value, for its sender. Sent in the wrong field, that may be a user's words.
        """
        if isinstance(exc, InvalidRequestError):
            einfo.exception = InvalidRequestError(TOLD)
            einfo.traceback = f"{InvalidRequestError.__name__}: {TOLD}"
