"""Keys: requests that differ in anything that shapes an answer have different keys, and no id can reach into another id's key."""

from __future__ import annotations

import fnmatch
import string
from itertools import combinations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from pipeline import keys
from pipeline.cache.errors import InvalidPatternError
from pipeline.cache.keys import MAX_KEY_BYTES, KeySpace, check_key
from pipeline.cache.patterns.pattern import parse
from pipeline.errors import ConfigurationError
from pipeline.models import ChatContext, Message, PersonaRequest
from pipeline.settings import load_settings

KEY = "calm-medium-learning"


def request(user_input: str = "hello", key: str = KEY, **context: object) -> PersonaRequest:
    return PersonaRequest.create(user_input, key, dict(context) if context else None)


def response_key(made: PersonaRequest, slug: str = "elro", made_by: str = "release 1") -> str:
    return keys.response_key(slug, made, made_by)


NEAR_EQUAL = {
    "plain": request(),
    "upper case": request("Hello"),
    "inner space": request("hel lo"),
    "two spaces": request("hel  lo"),
    "zero-width": request("hel\u200blo"),
    "look-alike letter": request("hell\u043e"),
    "full width": request("\uff48ello"),
    "quoted": request('"hello"'),
    "json": request('hello","calm-medium-learning'),
    "another tone": request(key="curious-medium-learning"),
    "another pace": request(key="calm-burst-learning"),
    "another intent": request(key="calm-medium-planning"),
    "korean": request(language="ko"),
    "english": request(language="en"),
    "user a": request(user_id="a"),
    "user A": request(user_id="A"),
    "user a:b": request(user_id="a:b"),
    "user a, named b": request(user_id="a", user_name="b"),
    "user b, named a": request(user_id="b", user_name="a"),
    "named a": request(user_name="a"),
    "named ab": request(user_name="ab"),
    "user é, composed": request(user_id="\u00e9"),
    "user é, decomposed": request(user_id="e\u0301"),
    "user null": request(user_id="null"),
    "user None": request(user_id="None"),
    "user 1": request(user_id="1"),
    "user 01": request(user_id="01"),
    "history hi": request(history=[{"role": "user", "content": "hi"}]),
    "history hi by the assistant": request(history=[{"role": "assistant", "content": "hi"}]),
    "history hi hi": request(history=[{"role": "user", "content": "hi"}] * 2),
    "history hihi": request(history=[{"role": "user", "content": "hihi"}]),
    "history h, i": request(history=[{"role": "user", "content": "h"}, {"role": "user", "content": "i"}]),
    "user a, history hi": request(user_id="a", history=[{"role": "user", "content": "hi"}]),
}


def test_requests_that_are_nearly_equal_have_keys_that_are_not() -> None:
    """Case, forms of Unicode in ids, where a field ends, a missing field: each makes another key."""
    made = {name: response_key(each) for name, each in NEAR_EQUAL.items()}
    for (first, key), (second, other) in combinations(made.items(), 2):
        assert key != other, (first, second)


def test_the_persona_and_what_made_the_answer_are_in_the_key() -> None:
    """Another persona, another release: another key; and the border between them is part of it."""
    made = {response_key(request(), slug, made_by) for slug in ("elro", "lua") for made_by in ("r", "r2", "")}
    assert len(made) == 6


def test_requests_that_are_equal_have_one_key() -> None:
    """After normalisation: outer space, line ends, Unicode form of the input, the key's spelling, an empty context."""
    same = [
        PersonaRequest.create("caf\u00e9\nx", KEY),
        PersonaRequest.create("  cafe\u0301\r\nx ", " Calm-Medium-LEARNING "),
        PersonaRequest.create("caf\u00e9\rx", KEY, {}),
        PersonaRequest.create("caf\u00e9\nx", KEY, ChatContext()),
        PersonaRequest.create("caf\u00e9\nx", KEY, {"user_id": None, "history": []}, use_cache=False),
    ]
    assert len({response_key(each) for each in same}) == 1


def test_a_key_has_its_kind_its_persona_and_128_bits() -> None:
    """`persona:<slug>:<resonance>:<digest>`: what the patterns of the documentation mean."""
    kind, slug, resonance, digest = response_key(request()).split(":")
    assert (kind, slug, resonance) == ("persona", "elro", KEY)
    assert len(digest) == 32
    assert set(digest) <= set(string.hexdigits)
    assert parse("persona:elro:*").matcher()(response_key(request()))


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_no_text_of_an_input_or_an_id_runs_into_the_next_field(a: str, b: str, c: str, d: str) -> None:
    """Two requests share a key only if they are equal."""
    try:
        first = PersonaRequest.create(a, KEY, {"user_name": b})
        second = PersonaRequest.create(c, KEY, {"user_name": d})
    except ValueError:
        assume(False)
        return
    assert (response_key(first) == response_key(second)) == (first == second)


# -- users

IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(first=IDS, second=IDS)
def test_different_ids_have_different_user_keys(first: str, second: str) -> None:
    """Also ids that look alike, and ids that are written like another id's key."""
    assert (keys.user_key(first) == keys.user_key(second)) == (first == second)


