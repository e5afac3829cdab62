"""The pipeline behind the cache over a real server: the same answers, fewer of them computed, none of them another user's."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import redis
from catalogue import FOUR, NAMES
from faults import Clock

from pipeline import keys
from pipeline.assembly import build_cache
from pipeline.cache import InvalidPatternError, LocalCache, RedisCache, TwoTierCache
from pipeline.errors import InvalidRequestError, TransientModelError
from pipeline.models import ChatContext, PersonaRequest, PersonaResponse
from pipeline.optimized import OptimizedPipeline
from pipeline.persona_pipeline import PersonaPipeline
from pipeline.personas import Catalog
from pipeline.prompts import Prompt
from pipeline.responders import CutShort
from pipeline.settings import load_settings

BOUND_S = 1.0
KEY = "frustrated-burst-seek_advice"  # Lua answers it
OTHER_KEY = "calm-medium-learning"  # Elro does


class CountingResponder:
    """Answers with the prompt's own text, so that an answer to another prompt shows; counts; fails when it is told to."""

    model = "counting"

    def __init__(self, fingerprint: str = "counting-1") -> None:
        self.fingerprint = fingerprint
        self.prompts: list[Prompt] = []
        self.failure: Exception | None = None
        self.before_answer: Callable[[], None] = lambda: None
        self.ending: type[str] = str

    def respond(self, prompt: Prompt) -> str:
        self.prompts.append(prompt)
        self.before_answer()
        if self.failure is not None:
            raise self.failure
        return self.ending(json.dumps([self.fingerprint, msgspec.to_builtins(prompt)]))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def responder() -> CountingResponder:
    return CountingResponder()


Make = Callable[..., OptimizedPipeline]


@pytest.fixture
def make(redis_url: str, namespace: str, clock: Clock, responder: CountingResponder) -> Iterator[Make]:
    """Makes a pipeline as another process would have it: its own L1, the same server, the same responder unless told."""
    made: list[OptimizedPipeline] = []

    def make_pipeline(catalog: Catalog | None = None, other: CountingResponder | None = None) -> OptimizedPipeline:
        l2 = RedisCache(url=redis_url, namespace=namespace, timeout_s=5.0)
        cache = TwoTierCache(
            LocalCache(1000, clock=clock), l2, clock=clock, staleness_bound_s=BOUND_S, max_ttl_s=keys.LONGEST_TTL_S
        )
        made.append(OptimizedPipeline(PersonaPipeline(catalog or FOUR, other or responder), cache))
        return made[-1]

    yield make_pipeline
    for pipeline in made:
        pipeline.clear_cache()
        pipeline.close()


@pytest.fixture
def here(make: Make) -> OptimizedPipeline:
    return make()


@pytest.fixture
def there(make: Make) -> OptimizedPipeline:
    return make()


def essence(response: PersonaResponse) -> PersonaResponse:
    """The response without what says how this call went."""
    return msgspec.structs.replace(response, cached="no", execution_time_ms=0.0, degraded=False)


CONTEXTS: list[dict[str, Any] | None] = [
    None,
    {"user_id": "u1"},
    {"user_id": "u1", "user_name": "Kim"},
    {"language": "ko"},
    {"history": [{"role": "user", "content": "hello"}]},
]


@pytest.mark.parametrize("context", CONTEXTS, ids=str)
@pytest.mark.parametrize("key", [KEY, OTHER_KEY, "curious-burst-planning"])
def test_answers_are_those_of_the_pipeline_without_a_cache(
    here: OptimizedPipeline, there: OptimizedPipeline, key: str, context: dict[str, Any] | None
) -> None:
    """Computed, from L1 and from L2: equal in every field, and of the same types."""
    expected = here.pipeline.process("How do I go on?", key, context)
    for pipeline, source in ((here, "no"), (here, "l1"), (there, "l2"), (there, "l1")):
        response = pipeline.process("How do I go on?", key, context)
        assert response.cached == source
        assert not response.degraded
        assert response.execution_time_ms >= 0
        assert repr(essence(response)) == repr(essence(expected))


