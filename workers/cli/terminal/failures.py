"""The failure of a command: its sentence, its document, its exit code."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from typing import Any, Final

from typer.exceptions import TyperException

FAILED: Final = 1
BAD_USAGE: Final = 2

_BROKER_HINT: Final = "Start one here with `persona up`, or name yours in PERSONA_BROKER_URL."
_BROKER_PREFIX: Final = "the broker at "  # the field says it
_FIELD: Final = re.compile(r"(\S+): (?=\S)(.*)", re.DOTALL)


class CommandError(Exception):
    """`field` is where to look: an option, a request's field, a variable, a service. `document`: the additions of `--json`."""

    def __init__(
        self,
        kind: str,
        field: str | None,
        message: str,
        *,
        exit_code: int = FAILED,
        document: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.kind, self.field, self.message, self.exit_code = kind, field, message, exit_code
        self.document = document or {}

    @property
    def error(self) -> dict[str, str | None]:
        return {"kind": self.kind, "field": self.field, "message": self.message}

    @property
    def lines(self) -> list[str]:
        """The lines on standard error."""
        return [f"error: {self.field}: {self.message}" if self.field else f"error: {self.message}"]


class BadSettingsError(CommandError):
    """One or several invalid settings, a line each."""

    def __init__(self, problems: str) -> None:
        self._problems = problems.splitlines()
        field, message = _split(self._problems[0])
        rest = self._problems[1:]
        super().__init__("invalid_setting", field, "; ".join([message, *rest]), exit_code=BAD_USAGE)

    @property
    def lines(self) -> list[str]:
        return [f"error: {problem}" for problem in self._problems]


class BugError(CommandError):
    """An unforeseen error: the sentence, and on standard error its trace."""

    def __init__(self, error: Exception) -> None:
        super().__init__("internal", None, f"{type(error).__name__}: {' '.join(str(error).split())}; this is a bug")
        self._trace = "".join(traceback.format_exception(error)).rstrip()

    @property
    def lines(self) -> list[str]:
        return [*super().lines, self._trace]


def failure_of(error: Exception) -> CommandError:
    """The error as a failure of the command."""
    if isinstance(error, CommandError):
        return error
    if isinstance(error, TyperException):
        return _usage(error)
    return _of_ours(error) or _of_servers(error) or BugError(error)


def _of_ours(error: Exception) -> CommandError | None:
    from pipeline.cache.errors import InvalidPatternError
    from pipeline.errors import (
        ConfigurationError,
        InvalidRequestError,
        MissingExtraError,
        PermanentModelError,
        TransientModelError,
    )
    from workers.queue.errors import AnswerFailedError, AnswerTimeoutError, QueueUnavailableError
    from workers.stack.errors import StackError, StackRunningError

    cause = error.__cause__
    match error:
        case InvalidRequestError():
            return CommandError("invalid_request", error.field, error.problem, exit_code=BAD_USAGE)
        case InvalidPatternError():
            return CommandError("invalid_pattern", *_split(str(error)), exit_code=BAD_USAGE)
        case MissingExtraError():
            return CommandError("not_installed", None, str(error))
        case ConfigurationError():
            return BadSettingsError(str(error))
        case StackError() if isinstance(cause, ConfigurationError):
            return _of_ours(cause)
        case StackRunningError():
            return CommandError("stack_running", None, str(error))
        case StackError():
            return CommandError("stack", *_split(str(error)))
        case QueueUnavailableError():
            return _of_queue(error)
        case AnswerTimeoutError():
            return CommandError("answer_timeout", "timeout", str(error))
        case AnswerFailedError():
            return CommandError("answer_failed", None, str(error))
        case TransientModelError() | PermanentModelError():
            kind = "model_unavailable" if isinstance(error, TransientModelError) else "model_refused"
            return CommandError(kind, "model", str(error).removeprefix("model: "))
        case OSError() if error.strerror:
            return CommandError("system", error.filename, error.strerror)
    return None


def _of_queue(error: Exception) -> CommandError:
    from workers.queue.errors import QueueRefusedError

    told = str(error).removeprefix(_BROKER_PREFIX)
    if isinstance(error, QueueRefusedError):  # it runs: another one would be of no use
        return CommandError("queue_refused", "broker", told)
    return CommandError("queue_unavailable", "broker", f"{told} {_BROKER_HINT}")


def _of_servers(error: Exception) -> CommandError | None:
    """A lost server, reported in a library's own words: Celery turns some into a RuntimeError of several lines."""
    from kombu.exceptions import OperationalError
    from redis.exceptions import ConnectionError as RedisConnectionError
    from redis.exceptions import NoPermissionError
    from redis.exceptions import TimeoutError as RedisTimeoutError

    lost = (RedisConnectionError, RedisTimeoutError, OperationalError, ConnectionError)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, NoPermissionError):
            return CommandError("queue_refused", "broker", f"refuses: {_sentence(cause)}; see this user's rights")
        if isinstance(cause, lost):
            return CommandError("queue_unavailable", "broker", f"cannot be reached: {_sentence(cause)}. {_BROKER_HINT}")
        cause = cause.__cause__ or cause.__context__
    return None


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _usage(error: TyperException) -> CommandError:
    """The parser's own words, with the option in front."""
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    field: str | None = getattr(error, "option_name", None)
    if parameter is not None:
        field = parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar or parameter.name.upper()
    if parameter is not None and not error.message:
        problem = "missing"
    elif possible := getattr(error, "possibilities", None):
        problem = f"no such option; similar are {', '.join(sorted(possible))}"
    elif field is not None and error.message.startswith("No such option"):
        problem = "no such option"
    else:
        problem = error.message[:1].lower() + error.message[1:].rstrip(".")
    where = f" (see `{context.command_path} --help`)" if context is not None else ""
    return CommandError("usage", field, problem + where, exit_code=BAD_USAGE)


def _split(message: str) -> tuple[str | None, str]:
    """The field that a message names first, and the rest."""
    found = _FIELD.match(message)
    return (found[1], found[2]) if found else (None, message)
