"""Which requests are allowed, and the errors of those that are not."""

from __future__ import annotations

import itertools
import json
import unicodedata
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InvalidRequestError
from pipeline.models import (
    INTENTS,
    MAX_AGE_S,
    MAX_INPUT_CHARS,
    MAX_MESSAGES,
    MAX_NAME_CHARS,
    MAX_USER_ID_CHARS,
    PACES,
    TONES,
    ChatContext,
    Message,
    PersonaRequest,
    PersonaResponse,
    PersonaScore,
    ResonanceKey,
    Source,
)

KEY = "calm-medium-learning"
MESSAGE = {"role": "user", "content": "hello"}
WIRE: dict[Any, Any] = {"user_input": "hello", "resonance_key": KEY}


def refusal(user_input: object = "hello", resonance_key: object = KEY, **others: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        PersonaRequest.create(user_input, resonance_key, **others)
    return caught.value


def test_each_of_the_216_keys_is_read_back_from_its_text() -> None:
    """`parse` and `str` are inverse on every key there is."""
    keys = {ResonanceKey(*words) for words in itertools.product(TONES, PACES, INTENTS)}
    assert len(keys) == 9 * 4 * 6
    for key in keys:
        assert ResonanceKey.parse(str(key)) == key


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("calm-medium-seeking_advice", "calm-medium-seek_advice"),
        ("calm-medium-seeking-advice", "calm-medium-seek_advice"),
        ("calm-medium-seek-advice", "calm-medium-seek_advice"),
        ("urgent-burst-problem-solving", "urgent-burst-problem_solving"),
        ("Calm-MEDIUM-Learning", "calm-medium-learning"),
        ("  calm-medium-learning\n", "calm-medium-learning"),
    ],
)
def test_a_key_may_be_spelled_otherwise(text: str, meant: str) -> None:
    """Every spelling ends as one canonical key, so that it shares one cache entry."""
    assert PersonaRequest.create("hello", text) == PersonaRequest.create("hello", meant)
    assert PersonaRequest.create("hello", text).resonance_key == meant


@pytest.mark.parametrize(
    ("key", "parts_of_the_message"),
    [
        ("bored-medium-learning", ("unknown tone 'bored'", *TONES)),
        ("calm-slow-learning", ("unknown pace 'slow'", *PACES)),
        ("calm-medium-gossip", ("unknown intent 'gossip'", *INTENTS)),
        ("calm-medium-", ("unknown intent ''", *INTENTS)),
        ("calm-medium-learning-now", ("unknown intent 'learning_now'", "4 parts, expected 3")),
        ("calm-medium", ("'calm-medium' has 2 part(s)", "expected 3", "tone-pace-intent")),
        ("", ("'' has 1 part(s)", "tone-pace-intent")),
        (None, ("expected text, got null", "tone-pace-intent")),
        (7, ("expected text, got a number", "tone-pace-intent")),
        (["calm"], ("expected text, got a list", "tone-pace-intent")),
    ],
)
def test_a_bad_key_is_refused_with_its_part_and_the_words_allowed(key: object, parts_of_the_message: tuple[str]) -> None:
    """The message names the field, the given value and the allowed ones."""
    error = refusal(resonance_key=key)
    assert error.field == "resonance_key"
    for part in parts_of_the_message:
        assert part in error.problem


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; expected 1 to 8000 characters"),
        (" \n\t ", "is empty; expected 1 to 8000 characters"),
        ("a" * (MAX_INPUT_CHARS + 1), "has 8001 characters; allowed are 1 to 8000"),
        ("half \ud83d a pair", "a lone surrogate at character 5"),
        (None, "expected text, got null"),
        (True, "expected text, got true/false"),
        (b"bytes", "expected text, got bytes"),
        ({"text": "hello"}, "expected text, got an object"),
    ],
)
def test_a_bad_input_is_refused(text: object, said: str) -> None:
    """An input is text of 1 to 8000 characters that UTF-8 can carry."""
    error = refusal(user_input=text)
    assert error.field == "user_input"
    assert said in error.problem