def test_the_model_is_asked_once_for_requests_that_are_equal(
    here: OptimizedPipeline, there: OptimizedPipeline, responder: CountingResponder
) -> None:
    """Equal after normalisation: outer space, Unicode form and the key's spelling do not count."""
    for pipeline in (here, there, here, there):
        pipeline.process(" caf\u00e9 ", KEY)
        pipeline.process("cafe\u0301", "Frustrated-Burst-seeking_advice", {})
    assert len(responder.prompts) == 1


def test_without_use_cache_nothing_is_read_and_nothing_kept(
    here: OptimizedPipeline, client: redis.Redis, responder: CountingResponder, namespace: str
) -> None:
    """Neither of an answer nor of any stage before it."""
    for _ in range(2):
        assert here.process("hello", KEY, use_cache=False).cached == "no"
    assert len(responder.prompts) == 2
    assert len(here.cache.l1) == 0
    assert list(client.scan_iter(match=f"{namespace}:2:e:*")) == []
    here.process("hello", KEY)
    assert here.process("hello", KEY, use_cache=False).cached == "no"
    assert len(responder.prompts) == 4
    assert here.process("hello", KEY).cached == "l1"


USERS = [
    "u",
    "U",
    "u1",
    "u:1",
    "u%3A1",
    "u*",
    "*",
    "[u]",
    "u\\",
    "u.",
    "u-1",
    "\u00e9",
    "e\u0301",
    "a:b",
    "a",
    "b",
    "user:a",
    "한글",
    "info",
]


def test_users_who_differ_in_their_id_only_never_share_an_answer(here: OptimizedPipeline, there: OptimizedPipeline) -> None:
    """Not in either tier, whatever their ids look like; and no user without an id is served one of theirs."""
    here.process("hello", KEY)
    for user in USERS:
        assert here.process("hello", KEY, {"user_id": user}).cached == "no", user
    for user in USERS:
        assert there.process("hello", KEY, {"user_id": user}).cached == "l2", user
    assert there.process("hello", KEY, {"user_name": "u"}).cached == "no"
    assert there.process("hello", KEY).cached == "l2"


@pytest.mark.parametrize("user", USERS)
def test_an_invalidation_of_one_user_is_none_of_another(here: OptimizedPipeline, user: str) -> None:
    """`user_key` names one user, whatever the id looks like."""
    for each in USERS:
        here.process("hello", KEY, {"user_id": each})
    here.process("hello", KEY)
    here.invalidate(keys.user_key(user))
    missed = [each for each in USERS if here.process("hello", KEY, {"user_id": each}).cached == "no"]
    assert missed == [user]
    assert here.process("hello", KEY).cached == "l1"


RAW_IDS = [
    *("auth0|5f7c", "김민수", "José", "a b", "org/42", "tenant:7", "50%", "O'Neil", "a*", "a?", "[ab]", "a\\", "a\\*", "*", "**"),
    *(
        "%61",
        "a%3Ab",
        "=",
        "=" + "0" * 32,
        "1",
        "user:a",
        "a@b.c",
        "+1",
        "~",
        "#",
        "{a}",
        "a,b",
        "é",
        "e\u0301",
        "𝄞" * 128,
        "x" * 128,
    ),
]
OTHERS = ["a", "ab", "A", "u", "김", "김민", "Jose", "b", "x" * 127, "0"]


@pytest.mark.parametrize("user", RAW_IDS, ids=lambda user: user[:12])
def test_a_user_is_forgotten_by_the_id_that_the_request_had(
    here: OptimizedPipeline, there: OptimizedPipeline, clock: Clock, user: str
) -> None:
    """In both tiers, whatever characters the id has; and no other user is."""
    users = [user, *(each for each in OTHERS if each != user)]
    for each in users:
        here.process("hello", KEY, {"user_id": each})
        there.process("hello", KEY, {"user_id": each})
    assert there.invalidate_user(user).durable
    clock.tick(BOUND_S)
    for pipeline in (here, there):
        missed = [each for each in users if pipeline.process("hello", KEY, {"user_id": each}).cached == "no"]
        assert missed == ([user] if pipeline is here else [])


