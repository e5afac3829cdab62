"""The answers to a file of requests, in a file: in order, whole or absent, and no answer that has come is lost.

During a run each outcome is appended to `<file>.partial` as soon as it is known. At the end all of them, with those of earlier
runs, are written in the order of the requests and replace the file in one step. A run that was ended before that leaves its
`.partial`, from which the next one goes on.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Literal, NamedTuple, Self

import msgspec

from pipeline.models import PersonaResponse

SYNC_S: Final = 1.0
"""How much of a run is lost at most when the machine loses its power. A killed process loses nothing."""
SHOWN_FAILURES: Final = 100
_NOWHERE: Final = -1
_NO_RECORD: Final = "changed_meanwhile"

State = Literal["answered", "failed"]


class Line(NamedTuple):
    """A line of a file of requests: its number from 1, its digest, and its text without outer white space; None if too long."""

    number: int
    digest: str
    text: bytes | None

    @property
    def blank(self) -> bool:
        return self.text == b""


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of one line: an answer, or the kind and the message of an error. `digest` is that of the line's text."""

    line: int
    digest: str
    answer: PersonaResponse | None = None
    error: str = ""
    message: str = ""


class Failure(msgspec.Struct, frozen=True):
    """A line without an answer."""

    line: int
    error: str
    message: str


class Tally(NamedTuple):
    """The contents of a whole file. `failures` are the first SHOWN_FAILURES of the `failed`."""

    answered: int
    failed: int
    failures: tuple[Failure, ...]


