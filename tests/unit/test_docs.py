"""The pages name files, modules' places and commands that are there: a reader who follows one does not end in nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))
    if path.name != "CHANGELOG.md"  # it tells what was, under the names of then
)
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
TOPS = ("pipeline", "workers", "benchmarks", "tests", "docs", "deploy", "requirements")

PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(TOPS)})/[\w./*-]*[\w*/]")
"""What is written as a path from the root: `pipeline/keys.py`, `workers/queue/`, `tests/unit/test_*.py`."""
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


FIGURES = (
    ("coherence", "stock_reached", 1, "**2 of 6**"),
    ("coherence", "stock_p50_ms", 0.001, "6 s"),
    ("coherence", "reached", 1, "**6 of 6**"),
    ("coherence", "p50_ms", 1, "4.0 ms"),
    ("coherence", "p99_ms", 1, "7.0 ms"),
    ("coherence", "invalidate_1m_ms", 1, "0.7 ms"),
    ("submit", "plain_per_s", 1, "1,132/s"),
    ("submit", "l2_per_s", 1, "8,346/s"),
    ("submit", "l1_per_s", 1, "145,392/s"),
    ("queue", "bare_per_s", 1, "940/s"),
    ("queue", "persona_hit_per_s", 1, "22,037/s"),
    ("queue", "celery_hit_per_s", 1, "845/s"),
    ("queue", "dramatiq_hit_per_s", 1, "2,637/s"),
    ("queue", "rq_hit_per_s", 1, "105/s"),
    ("queue", "hit_p50_ms", 1, "1.4 ms"),
    ("queue", "celery_hit_p50_ms", 1, "2.8 ms"),
    ("queue", "dramatiq_hit_p50_ms", 1, "4.6 ms"),
    ("queue", "rq_hit_p50_ms", 1, "13 ms"),
    ("tiers", "l1_hit_ns", 1, "192 ns"),
    ("tiers", "l2_hit_us", 1, "88 µs"),
    ("tiers", "redis_get_us", 1, "100 µs"),
    ("tiers", "dogpile_hit_1kb_us", 1, "108 µs"),
    ("tiers", "cashews_hit_1kb_us", 1, "125 µs"),
    ("tiers", "l2_set_us", 1, "249 µs"),
    ("tiers", "redis_set_us", 1, "122 µs"),
    ("tiers", "dogpile_set_us", 1, "126 µs"),
    ("tiers", "cashews_set_us", 1, "161 µs"),
    ("dashboard", "p99_ms", 1, "0.3 ms"),
    ("dashboard", "lost", 1, "no request is lost"),
    ("stampede", "model_calls", 1, "1 model call"),
    ("deaths", "lost", 1, "**0** of 29,089 in 100 kills"),
    ("deaths", "sent", 1, "29,089 in 100 kills"),
    ("deaths", "returned_max_s", 1, "11 s at most"),
    ("deaths", "stock_lost", 1, "3 of 4,615 in 15 kills"),
    ("deaths", "stock_returned_max_s", 1, "182 s"),
)
"""Which benchmark gives a figure of README, docs/migration.md or docs/faq.md, under which name, times what, and the words."""
QUOTING = {page: (ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/migration.md", "docs/faq.md")}
SPREAD = 0.25
"""A later run may differ by so much: then the words are as true as the run that they were taken from."""


def paths_named(text: str) -> set[str]:
    """Those in the prose, in tables and in diagrams; of links only the words, since their targets go from the page."""
    return {path.rstrip("/.") for path in PATH.findall(LINK.sub("]", text))}


def is_there(path: str) -> bool:
    return any(True for _ in ROOT.glob(path)) if "*" in path else (ROOT / path).exists()


def tree() -> list[str]:
    """Every path of the tree that the page draws: two blanks a level, a room ends in a slash."""
    (drawn,) = [block for block in FENCE.findall(ARCHITECTURE) if block.startswith("celeryconfig.py")]
    found, above = [], [""]
    for line in drawn.splitlines():
        match = re.match(r"((?:  )*)(\S+)(?:  +\S|$)", line)
        assert match is not None, line
        depth = len(match[1]) // 2
        assert depth < len(above), f"{line}: stands in no room"
        path = above[depth] + match[2]
        above[depth + 1 :] = [path] if path.endswith("/") else []
        found.append(path.rstrip("/"))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_a_path_that_a_page_names_is_there(page: str) -> None:
    """From the root of the repository, whatever the page's own place."""
    missing = {path for path in paths_named((ROOT / page).read_text(encoding="utf-8")) if not is_there(path)}
    assert missing == set()


