"""Log lines as JSON: whatever is logged, a line is one object, and it tells what a search would ask for."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime
from typing import Any

import pytest

from workers.node.logs import JsonFormatter


def line_of(message: Any, *arguments: Any, name: str = "workers.node.invalidation", **options: Any) -> dict[str, Any]:
    """The formatter's output for a call of a logger."""
    records: list[logging.LogRecord] = []
    logger = logging.getLogger(name)
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        logger.warning(message, *arguments, **options)
    finally:
        logger.removeHandler(handler)
    text = JsonFormatter().format(records[0])
    assert "\n" not in text
    line: dict[str, Any] = json.loads(text)
    return line


def test_a_line_says_when_how_grave_who_and_what() -> None:
    """The time is in UTC, whatever the host's zone."""
    line = line_of("cache.notice_dropped: %s\nsecond line", "malformed", extra={"patterns": 3})
    assert (line["level"], line["logger"], line["patterns"]) == ("WARNING", "workers.node.invalidation", 3)
    assert line["message"] == "cache.notice_dropped: malformed\nsecond line"
    assert line["time"].endswith("Z")
    assert datetime.fromisoformat(line["time"]).utcoffset().total_seconds() == 0  # type: ignore[union-attr]
    assert {"pid", "process"} <= set(line)
    assert not {"msg", "args", "levelno", "lineno", "task_id", "exception"} & set(line)


def test_an_exception_is_text() -> None:
    """Its traceback, in one field."""
    try:
        int("no number")
    except ValueError:
        line = line_of("it failed", exc_info=sys.exc_info())
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("'no number'")


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        {("a", 1): 2},
        float("nan"),
        b"\xff",
        "a \ud800 surrogate",
        2**70,
        [object()],
        datetime.now,
        {object(): 1},
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_call_adds_there_is_a_line(value: object) -> None:
    """A logger cannot break the work."""
    line = line_of("it happened", extra={"what": value})
    assert "it happened" in line["message"]
    assert "what" in line


def test_what_a_call_adds_takes_no_fields_place() -> None:
    """A search by level or logger stays true."""
    line = line_of("it happened", extra={"time": "yesterday", "level": "none", "logger": "mine"})
    assert (line["level"], line["logger"]) == ("WARNING", "workers.node.invalidation")
    assert line["time"] != "yesterday"


def test_of_what_celery_adds_only_the_task_is_told() -> None:
    """Its own records carry arguments and results."""
    told = {
        "id": "5",
        "name": "persona.process",
        "runtime": 0.25,
        "args": "(my secret)",
        "return_value": "secret",
        "kwargs": "{}",
    }
    line = line_of("Task %(name)s[%(id)s] succeeded", told, name="celery.app.trace", extra={"data": told})
    assert (line["task_id"], line["task_name"], line["runtime_s"]) == ("5", "persona.process", 0.25)
    assert "secret" not in json.dumps(line)
    assert line_of("mine", extra={"data": {"a": 1}})["data"] == {"a": 1}