@pytest.mark.parametrize("user", RAW_IDS, ids=lambda user: user[:12])
def test_a_raw_id_in_a_pattern_means_that_user_or_is_refused(here: OptimizedPipeline, user: str) -> None:
    """It says `durable` only if it does something; an id that is written as another user's key means that one."""
    here.process("hello", KEY, {"user_id": user})
    if user in ("1", "a@b.c", "+1", "~", "x" * 128, "*"):
        here.invalidate(f"user:{user}")
        assert here.process("hello", KEY, {"user_id": user}).cached == "no"
    elif user in ("a%3Ab", "=" + "0" * 32):
        here.invalidate(f"user:{user}")  # the key of another
        assert here.process("hello", KEY, {"user_id": user}).cached == "l1"
    else:
        for call in (here.invalidate, here.invalidate_cache_pattern):
            with pytest.raises(InvalidPatternError, match=r"invalidate_user\(id\)"):
                call(f"user:{user}")
        assert here.process("hello", KEY, {"user_id": user}).cached == "l1"


@pytest.mark.parametrize("user", ["", " a", "a\n", "x" * 129, 7, None, b"a", "\ud800"], ids=lambda user: repr(user)[:9])
def test_an_id_that_no_request_can_name_is_refused(here: OptimizedPipeline, user: Any) -> None:
    """Nothing could depend on it."""
    with pytest.raises(InvalidRequestError, match="user_id"):
        here.invalidate_user("good", user)


@pytest.mark.parametrize("name", ["Lua", "lua", "LUA", " Lua "])
def test_a_persona_is_forgotten_by_its_name(here: OptimizedPipeline, name: str) -> None:
    """As answers show it: its info and answers, and values made of them; those of no other."""
    for key in (KEY, OTHER_KEY):
        here.process("hello", key)
    here.invalidate_persona(name)
    assert [here.process("hello", key).cached for key in (KEY, OTHER_KEY)] == ["no", "l1"]
    with pytest.raises(InvalidRequestError, match="Elro"):
        here.invalidate_persona("zoe")


@pytest.mark.parametrize(
    ("pattern", "nearest"),
    [("persona:Lua:*", "persona:lua:*"), ("Lua", "persona:lua:*"), ("weather:*", None), ("user:ann", None)],
)
def test_a_pattern_that_can_match_no_key_is_logged(
    here: OptimizedPipeline, caplog: pytest.LogCaptureFixture, pattern: str, nearest: str | None
) -> None:
    """With the nearest that can, unless it may be of the program's own."""
    here.invalidate(pattern)
    assert [nearest in record.getMessage() for record in caplog.records if nearest] == ([True] if nearest else [])
    assert bool(caplog.records) == bool(nearest)


def test_an_answer_that_the_model_did_not_end_is_given_and_not_kept(
    here: OptimizedPipeline, there: OptimizedPipeline, responder: CountingResponder
) -> None:
    """A filter took the rest: the next one to ask may be luckier. Nothing of it is in either tier."""
    responder.ending = CutShort
    for pipeline in (here, there, here):
        response = pipeline.process("hello", KEY)
        assert (response.cached, type(response.content)) == ("no", str)
        assert pipeline.process("hello", KEY, use_cache=False).cached == "no"
    assert len(responder.prompts) == 6
    responder.ending = str
    assert [here.process("hello", KEY).cached, there.process("hello", KEY).cached] == ["no", "l2"]


@pytest.mark.parametrize("user", ["가" * 128, "𝄞" * 128, "a" * 128, "%" * 128], ids=["hangul", "clefs", "ascii", "percent"])
def test_any_user_that_a_request_may_name_can_be_invalidated(here: OptimizedPipeline, user: str) -> None:
    """An id of the longest kind that is allowed, in any script."""
    here.process("hello", KEY, {"user_id": user})
    assert here.process("hello", KEY, {"user_id": user}).cached == "l1"
    here.invalidate(keys.user_key(user))
    assert here.process("hello", KEY, {"user_id": user}).cached == "no"


