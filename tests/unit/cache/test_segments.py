"""Keys and patterns of data: a key written on the way in is matched on the way out, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import key_of, pattern_for
from pipeline.cache.errors import InvalidPatternError
from pipeline.cache.keys import check_key
from pipeline.cache.patterns.pattern import parse
from pipeline.cache.patterns.segments import data_of

DATA = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text("*?[]\\:%=^ab\n 가", max_size=12)
PARTS = st.lists(DATA, max_size=3)


@given(first=PARTS, second=PARTS)
def test_different_parts_have_different_keys(first: list[str], second: list[str]) -> None:
    """Wherever one part ends and the next begins."""
    assert (key_of("p", *first) == key_of("p", *second)) == (first == second)


@given(parts=PARTS)
def test_a_key_as_a_pattern_means_itself_and_nothing_else(parts: list[str]) -> None:
    """It holds no wildcard, so that its invalidation invalidates that one alone."""
    key = key_of("p", *parts)
    assert check_key(key) == key
    assert (parse(key).kind, parse(key).subject) == ("exact", key)
    assert pattern_for("p", *parts) == key


@given(parts=st.lists(DATA, min_size=1, max_size=2), other=st.lists(DATA, min_size=1, max_size=2), rest=PARTS.filter(bool))
def test_a_pattern_for_all_of_one_means_that_one(parts: list[str], other: list[str], rest: list[str]) -> None:
    """Whatever follows, of the same beginning; and no key of another, also of one that begins with it or looks like a pattern."""
    pattern = parse(pattern_for("p", *parts, ...))
    assert pattern.kind == "prefix"
    assert pattern.matcher()(key_of("p", *parts, *rest))
    assert pattern.matcher()(key_of("p", *other, "x")) == ([*other, "x"][: len(parts)] == parts and len(other) >= len(parts))


@given(data=DATA)
def test_a_segment_tells_the_data_it_stands_for(data: str) -> None:
    """Each segment stands for one, and what no data is written as stands for none."""
    segment = key_of("p", data).removeprefix("p:")
    assert data_of(segment) == (segment if segment.startswith("=") else data)


@pytest.mark.parametrize("segment", ["a b", "a|b", "%7c", "%", "%FF", "a:b", "a*", "é", "=", "=12", "a=b", "%61", "a/b", "O'N"])
def test_what_no_data_is_written_as_stands_for_none(segment: str) -> None:
    """Raw data, or another spelling of data that is written otherwise."""
    assert data_of(segment) is None


def test_long_data_stands_as_its_digest() -> None:
    """The key stays one, and another for other data, also where they differ at their end only."""
    sizes = (22, 23, 48, 49, 100, 200, 201, 5_000)
    alone = [key_of("p", letter * size) for letter in "x가" for size in sizes]
    of_two = [key_of("p", letter * size, "") for letter in "x가" for size in sizes]
    of_five = [key_of("p", letter * size, *["z" * 48] * 4) for letter in "x가" for size in sizes]
    assert len({*alone, *of_two, *of_five}) == 48
    for size in sizes:
        assert parse(pattern_for("p", "x" * size, ...)).matcher()(key_of("p", "x" * size, "", "y"))
        assert parse(pattern_for("p", ..., "x" * size)).matcher()(key_of("p", "y", "x" * size))


@pytest.mark.parametrize("part", [7, None, b"k", True, 1.5, ["k"], "\ud800"], ids=repr)
def test_a_part_that_is_no_text_is_refused_by_its_place(part: Any) -> None:
    """7 and "7" would be one key."""
    for make in (key_of, pattern_for):
        with pytest.raises(InvalidPatternError, match=r"^part 2: "):
            make("p", "first", part)


@pytest.mark.parametrize(
    "prefix", ["", "a*", "a?", "[a]", "a\\", "\ud800", "x" * 257, 7, None], ids=lambda prefix: repr(prefix)[:9]
)
def test_a_prefix_that_could_not_be_invalidated_is_refused(prefix: Any) -> None:
    """Nothing in a key may mean another one."""
    for make in (key_of, pattern_for):
        with pytest.raises(InvalidPatternError, match=r"^prefix: "):
            make(prefix, "a")


def test_a_key_that_is_too_long_as_a_whole_is_refused() -> None:
    """Of more parts than a key has room for."""
    with pytest.raises(InvalidPatternError, match=r"^key: has"):
        key_of("p", *["x" * 48] * 6)


def test_a_key_has_no_wildcard() -> None:
    """`...` is for patterns."""
    with pytest.raises(InvalidPatternError, match=r"^part 1: "):
        key_of("p", ...)  # type: ignore[arg-type]  # that is the point


def test_a_wildcard_before_the_end_is_a_glob() -> None:
    """Explicit, and never one of the data's."""
    matches = parse(pattern_for("rate", ..., "a*")).matcher()
    assert matches(key_of("rate", "eur", "a*"))
    assert not matches(key_of("rate", "eur", "ab"))