def test_the_longest_input_is_accepted() -> None:
    """The bound itself is allowed, and outer white space does not count against it."""
    assert len(PersonaRequest.create(" " + "a" * MAX_INPUT_CHARS + "\n", KEY).user_input) == MAX_INPUT_CHARS


def history(*messages: object) -> dict[str, object]:
    return {"history": list(messages)}


@pytest.mark.parametrize(
    ("context", "field", "said"),
    [
        ("someone", "context", "expected an object with user_id, user_name, language, history, got text"),
        ([MESSAGE], "context", "got a list"),
        ({"user": "u1"}, "context.user", "unknown field; allowed are user_id, user_name, language, history"),
        ({"language": "fr"}, "context.language", "'fr'; allowed are 'en' and 'ko'"),
        ({"language": ["en"]}, "context.language", "['en']; allowed are 'en' and 'ko'"),
        ({"user_id": 5}, "context.user_id", "expected text, got a number"),
        ({"user_id": ""}, "context.user_id", "'': expected 1 to 128 printable characters"),
        ({"user_id": " u1"}, "context.user_id", "' u1': expected 1 to 128 printable characters, no outer space"),
        ({"user_id": "u\n1"}, "context.user_id", r"'u\n1': expected"),
        ({"user_id": "u\ud800"}, "context.user_id", r"'u\ud800': expected"),
        ({"user_id": "u" * (MAX_USER_ID_CHARS + 1)}, "context.user_id", "expected 1 to 128"),
        ({"user_name": " "}, "context.user_name", "is empty; expected 1 to 80 characters"),
        ({"user_name": "n" * (MAX_NAME_CHARS + 1)}, "context.user_name", "has 81 characters; allowed are 1 to 80"),
        ({"history": MESSAGE}, "context.history", "expected a list of messages, got an object"),
        (history("hello"), "context.history[0]", "expected an object with role, content, got text"),
        (history(MESSAGE, {"content": "x"}), "context.history[1].role", "None; allowed are 'user' and 'assistant'"),
        (history({"role": "system", "content": "x"}), "context.history[0].role", "'system'; allowed are"),
        (history({"role": "user"}), "context.history[0].content", "expected text, got null"),
        (history({"role": "user", "content": ""}), "context.history[0].content", "is empty; expected 1 to 8000"),
        (history({**MESSAGE, "at": 1}), "context.history[0].at", "unknown field; allowed are role, content"),
        (history(*[MESSAGE] * (MAX_MESSAGES + 1)), "context.history", "has 51 messages; allowed are up to 50"),
        (
            history(*[{**MESSAGE, "content": "x" * 8000}] * 15),
            "context.history",
            "has 120000 characters; allowed are up to 119995",
        ),
    ],
)
def test_a_bad_context_is_refused_with_the_path_of_the_field(context: Any, field: str, said: str) -> None:
    """The path leads to the very field, within history too."""
    error = refusal(context=context)
    assert error.field == field
    assert said in error.problem
    assert str(error) == f"{field}: {error.problem}"


def test_a_context_made_in_python_is_judged_like_one_that_travelled() -> None:
    """Building the struct by hand is no way around validation, and never another kind of error."""
    assert refusal(context=ChatContext(user_id=object())).field == "context.user_id"  # type: ignore[arg-type] # on purpose
    assert refusal(context=ChatContext(history=(Message("user", " "),))).field == "context.history[0].content"
    assert refusal(context={"history": [Message("user", " ")]}).field == "context.history[0].content"


def test_the_fullest_context_is_accepted() -> None:
    """The bounds themselves are allowed."""
    context = {
        "user_id": "u" * MAX_USER_ID_CHARS,
        "user_name": "n" * MAX_NAME_CHARS,
        "language": "ko",
        "history": [MESSAGE] * MAX_MESSAGES,
    }
    made = PersonaRequest.create("hello", KEY, context).context
    assert made is not None
    assert len(made.history) == MAX_MESSAGES
    assert made.is_personal