@pytest.mark.parametrize(
    ("context", "ttl_s"),
    [
        (None, 600),
        ({"language": "ko"}, 600),
        ({"user_id": "u1"}, 60),
        ({"user_name": "Kim"}, 60),
        ({"history": [{"role": "user", "content": "hi"}]}, 60),
    ],
    ids=str,
)
def test_a_personal_answer_lives_60_s_and_any_other_600_s(
    here: OptimizedPipeline, client: redis.Redis, context: dict[str, Any] | None, ttl_s: int
) -> None:
    """In Redis, less a jitter of a tenth at most; the stages before it an hour."""
    here.process("hello", KEY, context)
    shared = here.cache.l2
    assert shared is not None
    left_ms = {name: client.pttl(name) for name in client.scan_iter(match=shared.keys.entries_matching("*"))}
    answers = [name for name in left_ms if b":e:persona:" in name and not name.endswith(b":info")]
    assert len(answers) == 1
    assert len(left_ms) == 4
    for name, left in left_ms.items():
        expected_s = ttl_s if name in answers else 3600
        assert isinstance(left, int)
        assert expected_s * 900 - 5_000 < left <= expected_s * 1000, name


# -- invalidation

PATTERNS = {
    "routing:*": True,
    f"routing:{KEY}": True,
    f"routing:{OTHER_KEY}": False,
    "persona:lua:info": True,
    "persona:elro:info": False,
    "persona:lua:*": True,
    "persona:*": True,
    "prompt:lua:*": True,
    f"prompt:lua:{KEY}": True,
    "prompt:elro:*": False,
    "user:u1": True,
    "user:*": True,
    "user:u2": False,
    "user:u": False,
    "*": True,
    "nothing:*": False,
    "*:burst:*": False,
    "persona:lua:frustrated-*": True,
}


@pytest.mark.parametrize(("pattern", "meant"), PATTERNS.items())
def test_an_invalidation_reaches_the_answers_that_were_made_from_what_it_means(
    here: OptimizedPipeline, there: OptimizedPipeline, clock: Clock, pattern: str, *, meant: bool
) -> None:
    """In its own process and in L2 at once, in the L1 of others within the bound; answers of other origin stay."""
    context = {"user_id": "u1"}
    here.process("hello", KEY, context)
    there.process("hello", KEY, context)
    here.invalidate(pattern)
    clock.tick(BOUND_S)
    assert (there.process("hello", KEY, context).cached == "no") == meant
    assert (here.process("hello", KEY, context).cached == "no") == meant or meant


def test_an_answer_is_made_once_more_after_an_invalidation_elsewhere(
    here: OptimizedPipeline, there: OptimizedPipeline, clock: Clock, responder: CountingResponder
) -> None:
    """Once: the answer that is computed then is kept, and the next request is not made to pay again."""
    for pattern in ("routing:*", "persona:lua:info", "prompt:lua:*"):
        here.process("hello", KEY)
        here.process("hello", KEY)
        clock.tick(BOUND_S)
        there.invalidate(pattern)
        before = len(responder.prompts)
        assert here.process("hello", KEY).cached == "no"
        assert here.process("hello", KEY).cached != "no", pattern
        assert len(responder.prompts) == before + 1


def test_an_answer_in_the_making_is_not_kept_when_its_routing_is_invalidated(
    here: OptimizedPipeline, there: OptimizedPipeline, clock: Clock, responder: CountingResponder
) -> None:
    """The model is slow; knowledge from when it was asked may be out of date when it answers."""
    responder.before_answer = lambda: there.invalidate("routing:*") and None
    assert here.process("hello", KEY).cached == "no"
    responder.before_answer = lambda: None
    assert there.process("hello", KEY).cached == "no"
    there.invalidate(f"persona:lua:{KEY}:*")
    clock.tick(BOUND_S)
    assert here.process("hello", KEY).cached == "no"


def test_an_answer_built_on_a_routing_that_l1_still_held_does_not_pass_for_newer(
    here: OptimizedPipeline, there: OptimizedPipeline
) -> None:
    """Within the bound L1 may serve the old routing; the answer made from it was invalidated with it, and is not kept."""
    here.process("first", KEY)
    there.invalidate("routing:*")
    assert here.process("second", KEY).cached == "no"  # its routing came from L1; asking L2 for the answer advanced the view
    assert there.process("second", KEY).cached == "no"


