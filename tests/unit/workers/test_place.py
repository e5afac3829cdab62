"""Where an error arose, as the log of a refused message has it."""

from __future__ import annotations

import json
import linecache

import pytest

from workers.node.poison import place


def error_of(text: str) -> Exception:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads(text)
    return caught.value


def test_it_names_the_innermost_function_and_line_and_nothing_of_the_message() -> None:
    error = error_of("Canary")
    assert place(error).startswith("JSONDecodeError in raw_decode, line ")
    assert "Canary" not in place(error)
    assert place(ValueError("Canary")) == "ValueError"


def test_it_reads_no_source() -> None:
    """A worker's loop waits for no file, and its memory does not grow with each module in which a message is broken."""
    error = error_of("{")
    linecache.clearcache()
    place(error)
    assert not linecache.cache
