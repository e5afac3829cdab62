"""The sample requests: valid, varied, and repeating as real traffic does."""

from __future__ import annotations

import itertools
import json
from collections import Counter

from catalogue import NAMES

from pipeline.models import PersonaRequest
from pipeline.personas import Catalog, load_catalog
from pipeline.prompts import language_of
from pipeline.routing import Router
from workers.cli.demo.samples import EXAMPLES

LINES = EXAMPLES.read_text(encoding="utf-8").splitlines()
REQUESTS = [PersonaRequest.from_wire(json.loads(line)) for line in LINES]
PERSONAL = [request for request in REQUESTS if request.context is not None and request.context.is_personal]
SHARED = [request for request in REQUESTS if request not in PERSONAL]


def test_there_are_enough_and_each_is_one_object_a_line() -> None:
    """The demonstration's figures need some traffic; a blank line would be no request."""
    assert len(REQUESTS) >= 72


def test_both_languages_are_asked() -> None:
    """About three in five are English."""
    languages = Counter(map(language_of, REQUESTS))
    assert 0.5 <= languages["en"] / len(REQUESTS) <= 0.7
    assert languages["ko"] >= 20


def test_shared_requests_repeat_and_some_much_more_than_others() -> None:
    """A cache shows its worth on repeats: 26 to 30 distinct ones, the most frequent a tenth of all, many only once."""
    counts = Counter(SHARED)
    assert 26 <= len(counts) <= 30
    assert counts.most_common(1)[0][1] >= len(SHARED) / 10
    assert sum(count == 1 for count in counts.values()) >= 8


def test_repeats_are_interleaved() -> None:
    """A request's repeats lie among others: hardly any follows itself."""
    assert sum(one == other for one, other in itertools.pairwise(REQUESTS)) <= 4


def test_some_belong_to_a_user() -> None:
    """A few users, with name and history, some asking again; one asks what others ask and must not share their answer."""
    assert 6 <= len(PERSONAL) <= 8
    assert 2 <= len({request.context.user_id for request in PERSONAL if request.context}) <= 3
    assert len(set(PERSONAL)) < len(PERSONAL)
    assert any(request.context.history for request in PERSONAL if request.context)
    assert {request.user_input for request in PERSONAL} & {request.user_input for request in SHARED}


def test_every_persona_answers_some_and_the_keys_vary() -> None:
    """None of the four personas that the samples were written for is left out."""
    catalog = Catalog(tuple(persona for persona in load_catalog() if persona.name in NAMES))
    answered = Counter(Router(catalog).route(request.resonance).persona for request in REQUESTS)
    assert set(answered) == set(NAMES)
    assert min(answered.values()) >= 5
    assert len({request.resonance_key for request in REQUESTS}) >= 12
