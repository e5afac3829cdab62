"""A pattern means the same here as to the server, which removes by its own `SCAN MATCH` the entries that L1 drops by ours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import ValkeyServer

from pipeline.cache.errors import InvalidPatternError
from pipeline.cache.keys import KeySpace
from pipeline.cache.patterns.pattern import escape, parse

# Few letters, so that patterns and keys meet; every character that is special to Redis, to fnmatch or to re.
LETTERS = "ab:-!^]"
SPECIAL = "*?[\\"

literal = st.sampled_from([*LETTERS, ".", "+", "\\*", "\\?", "\\[", "\\]", "\\\\", "\\a", "\\^", "\\-"])
member = st.sampled_from(["a", "b", "c", ":", "!", "^", "*", "?", "[", ".", "&", "~", "|", "\\]", "\\\\", "\\-", "\\^", "\\a"])
span = st.sampled_from(["a-c", "c-a", "0-9", "b-b", "!-b", "a-b"])
bracket = st.builds(
    lambda negated, parts: f"[{negated}{''.join(parts)}]",
    st.sampled_from(["", "^"]),
    st.lists(st.one_of(member, span), min_size=1, max_size=3).filter(lambda parts: parts[0][0] != "^"),
)
patterns = st.lists(st.one_of(literal, st.sampled_from(["*", "?", "**", "a*", "a:*"]), bracket), min_size=1, max_size=6).map(
    "".join
)
keys = st.text(LETTERS + SPECIAL + "c5.+&~|", min_size=1, max_size=6)


@pytest.fixture(scope="module")
def client() -> Iterator[redis.Redis]:
    """Of a server of this module's own, which is emptied for each example."""
    with ValkeyServer() as server, server.client() as client:
        yield client


@pytest.fixture(scope="module")
def space() -> KeySpace:
    return KeySpace("agree[men]t*")


def agree(client: redis.Redis, space: KeySpace, pattern: str, names: set[str]) -> None:
    """Ask the server for those of `names` that match, and compare."""
    client.flushdb()
    client.mset({space.entry(name): 1 for name in names})
    matches = parse(pattern).matcher()
    theirs = set(client.scan_iter(match=space.entries_matching(pattern), count=1000))
    ours = {space.entry(name) for name in names if matches(name)}
    assert ours == theirs, pattern


@given(pattern=patterns, names=st.sets(keys, min_size=1, max_size=25))
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_server_matches_what_we_match(client: redis.Redis, space: KeySpace, pattern: str, names: set[str]) -> None:
    """For every well-formed ASCII pattern and every key, also under a namespace that looks like a pattern."""
    agree(client, space, pattern, names)


@pytest.mark.parametrize(
    "pattern",
    [
        "[!a]",
        "[!a-b]x",
        "[^!a]",
        "[a\\]b]",
        "[\\]]",
        "[^\\]]",
        "[c-a]",
        "[^c-a]",
        "[a\\-c]",
        "[\\^a]",
        "[\\\\]",
        "[a-c-e]",
        "[-a]",
        "a\\",
        "\\",
        "**",
        "*\\",
        "[a]*",
        "[[]",
        "[*]",
        "[a&&b]",
        "[a||b]",
        "[--a]",
        "[a~~b]",
    ],
)
def test_the_server_matches_what_we_match_in_the_corners(client: redis.Redis, space: KeySpace, pattern: str) -> None:
    """Where Redis's language differs from the shell's, and from the one of regular expressions."""
    names = {
        "a",
        "b",
        "c",
        "d",
        "e",
        "x",
        "!",
        "^",
        "-",
        "]",
        "\\",
        "[",
        "*",
        "&",
        "|",
        "~",
        "ax",
        "cx",
        "!x",
        "ab",
        "a]",
        "b]",
        "]b]",
        "a\\",
        "*\\",
        "-a",
        "\\]",
    }
    agree(client, space, pattern, names)


@pytest.mark.parametrize("pattern", ["[]", "[^]", "[]a]", "[a-]", "[a-", "[a", "[^", "[", "a[", "[a\\", "[a\\]", "[^a-]b"])
def test_what_we_do_not_match_as_the_server_does_is_refused(client: redis.Redis, space: KeySpace, pattern: str) -> None:
    """A class that is empty, open or ends with a dash is a mistake more often than a wish: refused, or else taken alike."""
    try:
        parse(pattern)
    except InvalidPatternError:
        return
    agree(client, space, pattern, {"a", "b", "]", "-", "^", "a]", "[", "ab", "b]", "[]", "xb", "_", "^]"})


@given(key=keys)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_escaped_key_is_that_key_to_the_server_too(client: redis.Redis, space: KeySpace, key: str) -> None:
    """Alone among its neighbours."""
    names = {key, key + "a", "a" + key, key.replace("*", "a"), key.replace("?", "b"), key.replace("\\", "")} - {""}
    agree(client, space, escape(key), names)