@pytest.mark.parametrize("age", [0, 0.5, 60, MAX_AGE_S, None])
def test_an_age_travels_as_it_was_given(age: float | None) -> None:
    """Zero is a limit and None is none: the one must not become the other on its way."""
    request = PersonaRequest.create("hello", KEY, max_age_s=age)
    assert request.max_age_s == age
    assert PersonaRequest.from_wire(request.to_wire()) == request
    assert ("max_age_s" in request.to_wire()) == (age is not None)


@pytest.mark.parametrize(
    "age", ["60", True, [], -1, -0.001, MAX_AGE_S + 1, float("nan"), float("inf"), pytest.param(10**5000, id="huge")]
)
def test_an_age_is_seconds_from_zero_to_a_week(age: Any) -> None:
    """A limit that cannot hold is refused, rather than taken for one that was not meant."""
    error = refusal(max_age_s=age)
    assert error.field == "max_age_s"
    assert "expected" in str(error)


@pytest.mark.parametrize("flag", [1, "yes", None])
def test_use_cache_is_true_or_false_and_nothing_else(flag: Any) -> None:
    """A text like 'false' would otherwise count as true."""
    error = refusal(use_cache=flag)
    assert error.field == "use_cache"
    assert "expected true or false" in error.problem


@pytest.mark.parametrize(
    ("context", "personal"),
    [
        ({"user_id": "u1"}, True),
        ({"user_name": "Min"}, True),
        ({"history": [MESSAGE]}, True),
        ({"language": "ko"}, False),
    ],
)
def test_only_a_language_leaves_a_context_impersonal(context: dict[str, Any], personal: bool) -> None:
    """What belongs to one user or conversation is told apart, as it is cached apart."""
    made = PersonaRequest.create("hello", KEY, context).context
    assert made is not None
    assert made.is_personal is personal


@pytest.mark.parametrize("context", [None, {}, {"history": []}, ChatContext(), {"user_id": None}])
def test_a_context_that_says_nothing_is_no_context(context: Any) -> None:
    """Else one question would have several cache keys."""
    assert PersonaRequest.create("hello", KEY, context) == PersonaRequest.create("hello", KEY)


