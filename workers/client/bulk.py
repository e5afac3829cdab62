"""A file of requests, one JSON object a line, answered line by line. Lines answered by an earlier run are not asked again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from pipeline.errors import InvalidRequestError, PermanentModelError, TransientModelError
from pipeline.models import PersonaRequest
from workers.client.answers import AnswersFile, Line, Record
from workers.client.mapping import Answered, Progress
from workers.queue.errors import AnswerTimeoutError, QueueUnavailableError

MAX_LINE_BYTES: Final = 8 << 20
"""More than the largest request takes: 51 texts of 8,000 characters, each of them up to 12 bytes of JSON."""
_BLOCK_BYTES: Final = 1 << 20
_BOM: Final = b"\xef\xbb\xbf"
_KINDS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (InvalidRequestError, "invalid_request"),
    (TransientModelError, "model_unavailable"),
    (PermanentModelError, "model_refused"),
    (AnswerTimeoutError, "answer_timeout"),
    (QueueUnavailableError, "queue_unavailable"),
)

AskMany = Callable[[Iterable[PersonaRequest]], Generator[Answered, None, None]]


def count_lines(path: Path) -> int:
    """The number of lines, blank ones included. Raises OSError naming the path."""
    lines, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            lines += block.count(b"\n")
            last = block[-1:]
    return lines + (last != b"\n")


def read_lines(path: Path, lines: int) -> Iterator[Line]:
    """The first `lines` lines, one at a time; of a line longer than MAX_LINE_BYTES only its existence. Raises OSError."""
    return islice(_read_lines(path), lines)


def _read_lines(path: Path) -> Iterator[Line]:
    with path.open("rb") as file:
        number = 0
        while text := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if number == 1:
                text = text.removeprefix(_BOM)
            if len(text) > MAX_LINE_BYTES and not text.endswith(b"\n"):
                yield Line(number, _digest_of_the_rest(file, text), None)
            else:
                text = text.strip()
                yield Line(number, _digest(text).hexdigest(), text)


def ask_all(
    lines: Iterable[Line],
    answers: AnswersFile,
    ask_many: AskMany,
    *,
    total: int,
    retry_failed: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
) -> int:
    """Get a record for every line that is not blank. Returns how many of them an earlier run had answered.

    `ask_many` yields the outcomes of the requests that it is given, in any order, and takes them only as it needs them: no more
    lines are held than it has on their way. `total`: passed to `on_progress`, whose `done` counts every line that is dealt with.
    Raises the errors of `ask_many` and of the files; records that were written by then stay.
    """
    run = _Run(answers, total, on_progress)
    # Closed at once on an interruption: queued tasks are revoked while the broker is there.
    with closing(ask_many(run.to_ask(lines, retry_failed=retry_failed))) as outcomes:
        for outcome in outcomes:
            run.take(outcome)
    return run.already_answered


class _Run:
    """The line that each request on its way came from, and the progress of the run."""

    def __init__(self, answers: AnswersFile, total: int, on_progress: Callable[[Progress], None] | None) -> None:
        self._answers = answers
        self._progress = Progress(0, 0, 0, total)
        self._on_progress = on_progress
        self._asked: dict[int, Line] = {}
        self.already_answered = 0

    def to_ask(self, lines: Iterable[Line], *, retry_failed: bool) -> Iterator[PersonaRequest]:
        index = 0
        for line in lines:
            state = None if line.blank else self._answers.state(line)
            if line.blank or state == "answered" or (state == "failed" and not retry_failed):
                self.already_answered += state == "answered"
                self._advance(failed=state == "failed")
                continue
            try:
                request = _request(line)
            except InvalidRequestError as error:
                self._fail(line, error)
                continue
            self._asked[index] = line._replace(text=None)  # its number and digest are enough
            index += 1
            yield request

    def take(self, outcome: Answered) -> None:
        line = self._asked.pop(outcome.index)
        if outcome.response is not None:
            self._answers.keep(Record(line.number, line.digest, outcome.response))
            self._advance(cached=outcome.response.hit)
        elif outcome.error is not None:
            self._fail(line, outcome.error)

    def _fail(self, line: Line, error: Exception) -> None:
        self._answers.keep(Record(line.number, line.digest, error=_kind(error), message=str(error)))
        self._advance(failed=True)

    def _advance(self, *, failed: bool = False, cached: bool = False) -> None:
        done, failures, hits, total = self._progress
        self._progress = Progress(done + 1, failures + failed, hits + cached, total)
        if self._on_progress is not None:
            self._on_progress(self._progress)


def _request(line: Line) -> PersonaRequest:
    if line.text is None:
        raise InvalidRequestError("line", f"has more than {MAX_LINE_BYTES} bytes, which no request needs")
    try:
        wire = msgspec.json.decode(line.text)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested too deeply
        raise InvalidRequestError("line", f"is not JSON: {error}") from None
    return PersonaRequest.from_wire(wire)


def _kind(error: Exception) -> str:
    return next((kind for known, kind in _KINDS if isinstance(error, known)), "answer_failed")


def _digest(text: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(text, digest_size=8)


def _digest_of_the_rest(file: BinaryIO, text: bytes) -> str:
    digest = _digest(text)
    while not text.endswith(b"\n") and (text := file.readline(_BLOCK_BYTES)):
        digest.update(text)
    return digest.hexdigest()
