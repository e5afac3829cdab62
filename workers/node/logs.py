"""`PERSONA_LOG=json`: one JSON object a line, for worker and beat. Without it Celery's own text format stays.

Celery still decides which records are logged, and where to (its --loglevel and --logfile); only the form of a line changes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from celery._state import get_current_task
from celery.signals import after_setup_logger, after_setup_task_logger, celeryd_after_setup
from celery.utils.log import get_multiprocessing_logger

# The attributes of every record. Any other came with the call, as `extra`.
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_OF_A_TASK: Final = {"id": "task_id", "name": "task_name", "runtime": "runtime_s", "hostname": "node"}


class JsonFormatter(logging.Formatter):
    """A line: `time` (ISO 8601, UTC), `level`, `logger`, `message`, `process`, `pid`; within a task `task_id` and `task_name`;
    `exception` as text; and the call's own fields, none of which can replace these.

    The fields that Celery itself adds to a record, arguments and answers among them, are left out except for those that
    `_OF_A_TASK` names: a prompt shows no more than it does in the text format.
    """

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.processName,
            "pid": record.process,
            **_of_task(record),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        for name, value in vars(record).items():
            if name not in _STANDARD and not (name == "data" and record.name.startswith("celery.")):
                fields.setdefault(name, value)
        return _encoded(fields)


def _of_task(record: logging.LogRecord) -> dict[str, Any]:
    told = getattr(record, "data", None)
    if record.name.startswith("celery.") and isinstance(told, Mapping):
        return {field: told[name] for name, field in _OF_A_TASK.items() if told.get(name) is not None}
    task = get_current_task()
    if task is not None and task.request.id is not None:
        return {"task_id": task.request.id, "task_name": task.name}
    return {}


def _encoded(fields: dict[str, Any]) -> str:
    try:
        return msgspec.json.encode(fields, enc_hook=repr).decode()
    except (TypeError, ValueError, RecursionError):
        # Such as a key that is not text, or a lone surrogate: losing the form is better than losing the line.
        plain = {name: repr(value).encode("ascii", "backslashreplace").decode() for name, value in fields.items()}
        return msgspec.json.encode(plain).decode()


def write_json() -> None:
    """From now on this process logs JSON to standard error, Python's warnings included. Loggers that Celery sets up write JSON,
    too."""
    # For records from before Celery's setup, or of a command without it; that setup replaces the root's handlers.
    early = logging.StreamHandler()
    early.setFormatter(JsonFormatter())
    logging.getLogger().addHandler(early)
    logging.captureWarnings(True)
    after_setup_logger.connect(_reform, weak=False, dispatch_uid="workers.node.logs")
    after_setup_task_logger.connect(_reform, weak=False, dispatch_uid="workers.node.logs")
    celeryd_after_setup.connect(_silence_banner, weak=False, dispatch_uid="workers.node.logs")


def _reform(logger: logging.Logger, **_: Any) -> None:
    for each in (logger, get_multiprocessing_logger()):
        for handler in each.handlers if each is not None else ():
            handler.setFormatter(JsonFormatter())


def _silence_banner(instance: Any, **_: Any) -> None:
    # The banner is not JSON. (Beat prints its own before any module of this package is known: `celery --quiet ... beat`.)
    instance.quiet = True