@pytest.mark.parametrize(
    ("given_text", "kept"),
    [
        (unicodedata.normalize("NFD", "안녕하세요 é"), "안녕하세요 é"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("\n  hello \t", "hello"),
        ("a  b", "a  b"),
    ],
)
def test_an_input_is_normalised(given_text: str, kept: str) -> None:
    """Unicode form, line ends and outer space make no difference; inner space does."""
    request = PersonaRequest.create(given_text, KEY)
    assert request.user_input == kept
    assert request == PersonaRequest.create(kept, KEY)


def test_a_user_id_is_kept_to_the_letter() -> None:
    """Two ids that only look alike are two users: no normalisation may let one read the other's answers."""
    composed, decomposed = "us\u00e9r", unicodedata.normalize("NFD", "us\u00e9r")
    one, other = (PersonaRequest.create("hello", KEY, {"user_id": user}) for user in (composed, decomposed))
    assert one != other


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60).filter(lambda text: bool(text.strip()))
IDS = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=MAX_USER_ID_CHARS)
CONTEXTS = st.fixed_dictionaries(
    {},
    optional={
        "user_id": IDS,
        # NFC may make three characters of one.
        "user_name": st.text(st.characters(codec="utf-8"), max_size=MAX_NAME_CHARS // 3).filter(lambda t: bool(t.strip())),
        "language": st.sampled_from(["en", "ko"]),
        "history": st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": TEXT}), max_size=4),
    },
)
REQUESTS = st.builds(
    PersonaRequest.create,
    TEXT,
    st.builds("-".join, st.tuples(st.sampled_from(TONES), st.sampled_from(PACES), st.sampled_from(INTENTS))),
    CONTEXTS,
    st.booleans(),
)


# The first draw builds tables of all Unicode: slow on a busy machine, and no fault of the property.
@given(REQUESTS)
def test_a_request_survives_the_wire(request_: PersonaRequest) -> None:
    """`from_wire(to_wire(x)) == x`, also after real JSON: normalising twice is normalising once."""
    assert PersonaRequest.from_wire(request_.to_wire()) == request_
    assert PersonaRequest.from_wire(json.loads(json.dumps(request_.to_wire()))) == request_
    assert PersonaRequest.from_wire(msgspec.json.decode(msgspec.json.encode(request_))) == request_
    assert hash(PersonaRequest.from_wire(request_.to_wire())) == hash(request_)


@pytest.mark.parametrize(
    ("wire", "kind"), [(None, "null"), ("hello", "text"), ([1], "a list"), (3, "a number"), (True, "true/false")]
)
def test_a_request_that_is_no_object_is_refused(wire: object, kind: str) -> None:
    """Whatever a producer may send, the answer is one clear error."""
    with pytest.raises(InvalidRequestError) as caught:
        PersonaRequest.from_wire(wire)
    assert str(caught.value) == (
        f"request: expected an object with user_input, resonance_key, context, use_cache, max_age_s, got {kind}"
    )


@pytest.mark.parametrize("name", ["user_input", "resonance_key"])
def test_a_request_without_a_needed_field_is_refused(name: str) -> None:
    """The message names the field that is missing and those there are."""
    wire = {field: value for field, value in WIRE.items() if field != name}
    with pytest.raises(InvalidRequestError, match=f"^{name}: missing; a request has user_input, resonance_key"):
        PersonaRequest.from_wire(wire)


def test_an_unknown_field_is_refused_rather_than_ignored() -> None:
    """A misspelled `use_cahce` must not silently mean its default."""
    with pytest.raises(InvalidRequestError, match=r"^use_cahce: unknown field; allowed are user_input") as caught:
        PersonaRequest.from_wire({**WIRE, "use_cahce": False})
    assert caught.value.field == "use_cahce"


@pytest.mark.parametrize("name", ["a\nlog line of its own", "\ud800", "x" * 10_000, 5])
def test_an_unknown_field_is_named_in_short_and_printable(name: Any) -> None:
    """The name is a stranger's text: it may neither forge log lines, nor break the terminal, nor fill the log."""
    wires = [
        ({**WIRE, name: 1}, ""),
        ({**WIRE, "context": {name: 1}}, "context."),
        ({**WIRE, "context": {"history": [{**MESSAGE, name: 1}]}}, "context.history[0]."),
    ]
    for wire, path in wires:
        with pytest.raises(InvalidRequestError) as caught:
            PersonaRequest.from_wire(wire)
        message = str(caught.value)
        assert message.startswith(path)
        assert message.isprintable()
        assert len(message) < 300


def test_an_error_survives_a_result_backend_as_text() -> None:
    """Celery rebuilds an exception from its `args`: field and message must be the same then."""
    error = refusal(context={"language": "fr"})
    rebuilt = InvalidRequestError(*error.args)
    assert (rebuilt.field, rebuilt.problem, str(rebuilt)) == (error.field, error.problem, str(error))


@pytest.mark.parametrize("source", get_args(Source))
def test_a_response_says_in_an_if_whether_it_was_a_hit(source: Source) -> None:
    """`cached` is a text, true whatever it says: `hit` is what a program asks, and nothing of it goes over the wire."""
    response = PersonaResponse("안녕", "Lua", 0.8, "Lua is closest.", KEY, (), "ko", "prompt", cached=source)
    assert response.hit is (source != "no")
    assert response.source == source
    assert set(response.to_wire()) == set(PersonaResponse.__struct_fields__)
    assert {"hit", "source"} & set(response.to_wire()) == set()


def test_a_response_survives_the_wire() -> None:
    """The response in a task's result is read back as the very same response."""
    response = PersonaResponse(
        content="안녕",
        persona="Lua",
        confidence=0.823,
        reason="Lua is closest.",
        resonance_key=KEY,
        scores=(PersonaScore("Lua", 1.0), PersonaScore("Nana", 0.5)),
        language="ko",
        model="prompt",
        cached="l2",
        execution_time_ms=1.25,
        degraded=True,
    )
    assert PersonaResponse.from_wire(json.loads(json.dumps(response.to_wire()))) == response