@given(user=IDS)
def test_a_user_key_means_that_user_alone(user: str) -> None:
    """One segment without a wildcard: as a pattern it is the key itself."""
    key = keys.user_key(user)
    assert key.startswith("user:")
    assert ":" not in key.removeprefix("user:")
    assert not set(key) & set("*?[]\\^")
    assert key.isascii()
    assert parse(key).kind == "exact"
    assert parse(key).subject == key
    assert fnmatch.fnmatchcase(key, "user:*")


@pytest.mark.parametrize("letter", ["a", "%", "é", "가", "𝄞"])
def test_the_longest_id_has_a_user_key_that_can_be_invalidated(letter: str) -> None:
    """128 characters of any script."""
    made = request(user_id=letter * 128)
    assert made.context is not None
    assert parse(keys.user_key(letter * 128)).kind == "exact"
    assert check_key(keys.user_key(letter * 128))


def test_an_answer_depends_on_what_it_was_made_from() -> None:
    """Its routing, template and persona, and its user if it names one."""
    deps = keys.response_deps("elro", request(user_id="a:b"))
    assert deps == (f"routing:{KEY}", f"prompt:elro:{KEY}", "persona:elro:info", "user:a%3Ab")
    assert keys.response_deps("elro", request(user_name="x")) == deps[:3]


def test_a_personal_answer_lives_for_a_minute() -> None:
    """Whatever makes it personal; a language does not."""
    assert keys.response_kind(None).ttl == 600
    assert keys.response_kind(ChatContext(language="ko")).ttl == 600
    for context in (ChatContext(user_id="u"), ChatContext(user_name="n"), ChatContext(history=(Message("user", "x"),))):
        assert keys.response_kind(context).ttl == 60
    assert max(keys.ROUTING_TTL_S, keys.INFO_TTL_S, keys.TEMPLATE_TTL_S, keys.RESPONSE_TTL_S) <= keys.LONGEST_TTL_S


# -- names in Redis


@given(key=IDS, other=IDS)
def test_an_entrys_name_is_its_keys_alone(key: str, other: str) -> None:
    """Different keys have different names, none of which is one of the log's."""
    space = KeySpace("ns")
    assert (space.entry(key) == space.entry(other)) == (key == other)
    assert space.entry(key) not in (space.tail, space.records, space.marks, space.moments)


def test_namespaces_do_not_overlap() -> None:
    """Not even when one begins like another: every name of one is outside the other's sweep."""
    spaces = [KeySpace(name) for name in ("a", "a-b", "a.1", "ab", "b", "a:2", "a:2:e", "a%3A2", "{a", "a}", "é", "a b")]
    for first, second in combinations(spaces, 2):
        for space, foreign in ((first, second), (second, first)):
            sweep = parse(space.entries_matching("*").decode()).matcher()
            assert sweep(space.entry("k").decode())
            for name in (foreign.entry("k"), foreign.tail, foreign.records, foreign.marks, space.tail, space.records):
                assert not sweep(name.decode())


@given(namespace=IDS, key=IDS, other_namespace=IDS, other_key=IDS)
@example(namespace="a", key="2:e:k", other_namespace="a:2:e", other_key="k")
@example(namespace="a", key="2:e:k", other_namespace="a%3A2%3Ae", other_key="k")
def test_no_two_namespaces_name_one_entry(namespace: str, key: str, other_namespace: str, other_key: str) -> None:
    """Whatever stands in them: what one keeps the other neither reads nor sweeps. Nor does one move the log to another slot."""
    first, second = KeySpace(namespace), KeySpace(other_namespace)
    assert (first.entry(key) == second.entry(other_key)) == ((namespace, key) == (other_namespace, other_key))
    assert first.tail.count(b"{") == first.tail.count(b"}") == 1


@pytest.mark.parametrize("namespace", ["", "a:b", "a*", "{a}", "a b", "x" * 65, "é"])
def test_a_namespace_that_could_reach_into_another_is_refused_by_the_settings(namespace: str) -> None:
    """A `:` would make one a part of another, a brace would move the log to another slot."""
    with pytest.raises(ConfigurationError, match=r"PERSONA_CACHE_NAMESPACE"):
        load_settings({"PERSONA_CACHE_NAMESPACE": namespace})


@pytest.mark.parametrize(
    "key",
    ["", "k" * (MAX_KEY_BYTES + 1), "가" * (MAX_KEY_BYTES // 3 + 1), "\ud800", "ok\udfff", 7, None, b"k"],
    ids=lambda key: repr(key)[:12],
)
def test_what_cannot_be_a_key_is_refused(key: object) -> None:
    """Empty, too long in bytes, no Unicode, no text."""
    with pytest.raises(InvalidPatternError, match=r"^key: "):
        check_key(key)


@pytest.mark.parametrize(
    "key", ["k", "k" * MAX_KEY_BYTES, "가" * (MAX_KEY_BYTES // 3), "\x00", " ", "*", "a\nb"], ids=lambda key: repr(key)[:12]
)
def test_any_other_text_is_a_key(key: str) -> None:
    """Taken to the letter."""
    assert check_key(key) is key
