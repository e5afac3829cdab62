"""Patterns against a matcher so simple that it is seen to be right."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.cache.coherence.records import Records
from pipeline.cache.errors import CacheError, InvalidPatternError
from pipeline.cache.patterns.pattern import MAX_PATTERN_BYTES, escape, parse


def naive(pattern: str, key: str) -> bool:
    """Redis's glob, a character at a time, by trying everything."""
    if not pattern:
        return not key
    head, rest = pattern[0], pattern[1:]
    if head == "*":
        return any(naive(rest, key[at:]) for at in range(len(key) + 1))
    if not key:
        return False
    if head == "?":
        return naive(rest, key[1:])
    if head == "[":
        matched, rest = naive_class(rest, key[0])
        return matched and naive(rest, key[1:])
    if head == "\\" and rest:
        head, rest = rest[0], rest[1:]
    return head == key[0] and naive(rest, key[1:])


def naive_class(rest: str, char: str) -> tuple[bool, str]:
    """Whether the class whose inside begins `rest` has the character, and what follows the class."""
    negated = rest.startswith("^")
    at = 1 if negated else 0
    found = False
    while rest[at] != "]":
        if rest[at] == "\\":
            found |= rest[at + 1] == char
            at += 2
        elif rest[at + 1] == "-":
            low, high = sorted((rest[at], rest[at + 2]))
            found |= low <= char <= high
            at += 3
        else:
            found |= rest[at] == char
            at += 1
    return found != negated, rest[at + 1 :]


LETTERS = "ab:é한𝄞-!^]\n."
literal = st.sampled_from([*LETTERS, "\\*", "\\?", "\\[", "\\]", "\\\\", "\\a", "\\한"])
member = st.sampled_from(["a", "b", ":", "!", "^", "*", "?", "[", "é", "한", "\n", ".", "\\]", "\\\\", "\\-", "\\^", "\\a"])
span = st.sampled_from(["a-c", "c-a", "가-힣", "b-b", "!-b"])
bracket = st.builds(
    lambda negated, parts: f"[{negated}{''.join(parts)}]",
    st.sampled_from(["", "^"]),
    st.lists(st.one_of(member, span), min_size=1, max_size=3).filter(lambda parts: parts[0][0] != "^"),
)
patterns = st.lists(st.one_of(literal, st.sampled_from(["*", "?", "**", "a:*", ":"]), bracket), min_size=1, max_size=6).map(
    "".join
)
keys = st.text(LETTERS + "*?[\\c", min_size=1, max_size=6)


@given(pattern=patterns, key=keys)
@example(pattern="[!a]", key="!")
@example(pattern="[!a]", key="b")
@example(pattern="[a\\]b]", key="b")
@example(pattern="[c-a]", key="b")
@example(pattern="a\\", key="a\\")
@example(pattern="a*", key="a\n")
@example(pattern="a", key="a\n")
@example(pattern="[^a]", key="\n")
def test_a_pattern_means_what_the_simple_matcher_says(pattern: str, key: str) -> None:
    """Of every kind, in the walk over many keys and in the view's look-up of one key alike."""
    expected = naive(pattern, key)
    assert parse(pattern).matcher()(key) == expected
    records = Records()
    assert records.note(pattern, 7)
    assert records.mean(key, 6) == expected
    assert not records.mean(key, 7)


@given(key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_an_escaped_key_matches_itself_and_nothing_else(key: str) -> None:
    """Whatever stands in it; and it is looked up, not walked for."""
    pattern = parse(escape(key))
    assert (pattern.kind, pattern.subject) == ("exact", key)
    assert pattern.matcher()(key)
    for other in (key + "x", "x" + key, key[:-1], key.replace("*", "y"), key.replace("\\", "")):
        assert pattern.matcher()(other) == (other == key)


@pytest.mark.parametrize(
    ("text", "kind", "subject"),
    [
        ("a", "exact", "a"),
        ("a:b", "exact", "a:b"),
        ("]", "exact", "]"),
        ("a\\*", "exact", "a*"),
        ("a\\", "exact", "a\\"),
        ("*", "prefix", ""),
        ("a:*", "prefix", "a:"),
        ("a:b:*", "prefix", "a:b:"),
        ("a\\*:*", "prefix", "a*:"),
        (":*", "prefix", ":"),
        ("a*", "glob", "a*"),
        ("a:*:b", "glob", "a:*:b"),
        ("a:**", "glob", "a:**"),
        ("*:a", "glob", "*:a"),
        ("a?", "glob", "a?"),
        ("[a]", "glob", "[a]"),
        ("a:\\**", "glob", "a:\\**"),
    ],
)
def test_a_pattern_is_classed_by_what_it_costs(text: str, kind: str, subject: str) -> None:
    """A dict look-up for a key and for a prefix at a segment's end; an expression for the rest."""
    pattern = parse(text)
    assert (pattern.text, pattern.kind, pattern.subject) == (text, kind, subject)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"),
        ("x" * (MAX_PATTERN_BYTES + 1), "bytes"),
        ("한" * (MAX_PATTERN_BYTES // 3 + 1), "bytes"),
        ("\ud800", "Unicode"),
        ("[", r"'\['"),
        ("a[b", r"'\['"),
        ("[^", r"'\['"),
        ("[a\\]", r"'\['"),
        ("a:[b:*", r"'\['"),
        (None, "NoneType"),
        (7, "int"),
        (b"a", "bytes"),
        (["a"], "list"),
        ({"a": 1}, "dict"),
    ],
    ids=lambda value: repr(value)[:16],
)
def test_what_cannot_be_a_pattern_is_refused_by_name(text: Any, problem: str) -> None:
    """One error of the cache's own that names the fault; a ValueError to code that knows no better."""
    with pytest.raises(InvalidPatternError, match=f"^pattern: .*{problem}") as caught:
        parse(text)
    assert isinstance(caught.value, CacheError)
    assert isinstance(caught.value, ValueError)


def test_the_longest_pattern_is_allowed() -> None:
    """Bytes count, not characters."""
    assert parse("x" * MAX_PATTERN_BYTES).kind == "exact"
    assert parse("한" * (MAX_PATTERN_BYTES // 3)).kind == "exact"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "hostile",
    [
        "a*" * 120,
        "*a" * 120,
        "?*" * 120 + "b",
        "*?" * 120 + "b",
        "[ab]*" * 100 + "c",
        "*" * 500,
        "*" * 500 + "b",
        "a*" * 120 + "b",
        "(a*)*" * 50,
    ],
    ids=lambda text: text[:6],
)
@pytest.mark.parametrize("key", ["a" * 1024, "a" * 1023 + "b", "ab" * 512, "(" * 1024])
def test_a_hostile_pattern_is_judged_in_bounded_time(hostile: str, key: str) -> None:
    """Any program that may invalidate may send it; a matcher that goes back over the key would take years."""
    matches = parse(hostile).matcher()
    for _ in range(3):
        matches(key)


@pytest.mark.parametrize("key", ["a", "a:", "a:b", "a::b", ":a", "::", "a:b:c:d:e:f"])
def test_a_prefix_is_found_at_every_segment_of_a_key(key: str) -> None:
    """The view looks each of them up; it must find the same as a walk does."""
    for prefix in ("", ":", "a:", "a::", "a:b:", "b:", "a:b:c:"):
        records = Records()
        records.note(escape(prefix) + "*", 3)
        assert records.mean(key, 2) == key.startswith(prefix), prefix
