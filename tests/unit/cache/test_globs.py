"""Many globs at once: an index that must never hide one that means the key, and a bound on what asking may cost."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.cache.coherence.tail import Page, Tail
from pipeline.cache.coherence.view import InvalidationView
from pipeline.cache.entry import AsOf
from pipeline.cache.errors import InvalidPatternError
from pipeline.cache.patterns import globs as module
from pipeline.cache.patterns.globs import MAX_IN_A_PLACE, Globs
from pipeline.cache.patterns.pattern import Pattern, glob_expression, glob_matcher, parse

TEXTS = st.text("ab:*?[]^\\-", min_size=1, max_size=10)
KEYS = st.text("ab:*?[]-", min_size=1, max_size=10)


def glob(text: str) -> Pattern | None:
    try:
        pattern = parse(text)
    except InvalidPatternError:
        return None
    return pattern if pattern.kind == "glob" else None


@given(texts=st.lists(TEXTS, max_size=6), key=KEYS)
@example(texts=["a:*:b"], key="a:b")
@example(texts=["a:*:b"], key="a::b")
@example(texts=["*:b"], key=":b")
@example(texts=["a\\:*b"], key="a:b")
@example(texts=["a[:]b*"], key="a:b:c")
@example(texts=["a[^:-:]*:b"], key="a:b")
@example(texts=["a*b"], key="a:b")
def test_the_index_finds_every_glob_that_means_the_key(texts: list[str], key: str) -> None:
    """As a walk over all of them would, whatever their first and last segments are."""
    known = Globs()
    expected = False
    for text in texts:
        if glob(text) is not None:
            known.note(text, 5)
            expected = expected or glob_expression(text).match(key) is not None
    assert known.mean(key, 4) == expected
    assert not known.mean(key, 5)


@given(text=TEXTS, key=KEYS)
@example(text="a*a", key="a")
@example(text="ab*ba", key="aba")
@example(text="*a*ab", key="aab")
@example(text="**", key="a")
def test_a_matcher_means_what_the_expression_does(text: str, key: str) -> None:
    """Literals between `*` are found without an expression."""
    if glob(text) is not None:
        assert glob_matcher(text)(key) == (glob_expression(text).match(key) is not None)


def test_a_renewed_glob_counts_by_its_newer_seq() -> None:
    """And takes no second place."""
    known = Globs()
    for seq in (3, 9, 6):
        known.note("a*:b", seq)
    assert known.mean("a1:b", 8)
    assert not known.mean("a1:b", 9)
    assert not known.newer_than(9)
    assert known.newer_than(8).mean("ab:b", 0)


@pytest.mark.parametrize("text", ["*{}*", "a:*{}*", "*{}:b", "a:{}*:b"])
def test_many_globs_cost_old_entries_and_not_the_time_of_every_reader(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place remembers a bounded number. An entry that is older than the forgotten ones is a miss; one that is younger is judged
    as ever."""
    view = InvalidationView()
    view.apply(Page(Tail("e", 0, 0), 0, [], restart=True), 0.0)
    count = 3 * MAX_IN_A_PLACE
    for first in range(0, count, 500):
        records = [(text.format(number), number + 1) for number in range(first, first + 500)]
        view.apply(Page(Tail("e", first + 500, 0), first, records, restart=False), 0.0)
    floor = view.tail.floor
    assert count - MAX_IN_A_PLACE <= floor < count
    assert not view.valid(AsOf("e", floor - 1), "a:other:b", ())
    assert view.valid(AsOf("e", floor), "a:other:b", ())
    last = text.format(count - 1).replace("*", "x")
    assert not view.valid(AsOf("e", count - 1), last, ())
    asked = []
    monkeypatch.setattr(module._Glob, "matches", lambda glob, _: asked.append(glob) is not None)
    view.valid(AsOf("e", floor), "a:other:b", ())
    assert len(asked) <= MAX_IN_A_PLACE


def test_globs_of_other_segments_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of one shape cost a key of another nothing."""
    known = Globs()
    for number in range(5_000):
        known.note(f"session:*:user-{number}", number + 1)
    asked: list[str] = []
    matches = module._Glob.matches
    monkeypatch.setattr(module._Glob, "matches", lambda glob, key: asked.append(glob.text) or matches(glob, key))
    assert not known.mean("persona:lua:calm", 0)
    assert asked == []
    assert known.mean("session:x:user-7", 0)
    assert asked == ["session:*:user-7"]
