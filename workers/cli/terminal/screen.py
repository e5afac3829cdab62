"""A command's output: its result on standard output, everything else on standard error."""

from __future__ import annotations

import json
import logging
import sys
import unicodedata
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from workers.cli.terminal.failures import CommandError

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


class Screen:
    """One command's output. With `as_json`, at most one document is printed, failure included."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._document_is_out = False

    @cached_property
    def out(self) -> Console:
        """For the result."""
        return _console(stderr=False)

    @cached_property
    def notes(self) -> Console:
        """For everything else."""
        return _console(stderr=True)

    def document(self, document: Mapping[str, Any]) -> None:
        """Print the JSON document, in UTF-8 whatever the terminal's encoding. Without effect if one was printed already."""
        if self._document_is_out:
            return
        self._document_is_out = True
        text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
        # A lone surrogate, from an argument that is not valid text, becomes JSON's own escape of it.
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
        sys.stdout.flush()

    def note(self, line: str) -> None:
        """One line on standard error. Raises OSError when its reader has gone."""
        sys.stderr.write(printable(line) + "\n")
        sys.stderr.flush()

    def fail(self, failure: CommandError, *, quietly: bool = False) -> None:
        """Show the reason of the failure. `quietly`: in the document only."""
        if not quietly:
            for line in failure.lines:
                self.note(line)
        if self.as_json:
            self.document({**failure.document, "error": failure.error})


def begin(context: typer.Context, as_json: bool) -> Screen:
    """The screen of a command that was just parsed."""
    screen: Screen = context.obj
    screen.as_json = as_json
    # Silences libraries' warnings: the fault ends as one error sentence anyway.
    logging.getLogger().addHandler(logging.NullHandler())
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a text stream, also in tests
    return screen


def printable(text: str) -> str:
    """The text without control characters, which could drive the terminal; line ends and tabs stay."""
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) != "Cc")


def shown_ms(ms: float) -> str:
    """A duration as text that fits a column: `0.05 ms`, `12.3 ms`, `840 ms`, `12.3 s`."""
    if ms >= 10_000:
        return f"{ms / 1000:.1f} s"
    if ms >= 100:
        return f"{ms:.0f} ms"
    return f"{ms:.1f} ms" if ms >= 1 else f"{ms:.2f} ms"


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            # Rich would leave by SystemExit, past code that still has something to stop.
            raise BrokenPipeError

    return Piped(stderr=stderr, highlight=False)
