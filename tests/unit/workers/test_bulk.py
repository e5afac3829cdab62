"""A file of requests and its file of answers: order, resumption, nothing lost, whatever they hold and whenever it ends."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipeline.errors import TransientModelError
from pipeline.models import PersonaRequest, PersonaResponse
from pipeline.persona_pipeline import PersonaPipeline
from pipeline.personas import load_catalog
from pipeline.responders import PromptResponder
from workers.client.answers import SHOWN_FAILURES, AnswersError, AnswersFile, AnswersInUseError, Record, Tally
from workers.client.bulk import MAX_LINE_BYTES, ask_all, count_lines, read_lines
from workers.client.mapping import Answered, Progress

KEY = "calm-flowing-planning"
PIPELINE = PersonaPipeline(load_catalog(), PromptResponder())


def wire(text: str) -> str:
    return json.dumps({"user_input": text, "resonance_key": KEY}, ensure_ascii=False)


class Killed(BaseException):
    """The exceptions that end a run from outside."""


class Workers:
    """Answers by the pipeline itself, in an order of its own, a bounded number at once; it notes its requests."""

    def __init__(self, *, at_once: int = 4, seed: int = 1) -> None:
        self.asked: list[str] = []
        self.failing: set[str] = set()
        self.ends_after: int | None = None
        self._at_once = at_once
        self._random = random.Random(seed)

    def __call__(self, requests: Iterable[PersonaRequest]) -> Generator[Answered, None, None]:
        numbered = enumerate(requests)
        on_their_way: list[tuple[int, PersonaRequest]] = []
        while True:
            while len(on_their_way) < self._at_once and (each := next(numbered, None)) is not None:
                on_their_way.append(each)
            if not on_their_way:
                return
            index, request = on_their_way.pop(self._random.randrange(len(on_their_way)))
            if self.ends_after is not None and len(self.asked) >= self.ends_after:
                raise Killed
            self.asked.append(request.user_input)
            if request.user_input in self.failing:
                yield Answered(index, request, None, TransientModelError("model: busy"))
            else:
                yield Answered(index, request, PIPELINE.process_request(request), None)


class Files(NamedTuple):
    """The file of requests, and where its answers go."""

    requests: Path
    answers: Path

    @property
    def partial(self) -> Path:
        return self.answers.with_name("answers.jsonl.partial")

    def write(self, *lines: str) -> None:
        self.requests.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def run(self, workers: Workers, **options: Any) -> Tally:
        lines = count_lines(self.requests)
        with AnswersFile(self.answers, lines) as answers:
            ask_all(read_lines(self.requests, lines), answers, workers, total=lines, **options)
            return answers.conclude(read_lines(self.requests, lines))

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.answers.read_bytes().split(b"\n")[:-1]]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "requests.jsonl", tmp_path / "answers.jsonl")


@pytest.fixture
def workers() -> Workers:
    return Workers()


def lines_of(records: Iterable[dict[str, Any]]) -> list[int]:
    return [record["line"] for record in records]


# -- one run


def test_answers_stand_in_the_order_of_the_requests_however_they_come(files: Files, workers: Workers) -> None:
    """Each with the number of its line, and it is the answer to that line."""
    texts = [f"Question {number}" for number in range(1, 60)]
    files.write(*map(wire, texts))
    assert files.run(workers) == Tally(59, 0, ())
    assert workers.asked != texts, "they came in order: the test shows nothing"
    records = files.records()
    assert lines_of(records) == list(range(1, 60))
    for text, record in zip(texts, records, strict=True):
        answer = PersonaResponse.from_wire(record["answer"])
        assert answer.content == PIPELINE.process_request(PersonaRequest.create(text, KEY)).content
    assert not files.partial.exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line: is not JSON"),
        ("[1]", "request: expected an object"),
        ("null", "request: expected an object"),
        ('{"user_input": "Hi"}', "resonance_key: "),
        ('{"user_input": "", "resonance_key": "calm-flowing-planning"}', "user_input: is empty"),
        ('{"user_input": "Hi", "resonance_key": "calm-flowing-eat"}', "resonance_key: unknown intent 'eat'"),
        ('{"user_input": "Hi", "resonance_key": "calm-flowing-planning", "mood": 1}', "mood: unknown field"),
        ("[" * 100_000, "line: is not JSON"),
        ("\0", "line: is not JSON"),
    ],
    ids=lambda value: value[:40],
)
def test_a_bad_line_is_told_by_its_number_and_field_and_harms_no_other(
    files: Files, workers: Workers, line: str, said: str
) -> None:
    """It is never sent."""
    files.write(wire("One"), line, wire("Three"))
    tally = files.run(workers)
    assert (tally.answered, tally.failed) == (2, 1)
    assert (tally.failures[0].line, tally.failures[0].error) == (2, "invalid_request")
    assert tally.failures[0].message.startswith(said)
    assert sorted(workers.asked) == ["One", "Three"]
    records = files.records()
    assert lines_of(records) == [1, 2, 3]
    assert records[1] == {**records[1], "error": "invalid_request", "message": tally.failures[0].message}
    assert "answer" not in records[1]


def test_a_line_that_is_not_utf_8_fails_alone(files: Files, workers: Workers) -> None:
    """Its bytes are of no use to a message; its number is."""
    files.requests.write_bytes(wire("One").encode() + b'\n{"user_input": "\xff", "resonance_key": "calm-flowing-planning"}\n')
    tally = files.run(workers)
    assert [failure.line for failure in tally.failures] == [2]
    assert workers.asked == ["One"]


def test_blank_lines_are_no_requests_and_keep_the_numbers_right(files: Files, workers: Workers) -> None:
    """The number is the one that an editor shows."""
    files.write("", wire("Two"), "  \t", "", wire("Five"), "")
    assert files.run(workers) == Tally(2, 0, ())
    assert lines_of(files.records()) == [2, 5]


@pytest.mark.parametrize("text", ["답을 주세요", "a\u2028b\u0085c\x0b d", "👩‍👩‍👧 ok", 'back\\slash "quoted"'])
def test_any_text_stays_one_line(files: Files, workers: Workers, text: str) -> None:
    """Other line ends do not count here: U+2028, U+0085 and the like stand unescaped in a JSON text."""
    files.write(wire(text), wire("Two"))
    assert files.run(workers).answered == 2
    assert lines_of(files.records()) == [1, 2]
    assert sorted(workers.asked) == sorted([PersonaRequest.create(text, KEY).user_input, "Two"])


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf%s\r\n%s\r\n", b"%s\n%s"], ids=["of Windows", "no line end at the end"])
def test_other_editors_files_are_read_as_well(files: Files, workers: Workers, content: bytes) -> None:
    """A byte order mark, CRLF, a last line without an end."""
    files.requests.write_bytes(content % (wire("One").encode(), wire("Two").encode()))
    assert files.run(workers).answered == 2
    assert workers.asked.count("One") == workers.asked.count("Two") == 1


def test_a_line_longer_than_any_request_is_refused_without_being_held(files: Files, workers: Workers) -> None:
    """It costs no more memory than the longest that is read, and the next line is found behind it."""
    with files.requests.open("wb") as requests:
        requests.write(wire("One").encode() + b"\n")
        for _ in range(8):
            requests.write(b"x" * MAX_LINE_BYTES)
        requests.write(b"\n" + wire("Three").encode() + b"\n")
    tracemalloc.start()
    try:
        tally = files.run(workers)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [failure.line for failure in tally.failures] == [2]
    assert "more than 8388608 bytes" in tally.failures[0].message
    assert lines_of(files.records()) == [1, 2, 3]
    assert peak_bytes < 4 * MAX_LINE_BYTES


def test_an_empty_file_has_an_empty_file_of_answers(files: Files, workers: Workers) -> None:
    """Nothing was asked, and nothing is wrong."""
    files.write()
    assert files.run(workers) == Tally(0, 0, ())
    assert files.records() == []


def test_the_failures_that_are_listed_are_bounded(files: Files, workers: Workers) -> None:
    """A list of a million would help no reader; all are counted, and in the file."""
    files.write(*["{"] * (SHOWN_FAILURES + 50))
    tally = files.run(workers)
    assert tally.failed == SHOWN_FAILURES + 50
    assert [failure.line for failure in tally.failures] == list(range(1, SHOWN_FAILURES + 1))
    assert len(files.records()) == SHOWN_FAILURES + 50


def test_progress_counts_every_line_once(files: Files, workers: Workers) -> None:
    """Blank, bad, failed and answered ones, up to the number that was announced."""
    files.write("", wire("Two"), "{", wire("Four"), wire("Two"))
    workers.failing = {"Four"}
    told: list[Progress] = []
    files.run(workers, on_progress=told.append)
    assert [progress.done for progress in told] == [1, 2, 3, 4, 5]
    assert told[-1] == Progress(5, 2, 0, 5)


# -- runs again


def test_a_second_run_asks_nothing_that_is_answered(files: Files, workers: Workers) -> None:
    """And leaves the file as it was."""
    files.write(wire("One"), wire("Two"), "", wire("Four"))
    files.run(workers)
    before = files.answers.read_bytes()
    again = Workers()
    assert files.run(again) == Tally(3, 0, ())
    assert again.asked == []
    assert files.answers.read_bytes() == before


def test_what_failed_is_asked_again_and_only_that(files: Files, workers: Workers) -> None:
    """Unless it is told not to."""
    files.write(wire("One"), wire("Two"), wire("Three"))
    workers.failing = {"Two"}
    tally = files.run(workers)
    assert [(failure.line, failure.error, failure.message) for failure in tally.failures] == [
        (2, "model_unavailable", "model: busy")
    ]
    calm = Workers()
    assert files.run(calm, retry_failed=False) == tally
    assert calm.asked == []
    assert files.run(calm) == Tally(3, 0, ())
    assert calm.asked == ["Two"]


def test_an_edited_line_is_asked_anew_and_the_others_are_not(files: Files, workers: Workers) -> None:
    """A number alone does not make an answer belong to a line: here two were swapped, one was added and one taken away."""
    files.write(wire("One"), wire("Two"), wire("Three"), wire("Four"))
    files.run(workers)
    files.write(wire("One"), wire("Three"), wire("Two"), "", wire("Five"), wire("Six"))
    again = Workers()
    assert files.run(again).answered == 5
    assert sorted(again.asked) == ["Five", "Six", "Three", "Two"]
    assert lines_of(files.records()) == [1, 2, 3, 5, 6]
    for record, text in zip(files.records(), ("One", "Three", "Two", "Five", "Six"), strict=True):
        assert text in record["answer"]["content"]


def test_what_belongs_to_no_line_any_more_goes(files: Files, workers: Workers) -> None:
    """The file of requests became shorter."""
    files.write(wire("One"), wire("Two"), wire("Three"))
    files.run(workers)
    files.write(wire("One"))
    assert files.run(Workers()) == Tally(1, 0, ())
    assert lines_of(files.records()) == [1]


@pytest.mark.parametrize("ends_after", [0, 1, 7, 19, 20])
def test_a_run_that_was_ended_loses_nothing_that_was_answered(files: Files, ends_after: int) -> None:
    """The next one asks the rest, once, and the order is right."""
    texts = [f"Question {number}" for number in range(1, 21)]
    files.write(*map(wire, texts))
    first = Workers(seed=ends_after)
    first.ends_after = ends_after
    if ends_after < 20:
        with pytest.raises(Killed):
            files.run(first)
        assert not files.answers.exists()
    else:
        files.run(first)
    second = Workers(seed=99)
    assert files.run(second) == Tally(20, 0, ())
    assert sorted(first.asked + second.asked) == sorted(texts)
    assert lines_of(files.records()) == list(range(1, 21))


def test_runs_may_be_ended_again_and_again(files: Files) -> None:
    """Each goes on where the last one ended; in between, lines are edited and fail."""
    texts = [f"Question {number}" for number in range(1, 31)]
    files.write(*map(wire, texts))
    asked: list[str] = []
    for seed in range(10):
        workers = Workers(seed=seed)
        workers.ends_after = 4
        workers.failing = {"Question 3"}
        if seed == 5:
            texts[10] = "Another question"
            files.write(*map(wire, texts))
        with suppress(Killed):
            files.run(workers)
        asked += workers.asked
    final = Workers()
    assert files.run(final).answered == 30
    assert lines_of(files.records()) == list(range(1, 31))
    asked += final.asked
    assert all(asked.count(text) == 1 for text in texts if text != "Question 3")


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_record_that_was_half_written_is_asked_again(files: Files, workers: Workers, cut: int) -> None:
    """The machine was faster than its disk: the last record has no end, and the one that follows must not be glued to it."""
    files.write(*map(wire, ("One", "Two", "Three", "Four")))
    workers.ends_after = 3
    with pytest.raises(Killed):
        files.run(workers)
    os.truncate(files.partial, files.partial.stat().st_size - cut)
    second = Workers()
    assert files.run(second).answered == 4
    assert lines_of(files.records()) == [1, 2, 3, 4]
    assert len(second.asked) == 2


def test_garbage_in_the_partial_file_is_passed_over(files: Files, workers: Workers) -> None:
    """After a loss of power a file may end in zeros, and more may have been written behind them."""
    files.write(*map(wire, ("One", "Two", "Three")))
    workers.ends_after = 2
    with pytest.raises(Killed):
        files.run(workers)
    kept = files.partial.read_bytes().split(b"\n")
    files.partial.write_bytes(b"\n".join([kept[0], b"\0" * 4096, b"[]", b'{"line": 99999999999, "digest": "0"}', kept[1], b""]))
    second = Workers()
    assert files.run(second).answered == 3
    assert len(second.asked) == 1


def test_a_run_killed_between_the_new_file_and_the_end_of_the_old_is_harmless(files: Files, workers: Workers) -> None:
    """Both hold the same: the next run reads them as one."""
    files.write(wire("One"), wire("Two"))
    files.run(workers)
    files.partial.write_bytes(files.answers.read_bytes())
    before = files.answers.read_bytes()
    again = Workers()
    assert files.run(again) == Tally(2, 0, ())
    assert (again.asked, files.answers.read_bytes()) == ([], before)


@pytest.mark.slow
def test_a_killed_process_loses_nothing_that_it_wrote_down(files: Files) -> None:
    """KILL, which nothing can prepare for, right after a record was kept."""
    files.write(*[wire("One")] * 3)
    program = """
    import os, signal, sys
    from pathlib import Path
    from workers.client.answers import AnswersFile, Record
    from workers.client.bulk import read_lines
    with AnswersFile(Path(sys.argv[2]), 3) as answers:
        for line in read_lines(Path(sys.argv[1]), 2):
            answers.keep(Record(line.number, line.digest, error="answer_failed", message="no"))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program), files.requests, files.answers], check=False, timeout=60)
    calm = Workers()
    with AnswersFile(files.answers, 3) as answers:
        assert [answers.state(line) for line in read_lines(files.requests, 3)] == ["failed", "failed", None]
        assert answers.kept == 2
    assert files.run(calm).answered == 3