def test_invalidate_cache_pattern_tells_how_many_keys_went(here: OptimizedPipeline) -> None:
    """And `clear_cache` takes the rest."""
    here.process("hello", KEY)
    here.process("hello", OTHER_KEY)
    assert here.invalidate_cache_pattern("routing:*") == 2
    assert here.invalidate_cache_pattern("routing:*") == 0
    assert here.process("hello", KEY).cached == "no"
    assert here.clear_cache() == 7  # one routing made anew; two infos, two templates, two answers
    assert here.clear_cache() == 0


# -- other releases


def edited(slug: str, **changes: Any) -> Catalog:
    """The catalog after an edit of one persona's file."""
    personas = []
    for persona in FOUR:
        if persona.slug == slug:
            info_changes = {name: value for name, value in changes.items() if name != "affinities"}
            info = msgspec.structs.replace(persona.info, version=persona.info.version[::-1], **info_changes)
            persona = msgspec.structs.replace(persona, info=info, affinities=changes.get("affinities", persona.affinities))  # noqa: PLW2901 - edited
        personas.append(persona)
    return Catalog(tuple(personas))


def test_a_release_with_an_edited_persona_serves_nothing_of_the_one_before(here: OptimizedPipeline, make: Make) -> None:
    """Both may run at once on one server: each gives its own answers, and says so in every field."""
    info = FOUR.get("lua").info
    after = make(edited("lua", prompts=msgspec.structs.replace(info.prompts, en="Be another.")))
    for _ in range(2):
        for pipeline in (here, after):
            assert essence(pipeline.process("hello", KEY)) == essence(pipeline.pipeline.process("hello", KEY))
    assert "Be another." in after.process("hello", KEY).content
    assert "Be another." not in here.process("hello", KEY).content


def test_a_release_with_another_losing_persona_serves_its_own_scores(here: OptimizedPipeline, make: Make) -> None:
    """`scores` and `confidence` shape the answer as well, and every persona of the catalog shapes them."""
    affinities = FOUR.get("riri").affinities
    lowered = msgspec.structs.replace(affinities, tone=tuple(share / 2 for share in affinities.tone))
    after = make(edited("riri", affinities=lowered))
    before = here.process("hello", KEY)
    expected = after.pipeline.process("hello", KEY)
    assert expected.persona == before.persona
    assert expected.scores != before.scores
    assert essence(after.process("hello", KEY)) == essence(expected)


def test_another_model_or_its_parameters_serve_nothing_of_the_one_before(here: OptimizedPipeline, make: Make) -> None:
    """The responder's fingerprint is part of the key."""
    after = make(other=CountingResponder("counting-2"))
    assert here.process("hello", KEY).cached == "no"
    response = after.process("hello", KEY)
    assert response.cached == "no"
    assert response.content.startswith('["counting-2"')
    assert here.process("hello", KEY).content.startswith('["counting-1"')


def test_a_persona_that_was_removed_answers_no_more(here: OptimizedPipeline, make: Make) -> None:
    """Not even for a key whose routing is still cached."""
    here.process("hello", KEY)
    after = make(Catalog(tuple(persona for persona in FOUR if persona.slug != "lua")))
    response = after.process("hello", KEY)
    assert response.persona != "Lua"
    assert essence(response) == essence(after.pipeline.process("hello", KEY))


# -- failures


def test_a_models_error_reaches_the_caller_and_is_not_kept(here: OptimizedPipeline, responder: CountingResponder) -> None:
    """The next request asks the model again."""
    responder.failure = TransientModelError("busy")
    for _ in range(2):
        with pytest.raises(TransientModelError, match="busy"):
            here.process("hello", KEY)
    responder.failure = None
    assert here.process("hello", KEY).cached == "no"
    assert len(responder.prompts) == 3


def test_bad_input_is_refused_before_the_cache_is_asked(here: OptimizedPipeline) -> None:
    """And counts as no request."""
    with pytest.raises(InvalidRequestError, match="resonance_key"):
        here.process("hello", "no-such-key")
    with pytest.raises(InvalidRequestError, match="user_input"):
        here.process("  ", KEY)
    assert here.get_cache_stats()["total_requests"] == 0


