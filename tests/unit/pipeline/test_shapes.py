"""Which patterns can match a key, told from how keys look, against the keys themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import keys
from pipeline.cache.errors import InvalidPatternError
from pipeline.cache.patterns.pattern import parse
from pipeline.models import RESONANCES, PersonaRequest
from pipeline.shapes import Shapes

SLUGS = ("lua", "elro", "riri", "nana")
KEY = "calm-medium-learning"
SHAPES = Shapes(SLUGS)

ANSWERS = [
    keys.response_key(slug, PersonaRequest.create("hello", resonance), "release") for slug in SLUGS for resonance in RESONANCES
]
ALL = [
    *map(keys.routing_key, RESONANCES),
    *map(keys.info_key, SLUGS),
    *(keys.template_key(slug, resonance) for slug in SLUGS for resonance in RESONANCES),
    *ANSWERS,
    *map(keys.user_key, ["ann", "a:b", "김민수", "x" * 500, "50%", "-"]),
]

pieces = st.sampled_from(
    [
        *"*?:-",
        "persona",
        "prompt",
        "routing",
        "user",
        "lua",
        "riri",
        "Riri",
        "calm",
        "medium",
        "learning",
        "info",
        "[a-f0-9]",
        "[^u]",
    ]
)


def test_every_key_can_be_matched_by_itself_and_by_its_prefixes() -> None:
    """No warning of a pattern that means something."""
    for key in ALL:
        assert SHAPES.can_match(key), key
        segments = key.split(":")
        for count in range(len(segments)):
            assert SHAPES.can_match(":".join((*segments[:count], "*"))), (key, count)


@given(pattern=st.lists(pieces, min_size=1, max_size=7).map("".join))
def test_a_pattern_that_matches_a_key_can(pattern: str) -> None:
    """Whatever the pattern: there is no false alarm."""
    matches = parse(pattern).matcher()
    if any(map(matches, ALL)):
        assert SHAPES.can_match(pattern)


@pytest.mark.parametrize(
    ("pattern", "nearest"),
    [
        ("persona:Riri:*", "persona:riri:*"),
        ("persona:RIRI:info", "persona:riri:info"),
        ("PERSONA:riri:*", "persona:riri:*"),
        ("persona:riri", "persona:riri:*"),
        ("persona:riri:", "persona:riri:*"),
        ("persona: riri:*", "persona:riri:*"),
        ("persona:rir:*", "persona:riri:*"),
        ("riri", "persona:riri:*"),
        ("Riri", "persona:riri:*"),
        ("riri:*", "persona:riri:*"),
        ("personas:riri:*", "persona:riri:*"),
        ("persona:1:e:persona:riri:*", "persona:riri:*"),
        ("persona", "persona:*"),
        ("persona:nova:*", "persona:*"),
        ("persona:Ri*", "persona:ri*"),
        ("persona:lua:Info", "persona:lua:info"),
        (f"persona:lua:{KEY}", f"persona:lua:{KEY}:*"),
        (f"persona:lua:{KEY.title()}:*", f"persona:lua:{KEY}:*"),
        ("prompt:lua", "prompt:lua:*"),
        ("prompt:lua:info", "prompt:lua:*"),
        ("routing:calm", "routing:calm-*"),
        ("routing:Calm-Medium-seeking-advice", "routing:calm-medium-seek_advice"),
        ("routing:calm-medium-leaning", f"routing:{KEY}"),
        (KEY, f"routing:{KEY}"),
        ("user", "user:*"),
        ("User:Ann", "user:Ann"),
        ("users:ann", "user:ann"),
        ("xyz", None),
        ("weather:*", None),
    ],
)
def test_a_pattern_that_no_key_can_match_is_told_with_the_nearest_that_one_can(pattern: str, nearest: str | None) -> None:
    """Names as answers show them, kinds without what follows, names as Redis has them, slips of the pen."""
    unmatched = SHAPES.unmatched(pattern)
    assert unmatched is not None
    assert unmatched.nearest == nearest
    assert repr(pattern) in unmatched.message
    assert nearest is None or repr(nearest) in unmatched.message
    if nearest is not None:
        assert SHAPES.can_match(nearest)


@pytest.mark.parametrize(("pattern", "foreign"), [("weather:*", True), ("weather:seoul", True), ("w*", True), ("riri", False),
                                                  ("persona:Riri:*", False), ("xyz", False)])  # fmt: skip
def test_a_pattern_of_the_programs_own_is_not_called_a_mistake(pattern: str, *, foreign: bool) -> None:
    """A cached function's entries have a prefix of their own."""
    unmatched = SHAPES.unmatched(pattern)
    assert unmatched is not None
    assert unmatched.foreign == foreign
    assert ("your own code" in unmatched.message) == foreign


def test_a_hostile_pattern_is_judged_in_bounded_steps() -> None:
    """Any program that may invalidate may send it."""
    for pattern in ("*a" * 250, "?*" * 250, "[a-z]*" * 80, "*" * 500, "a" * 500):
        SHAPES.can_match(pattern)


# -- within `user:`


@pytest.mark.parametrize(
    "pattern",
    [
        "user:*",
        "user:ann",
        "user:A",
        "user:a%3Ab",
        "user:%EA%B9%80",
        "user:a@b.c",
        "user:a-b_c.d~e+f",
        "user:=" + "0" * 32,
        "us*",
        "*",
    ],
)
def test_a_pattern_that_a_users_key_can_match_is_taken(pattern: str) -> None:
    """A key as it is written, all users, and wider patterns."""
    assert keys.check_pattern(pattern) == pattern


@pytest.mark.parametrize(
    "written",
    [
        *("auth0|5f7c", "김민수", "José", "a b", "org/42", "tenant:7", "50%", "O'Neil", "a,b", "a\nb", "#1", "a&b", '"a"', "<a>"),
        *("{a}", "a;b", "$a", "(a)", "!", "", "%61", "%7c", "%FF", "%0A", "=", "a=b", "x" * 129),
        *("a*", "a?", "[ab]", "a\\*", "a\\", "x:*", "**", "*x", "[", "𝄞" * 128),
    ],
)
def test_a_raw_id_within_user_is_refused_with_the_way_to_write_it(written: str) -> None:
    """It would match no user's key, or those of all users whose id begins so."""
    with pytest.raises(InvalidPatternError, match=r"invalidate_user\(id\).*--user"):
        keys.check_pattern(f"user:{written}")
