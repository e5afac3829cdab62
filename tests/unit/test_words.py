"""The words of docstrings, comments and texts: programs are no persons, and a sentence has a subject."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path for name in ("pipeline", "workers", "benchmarks") for path in (ROOT / name).rglob("*") if path.suffix in (".py", ".lua")
)
PAGES = [*sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "benchmarks.md"), ROOT / "README.md"]

HE = re.compile(r"\b(he|his|him|himself)\b", re.IGNORECASE)
HEADLESS_WHO = re.compile(
    r"(?:(?:^|[.;:!?,(] )\(?|\b(?:and|or|but|for|of|to|by|from|with|than|that|as) )who(?:ever|soever)?\b(?! (?:is|was) it)",
    re.IGNORECASE,
)


def said_in_python(source: str) -> Iterator[tuple[int, str]]:
    """Docstrings, those of attributes too, and comments, with their lines."""
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            if (
                isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            ):
                yield statement.lineno, statement.value.value
    block: list[str] = []
    began = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if block and token.start[0] != last + 1:
            yield began, "\n".join(block)
            block = []
        if not block:
            began = token.start[0]
        block.append(token.string.lstrip("# "))
        last = token.start[0]
    if block:
        yield began, "\n".join(block)


def said(path: Path) -> Iterator[tuple[int, str]]:
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from said_in_python(source)
    elif path.suffix == ".lua":
        yield 1, "\n".join(line.partition("--")[2].strip() for line in source.splitlines() if "--" in line)
    else:
        yield 1, re.sub(r"```.*?```", "", source, flags=re.DOTALL)


def found(pattern: re.Pattern[str], path: Path) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line}: {flat[max(0, match.start() - 40) : match.end() + 40]}"
        for line, text in said(path)
        for flat in [" ".join(text.split())]
        for match in pattern.finditer(flat)
    ]


def test_the_patterns_find_what_they_are_for() -> None:
    """Else the tests below would pass of anything."""
    source = '"""Who asks, waits."""\n# he\n# waits\nX = 1\n"""Told to whoever asks."""\n'
    texts = dict(said_in_python(source))
    assert texts == {1: "Who asks, waits.", 2: "he\nwaits", 5: "Told to whoever asks."}
    assert [bool(HEADLESS_WHO.search(text)) for text in texts.values()] == [True, True, False]
    assert HE.search(texts[2])
    assert not HEADLESS_WHO.search("A caller who asks twice, and the one who waits.")
    assert len(FILES) > 150


@pytest.mark.parametrize("path", [*FILES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_programs_are_no_persons_and_sentences_have_subjects(path: Path) -> None:
    """A caller, a task, a process: the code's nouns."""
    assert found(HE, path) + found(HEADLESS_WHO, path) == []
