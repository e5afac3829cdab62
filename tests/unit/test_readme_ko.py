"""README.ko.md is the whole of README.md: the same programs and diagrams, headings, rows, figures and links, in their order.

That the programs run, and that the links lead somewhere, is held by other tests.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGLISH, KOREAN = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ko.md"))
FIGURE = re.compile(r"\d[\d,.]*\d")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def prose_of(text: str) -> str:
    """All that is neither program nor diagram."""
    return BLOCK.sub("", text)


def rows_of(text: str) -> list[str]:
    return re.findall(r"^\|.*\|$", prose_of(text), re.MULTILINE)


def test_every_program_and_diagram_is_that_of_the_english_page() -> None:
    """To the letter and in their order: the programs that are run there are those written here."""
    assert BLOCK.findall(KOREAN) == BLOCK.findall(ENGLISH) != []


def test_it_has_the_same_parts() -> None:
    """A section that one page gets, the other gets too."""
    first, second = (re.findall(r"^(#+) .+$", prose_of(text), re.MULTILINE) for text in (ENGLISH, KOREAN))
    assert second == first


@pytest.mark.parametrize("number", range(len(rows_of(ENGLISH))))
def test_a_row_says_the_same(number: int) -> None:
    """As many cells, the same figures and the same words of code, cell by cell."""
    english, korean = rows_of(ENGLISH)[number], rows_of(KOREAN)[number]
    assert korean.count("|") == english.count("|")
    for first, second in zip(english.split("|"), korean.split("|"), strict=True):
        assert sorted(re.findall(r"`[^`]+`", second)) == sorted(re.findall(r"`[^`]+`", first))
        if "of 6" not in first:  # which Korean counts the other way round
            assert FIGURE.findall(second) == FIGURE.findall(first)


def test_the_prose_has_the_same_figures() -> None:
    """Those with a unit or a decimal, wherever a sentence puts them."""
    figures = re.compile(r"\d[\d.]* ms|\d[\d,]*,\d{3}")
    first, second = (sorted(set(figures.findall(prose_of(text)))) for text in (ENGLISH, KOREAN))
    assert second == first != []


def test_it_links_to_the_same_pages() -> None:
    """And each names the other: a reader who does not read the one finds the other."""
    first, second = (sorted(re.findall(r"\]\(([^)\s]+)\)", prose_of(text))) for text in (ENGLISH, KOREAN))
    assert "README.ko.md" in first
    assert "README.md" in second
    assert [link for link in second if link != "README.md"] == [link for link in first if link != "README.ko.md"]
