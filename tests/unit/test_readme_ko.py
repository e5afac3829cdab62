"""README.ko.md says what README.md says: its programs and commands are those, which other tests run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline import keys
from pipeline.models import INTENTS, PACES, TONES

ROOT = Path(__file__).parents[2]
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ko.md")}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(name: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = BLOCK.findall(TEXTS[name])
    return found


def test_every_program_and_command_is_one_of_the_english_page() -> None:
    """To the letter: the programs that are run there are those written here."""
    assert {language for language, _ in blocks("README.ko.md")} == {"bash", "python"}
    assert set(blocks("README.ko.md")) <= set(blocks("README.md"))


def test_words_and_times_are_those_of_the_code() -> None:
    """The words that a reader may write in a key, and how long an entry lives."""
    for word in (*TONES, *PACES, *INTENTS):
        assert word in TEXTS["README.ko.md"]
    for ttl_s in (keys.ROUTING_TTL_S, keys.RESPONSE_TTL_S, keys.PERSONAL_TTL_S):
        assert f"{ttl_s} s" in TEXTS["README.ko.md"]


@pytest.mark.parametrize("page", [*TEXTS, "docs/operations.md", "docs/how-to.md", "docs/coherence.md", "docs/glossary.md"])
def test_what_a_page_links_to_exists(page: str) -> None:
    """Files by path, places by heading."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", text)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / page).parent / path if path else ROOT / page
        assert found.exists(), f"{page}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


def test_each_page_names_the_other() -> None:
    """A reader who does not read the one finds the other."""
    assert "(README.ko.md)" in TEXTS["README.md"]
    assert "(README.md)" in TEXTS["README.ko.md"]