@pytest.mark.parametrize("page", PAGES)
def test_a_link_of_a_page_leads_somewhere(page: str) -> None:
    """Files by their place beside the page, headings by their words."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in LINK.findall(FENCE.sub("", text)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / page).parent / path if path else ROOT / page
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


def test_the_drawn_tree_is_there() -> None:
    """Each room and each file of it."""
    assert [path for path in tree() if not (ROOT / path).exists()] == []


def test_the_drawn_tree_leaves_out_no_room() -> None:
    """Of what is written by hand. Modules may be left out: a benchmark or a command is one file, and no line here."""
    rooms = {
        path.parent.relative_to(ROOT).as_posix()
        for top in ("pipeline", "workers", "benchmarks")
        for pattern in ("*.py", "*.lua", "*.toml", "*.html", "*.js")
        for path in (ROOT / top).rglob(pattern)
    }
    assert rooms - set(tree()) == set()
    tests = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "tests").glob("*/*.py")}
    assert tests - set(tree()) == set()


def test_the_walks_and_the_table_name_files() -> None:
    """Else the tests above would hold of a page that names none."""
    assert len(paths_named(ARCHITECTURE)) > 40
    assert {"pipeline/keys.py", "workers/client/client.py"} <= paths_named(ARCHITECTURE)
    assert len(tree()) > 50


@pytest.mark.parametrize("wrong", ["pipeline/nowhere.py", "`workers/client/gone/`", "see tests/unit/test_none_*.py."])
def test_a_wrong_path_is_found(wrong: str) -> None:
    """Shown on a line of its own: the rule sees what it is there for."""
    assert [is_there(path) for path in paths_named(f"| a | {wrong} |")] == [False]


@pytest.mark.parametrize(("bench", "figure", "factor", "words"), FIGURES)
def test_a_figure_that_a_page_quotes_is_the_benchmarks(bench: str, figure: str, factor: float, words: str) -> None:
    """Of the run that docs/benchmarks.md shows. When one fails after a new run, the pages are to be brought up to date."""
    assert any(words in text for text in QUOTING.values()), f"{words}: quoted nowhere"
    measured = (
        json.loads((ROOT / "docs" / "benchmarks" / f"{bench}.json").read_text(encoding="utf-8"))["figures"][figure] * factor
    )
    said = re.search(r"\d[\d,.]*", words)
    assert measured == pytest.approx(float(said[0].replace(",", "")) if said else 0, rel=SPREAD)


def test_every_figure_that_a_page_quotes_is_held_here() -> None:
    """With its unit; a setting's default is no figure of a run."""
    quoted = {match for text in QUOTING.values() for match in re.findall(r"\d[\d,.]*(?:/s| ns| µs)", text)}
    assert quoted - {words.strip("*") for *_, words in FIGURES} == set()


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/benchmarks.md"])
def test_a_page_says_what_acts(page: str) -> None:
    """A program, a task or a caller is "it" or "they", and a sentence has a subject: no "Who asks waits"."""
    prose = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    assert re.findall(r"\b(?:[Hh]e|[Hh]im|[Hh]is|[Hh]imself)\b", prose) == []
    assert re.findall(r"(?:^|[.;:] )[Ww]ho(?:ever)? \w+[^?\n]*$", prose, re.MULTILINE) == []