class AnswersError(Exception):
    """The file cannot be used; the message says why. `path` is the file to look at."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path, self.problem = path, problem


class AnswersInUseError(AnswersError):
    """Another run is writing the file."""


class _Kept(msgspec.Struct, frozen=True):
    """The part of a record that the index needs. The answer is skipped, not decoded."""

    line: int
    digest: str
    answer: msgspec.Raw = msgspec.Raw()
    error: str = ""
    message: str = ""


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Kept).decode


class AnswersFile:
    """`with AnswersFile(path, lines) as answers:` holds it against other runs. For one thread.

    Takes some 20 bytes of memory for each of the `lines` that the requests have, however long the answers are.
    """

    def __init__(self, path: Path, lines: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path.resolve()  # of a link the target is replaced, not the link
        self._partial = self.path.with_name(f"{self.path.name}.partial")
        self._lines = lines
        self._clock = clock
        self._synced_at_s = clock()
        # By line: where its record begins, in the partial file if the flag says so; its digest; whether it is an answer.
        self._places = array("q", [_NOWHERE]) * (lines + 1)
        self._digests = array("Q", [0]) * (lines + 1)
        self._flags = bytearray(lines + 1)

    def __enter__(self) -> Self:
        """Raises AnswersInUseError, AnswersError when the existing file does not hold answers, and OSError naming the path."""
        self._appended = _open_locked(self._partial)
        try:
            if self.path.exists():
                with self.path.open("rb") as whole:
                    self._index(whole, _IN_WHOLE)
            self._end = self._index(self._appended, _IN_PARTIAL)
            self._appended.truncate(self._end)  # a record that the last run had not fully written
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._appended.closed:
            self._close()

    @property
    def kept(self) -> int:
        """How many records a run that ended now would leave for the next one: those that belong to lines of the requests."""
        return self._lines + 1 - self._places.count(_NOWHERE)

    def state(self, line: Line) -> State | None:
        """The outcome of this line as its text is now; None if there is none."""
        if self._places[line.number] == _NOWHERE or self._digests[line.number] != int(line.digest, 16):
            return None
        return "answered" if self._flags[line.number] & _IS_ANSWER else "failed"

    def keep(self, record: Record) -> None:
        """Write down a line's outcome: after that a killed process does not lose it. Raises OSError naming the path."""
        written = _encode(record) + b"\n"
        try:
            self._appended.write(written)
            self._appended.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._partial)) from error
        self._note(record.line, record.digest, self._end, _IN_PARTIAL | (_IS_ANSWER if record.answer is not None else 0))
        self._end += len(written)
        if self._clock() - self._synced_at_s >= SYNC_S:
            self._sync()

    def conclude(self, lines: Iterable[Line]) -> Tally:
        """Put the whole file in its place: a record for each line that is not blank, in order. Records without a line go.

        A line without a known outcome, since it was changed after it had been read, counts as failed and has no record.
        """
        self._sync()
        beside = self.path.with_name(f"{self.path.name}.new")
        answered, failures, failed = 0, [], 0
        try:
            with beside.open("wb") as whole:
                if self.path.exists():
                    shutil.copymode(self.path, beside)
                for line, kept in self._records(lines):
                    if kept is None:
                        failure = Failure(line.number, _NO_RECORD, "the line was changed while the file was read; run it again")
                    else:
                        whole.write(kept)
                        if self._flags[line.number] & _IS_ANSWER:
                            answered += 1
                            continue
                        head = _decode(kept)
                        failure = Failure(head.line, head.error, head.message)
                    failed += 1
                    if failed <= SHOWN_FAILURES:
                        failures.append(failure)
                whole.flush()
                os.fsync(whole.fileno())
            beside.replace(self.path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        _sync_folder(self.path.parent)
        self._partial.unlink()  # while it is still locked: see _open_locked
        self._appended.close()
        return Tally(answered, failed, tuple(failures))

    def _records(self, lines: Iterable[Line]) -> Iterator[tuple[Line, bytes | None]]:
        with self._partial.open("rb") as partial, (self.path if self.path.exists() else self._partial).open("rb") as whole:
            for line in lines:
                if line.blank:
                    continue
                if line.number > self._lines or self.state(line) is None:
                    yield line, None
                    continue
                source = partial if self._flags[line.number] & _IN_PARTIAL else whole
                source.seek(self._places[line.number])
                yield line, source.readline()

    def _index(self, file: BinaryIO, source: int) -> int:
        """Note every record of a file. Returns where its last whole line ends."""
        file.seek(0)
        place = 0
        for number, text in enumerate(file, 1):
            if not text.endswith(b"\n"):
                if source == _IN_WHOLE:
                    raise AnswersError(self.path, f"its line {number} has no end: not written by this command; name another file")
                break
            try:
                kept = _decode(text)
                digest = int(kept.digest, 16)
            except (msgspec.DecodeError, ValueError, RecursionError):
                kept, digest = None, 0
            if kept is not None and 0 <= digest < 1 << 64:
                is_answer = bytes(kept.answer) not in (b"", b"null")
                self._note(kept.line, kept.digest, place, source | (_IS_ANSWER if is_answer else 0))
            elif source == _IN_WHOLE:
                raise AnswersError(self.path, f"its line {number} is not an answer of this command; name another file")
            # In the partial file: left by a machine that lost its power. The line is asked again.
            place += len(text)
        return place

    def _note(self, line: int, digest: str, place: int, flags: int) -> None:
        if 0 < line <= self._lines:
            self._places[line], self._digests[line], self._flags[line] = place, int(digest, 16), flags

    def _close(self) -> None:
        """Close, and remove a partial file that is empty."""
        with self._appended:
            self._sync()
            if not os.fstat(self._appended.fileno()).st_size:
                self._partial.unlink()

    def _sync(self) -> None:
        self._appended.flush()
        os.fsync(self._appended.fileno())
        self._synced_at_s = self._clock()


_IN_WHOLE, _IN_PARTIAL, _IS_ANSWER = 0, 1, 2


def _open_locked(path: Path) -> BinaryIO:
    """The file, created if need be, to be read and appended to. The kernel drops the lock of a dead process."""
    while True:
        file = path.open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder may have removed the file at its end: then this lock is on a file that has no name any more.
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        except BlockingIOError:
            file.close()
            raise AnswersInUseError(path, "another run writes it at this moment") from None
        except BaseException:
            file.close()
            raise
        file.close()


def _sync_folder(path: Path) -> None:
    """Make the new name, too, outlive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