# -- files that are not as expected


@pytest.mark.parametrize(
    "content", [b"my notes\n", b'{"line": 1}\n', b"[]\n", b"no end", b'{"line": 1, "digest": "' + b"f" * 30 + b'"}\n']
)
def test_a_file_that_holds_something_else_is_not_overwritten(files: Files, workers: Workers, content: bytes) -> None:
    """A slip of the hand must not cost a user's file."""
    files.write(wire("One"))
    files.answers.write_bytes(content)
    with pytest.raises(AnswersError, match="its line 1"):
        files.run(workers)
    assert files.answers.read_bytes() == content
    assert workers.asked == []


def test_two_runs_do_not_write_one_file(files: Files, workers: Workers) -> None:
    """The second is told so at once; when the first is done, it may."""
    files.write(wire("One"))
    with AnswersFile(files.answers, 1):
        with pytest.raises(AnswersInUseError):
            files.run(workers)
        assert workers.asked == []
    assert files.run(workers).answered == 1


def test_a_link_stays_a_link(files: Files, workers: Workers, tmp_path: Path) -> None:
    """The link's target is replaced, with the permissions that it had."""
    files.write(wire("One"))
    target = tmp_path / "elsewhere.jsonl"
    target.touch(0o600)
    files.answers.symlink_to(target)
    files.run(workers)
    assert files.answers.is_symlink()
    assert lines_of(files.records()) == [1]
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_line_that_changes_while_the_file_is_read_is_told(files: Files, workers: Workers) -> None:
    """Its answer would be that of another request."""
    files.write(wire("One"), wire("Two"))
    with AnswersFile(files.answers, 2) as answers:
        ask_all(read_lines(files.requests, 2), answers, workers, total=2)
        files.write(wire("One"), wire("2nd"), wire("Three"))
        tally = answers.conclude(read_lines(files.requests, 2))
    assert (tally.answered, [failure.line for failure in tally.failures]) == (1, [2])
    assert lines_of(files.records()) == [1]
    assert files.run(workers).answered == 3


def test_a_run_that_kept_nothing_leaves_nothing(files: Files) -> None:
    """Not even an empty file."""
    files.write(wire("One"))
    with AnswersFile(files.answers, 1):
        pass
    assert sorted(path.name for path in files.requests.parent.iterdir()) == ["requests.jsonl"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_answers(files: Files) -> None:
    """Of 20,000 lines with some 40 MB of answers no more than an index is held."""
    count, answer = 20_000, PIPELINE.process_request(PersonaRequest.create("x" * 1500, KEY))
    with files.requests.open("w") as requests:
        requests.writelines(f'{{"n": {number}}}\n' for number in range(count))

    def keep_all(lines: Callable[[], Iterator[Any]]) -> None:
        with AnswersFile(files.answers, count) as answers:
            for line in lines():
                answers.keep(Record(line.number, line.digest, answer))
            assert answers.conclude(lines()) == Tally(count, 0, ())

    tracemalloc.start()
    try:
        keep_all(lambda: read_lines(files.requests, count))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert files.answers.stat().st_size > 30_000_000
    assert peak_bytes < 3_000_000