def test_answers_go_on_without_a_server(responder: CountingResponder) -> None:
    """L1 alone, and L1 with a server that is out of reach, which the response says."""
    pipeline = PersonaPipeline(FOUR, responder)
    for url, degraded in (("", False), ("redis://127.0.0.1:1/0", True)):
        cache = build_cache(load_settings({"PERSONA_CACHE_URL": url, "PERSONA_CACHE_TIMEOUT_S": "0.1"}))
        optimized = OptimizedPipeline(pipeline, cache)
        assert optimized.process("hello", KEY).cached == "no"
        response = optimized.process("hello", KEY)
        assert (response.cached, response.degraded) == ("l1", degraded)
        optimized.invalidate("routing:*")
        assert optimized.process("hello", KEY).cached == "no"
        optimized.close()


# -- figures

L1_NAMES = {"cache_type", "size", "max_size", "hits", "misses", "hit_rate"}
L2_NAMES = {"cache_type", "available", "memory_used", "connected_clients"}


def test_the_statistics_have_the_names_and_forms_that_dashboards_read(here: OptimizedPipeline) -> None:
    """Rates as '80.0%', means as '15.2', sizes as '12.5 MB'."""
    for number in (1, 1, 1, 1, 2, 1, 1, 1, 1, 1):
        here.process(f"hello {number}", KEY)
    stats = here.get_cache_stats()
    assert (stats["total_requests"], stats["cache_hits"], stats["cache_misses"]) == (10, 8, 2)
    assert stats["hit_rate"] == "80.0%"
    assert float(stats["avg_time_ms"]) >= 0
    assert len(stats["avg_time_ms"].partition(".")[2]) == 1
    assert stats["l1"].keys() >= L1_NAMES
    assert stats["l2"].keys() >= L2_NAMES
    assert stats["l1"]["cache_type"] == "L1 Local"
    assert stats["l2"]["cache_type"] == "L2 Redis"
    assert stats["l1"]["hit_rate"].endswith("%")
    assert stats["l2"]["memory_used"].endswith(" MB")
    assert stats["l2"]["available"] is True
    assert stats["l1"]["max_size"] == 1000
    json.dumps(stats)


def test_the_statistics_of_nothing_are_zeros() -> None:
    """Before the first request, and without a server: every name is there."""
    pipeline = OptimizedPipeline(PersonaPipeline(FOUR, CountingResponder()), TwoTierCache())
    stats = pipeline.get_cache_stats()
    assert (stats["total_requests"], stats["hit_rate"], stats["avg_time_ms"]) == (0, "0.0%", "0.0")
    assert stats["l1"].keys() >= L1_NAMES
    assert stats["l2"].keys() >= L2_NAMES


def test_the_settings_make_the_cache_that_they_describe() -> None:
    """An operator's settings are used."""
    cache = build_cache(load_settings({"PERSONA_L1_MAX_ENTRIES": "7"}))
    assert cache.l1.max_size == 7
    assert cache.l2 is None


def test_preloading_brings_every_persona_into_both_tiers(here: OptimizedPipeline, there: OptimizedPipeline) -> None:
    """How many there are is told; another process finds them in L2."""
    assert here.preload_common_personas() == len(NAMES)
    for persona in FOUR:
        found = there.cache.fetch(keys.info_key(persona.slug), lambda: pytest.fail("not there"))
        assert found.source == "l2"


def test_threads_share_one_pipeline(here: OptimizedPipeline) -> None:
    """Eight threads, each with its own users: every answer is its asker's, and the counts are exact."""
    wrong: list[str] = []

    def ask(thread: int) -> None:
        for number in range(40):
            user = f"user-{thread}-{number % 5}"
            response = here.process_request(PersonaRequest.create("hello", KEY, ChatContext(user_id=user, user_name=user)))
            if user not in response.content:
                wrong.append(user)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    stats = here.get_cache_stats()
    assert (stats["total_requests"], stats["cache_hits"], stats["cache_misses"]) == (320, 280, 40)
