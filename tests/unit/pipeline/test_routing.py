"""Which persona answers which key: the figures for some by hand, the formula by its properties for all."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from catalogue import FOUR, NAMES
from hypothesis import given
from hypothesis import strategies as st

from pipeline.models import INTENTS, PACES, TONES, ResonanceKey
from pipeline.personas import Affinities, Catalog, Persona
from pipeline.routing import Router, Routing

KEYS = [ResonanceKey(*words) for words in itertools.product(TONES, PACES, INTENTS)]
KEY = ResonanceKey("calm", "medium", "learning")
SAMPLE = FOUR.get("lua")


def persona(name: str, tone: float, pace: float, intent: float) -> Persona:
    """A persona with one affinity for all tones, one for all paces, one for all intents."""
    affinities = Affinities((tone,) * len(TONES), (pace,) * len(PACES), (intent,) * len(INTENTS))
    return Persona(msgspec.structs.replace(SAMPLE.info, name=name, slug=name.lower()), 1, affinities)


@pytest.mark.parametrize(
    ("key", "scores", "confidence"),
    [
        # Lua 0.5*1.0 + 0.3*1.0 + 0.2*1.0; 0.3*(1.0 - 0.59) + 0.7*1.0
        ("frustrated-burst-seek_advice", {"Lua": 1.0, "Riri": 0.59, "Nana": 0.59, "Elro": 0.44}, 0.823),
        # Elro 0.5 + 0.3 + 0.2, Riri 0.5 + 0.3 + 0.18
        ("calm-medium-learning", {"Elro": 1.0, "Riri": 0.98, "Nana": 0.79, "Lua": 0.66}, 0.706),
        # Riri 0.5 + 0.3 + 0.2, Elro 0.5 + 0.21 + 0.14
        ("analytical-contemplative-validation", {"Riri": 1.0, "Elro": 0.85, "Nana": 0.67, "Lua": 0.58}, 0.745),
        # Nana 0.5 + 0.3 + 0.2, Riri 0.35 + 0.3 + 0.18
        ("collaborative-medium-planning", {"Nana": 1.0, "Riri": 0.83, "Elro": 0.71, "Lua": 0.64}, 0.751),
        # Nana 0.5 + 0.24 + 0.16, Lua 0.4 + 0.27 + 0.2; 0.3*(0.9 - 0.87) + 0.7*0.9
        ("confused-contemplative-seek_advice", {"Nana": 0.9, "Lua": 0.87, "Riri": 0.79, "Elro": 0.63}, 0.639),
        # a tie: Elro 0.5 + 0.12 + 0.16, Riri 0.45 + 0.15 + 0.18, Nana 0.4 + 0.18 + 0.2
        ("curious-burst-planning", {"Elro": 0.78, "Riri": 0.78, "Nana": 0.78, "Lua": 0.75}, 0.546),
    ],
)
def test_a_key_is_routed_by_hand_computed_figures(key: str, scores: dict[str, float], confidence: float) -> None:
    """Score = 0.5 tone + 0.3 pace + 0.2 intent; confidence = 0.3 (first - second) + 0.7 first."""
    routing = Router(FOUR).route(ResonanceKey.parse(key))
    assert [(score.persona, score.score) for score in routing.scores] == list(scores.items())
    assert routing.confidence == confidence
    assert routing.persona == next(iter(scores))
    assert routing.slug == routing.persona.lower()
    assert routing.resonance_key == key
    assert routing.catalog == FOUR.version


def test_every_key_names_all_personas_best_first() -> None:
    """Scores never rise along the list, and the first persona answers."""
    router = Router(FOUR)
    for key in KEYS:
        routing = router.route(key)
        assert sorted(score.persona for score in routing.scores) == sorted(NAMES)
        figures = [score.score for score in routing.scores]
        assert figures == sorted(figures, reverse=True)
        assert routing.persona == routing.scores[0].persona
        assert routing.confidence == pytest.approx(0.3 * (figures[0] - figures[1]) + 0.7 * figures[0], abs=1e-4)
        assert 0 <= routing.confidence <= 1


def test_every_tie_goes_to_the_one_that_comes_first() -> None:
    """Lua before Elro before Riri before Nana, wherever two scores are the same; and some keys do tie."""
    order = {persona.name: number for number, persona in enumerate(FOUR)}
    ties_for_the_first_place = 0
    for key in KEYS:
        scores = Router(FOUR).route(key).scores
        for one, other in itertools.pairwise(scores):
            if one.score == other.score:
                assert order[one.persona] < order[other.persona], key
        ties_for_the_first_place += scores[0].score == scores[1].score
    assert ties_for_the_first_place == 7


def test_a_tie_on_paper_is_a_tie_in_the_machine() -> None:
    """In binary 0.5*0.2 + 0.3*1.0 + 0.2*1.0 is above 0.5*0.6 + 0.3*0.6 + 0.2*0.6; on paper both are 0.6."""
    first, second = persona("First", 0.6, 0.6, 0.6), persona("Second", 0.2, 1.0, 1.0)
    assert 0.5 * 0.2 + 0.3 * 1.0 + 0.2 * 1.0 > 0.5 * 0.6 + 0.3 * 0.6 + 0.2 * 0.6
    assert Router(Catalog((first, second))).route(KEY).persona == "First"
    assert Router(Catalog((second, first))).route(KEY).persona == "Second"


def test_a_catalog_of_one_is_routed_with_no_second() -> None:
    """The second counts as 0: confidence is then the score itself."""
    routing = Router(Catalog((persona("Only", 0.6, 0.4, 0.1),))).route(KEY)
    assert (routing.persona, routing.confidence) == ("Only", 0.44)
    assert routing.reason == "Only is closest in tone 'calm', pace 'medium' and intent 'learning'."


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ((0.9, 0.9, 0.9), "Best is closest in tone 'calm', pace 'medium' and intent 'learning'."),
        ((0.0, 0.5, 1.0), "Best is closest in tone 'calm' and pace 'medium'."),
        ((0.0, 1.0, 1.0), "Best is closest in tone 'calm'."),
    ],
)
def test_the_reason_names_what_spoke_for_the_persona(others: tuple[float, float, float], reason: str) -> None:
    """Those parts of the key in which no persona is closer, and only those."""
    catalog = Catalog((persona("Best", 0.95, 0.95, 0.95), persona("Other", *others)))
    assert Router(catalog).route(KEY).reason == reason


def test_a_persona_may_win_without_being_closest_in_any_part() -> None:
    """Then the reason says so rather than naming a part."""
    catalog = Catalog((persona("A", 1.0, 0.0, 0.0), persona("B", 0.0, 1.0, 1.0), persona("Mid", 0.9, 0.9, 0.9)))
    routing = Router(catalog).route(KEY)
    assert routing.persona == "Mid"
    assert routing.reason == "Mid fits tone, pace and intent best taken together, though others are closer in each."


def test_figures_are_rounded_at_the_end_only() -> None:
    """Two scores that agree in four digits still have a better one."""
    catalog = Catalog((persona("Lower", 0.50001, 0.5, 0.5), persona("Higher", 0.50002, 0.5, 0.5)))
    routing = Router(catalog).route(KEY)
    assert routing.persona == "Higher"
    assert [score.score for score in routing.scores] == [0.5, 0.5]


SHARES = st.floats(0, 1)


@given(st.lists(st.tuples(SHARES, SHARES, SHARES), min_size=1, max_size=5))
def test_any_affinities_route_to_the_best_within_bounds(shares: list[tuple[float, float, float]]) -> None:
    """Scores and confidence stay within 0 and 1 and follow the formula, whatever the figures."""
    catalog = Catalog(tuple(persona(f"P{number}", *three) for number, three in enumerate(shares)))
    routing = Router(catalog).route(KEY)
    expected = sorted((0.5 * tone + 0.3 * pace + 0.2 * intent for tone, pace, intent in shares), reverse=True)
    assert [score.score for score in routing.scores] == pytest.approx(expected, abs=1e-4)
    second = expected[1] if len(expected) > 1 else 0.0
    assert routing.confidence == pytest.approx(0.3 * (expected[0] - second) + 0.7 * expected[0], abs=1e-4)
    assert 0 <= routing.confidence <= 1


def test_a_routing_survives_the_cache() -> None:
    """What JSON carries comes back equal and hashable."""
    for key in KEYS:
        routing = Router(FOUR).route(key)
        again = msgspec.json.decode(msgspec.json.encode(routing), type=Routing)
        assert again == routing
        assert hash(again) == hash(routing)
