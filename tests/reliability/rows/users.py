"""Users whose ids look alike: nobody is served another one's answer, and no name is where names do not belong."""

from __future__ import annotations

import itertools
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

import redis
from fleet import Fleet, captured_events

from benchmarks.kit.endpoint import Messages
from pipeline.models import PersonaRequest
from reliability.checkers import Told, leaked
from reliability.result import Result, Row, Say

QUESTION: Final = "What do I do next?"
KEY: Final = "calm-flowing-planning"
BATCH: Final = 50
_ALIKE: Final = (
    *("{}", "{}:", ":{}", "{}*", "*{}", "{}\\", "\\{}", "{}?", "[{}]", "{}:info", "%3A{}", "{}%00", "user {}", "user  {}"),
    *("é{}", unicodedata.normalize("NFD", "é{}"), "Ｕ{}", "U{}", "u{}", "ß{}", "ss{}", "İ{}", "i̇{}"),
    *("{}" + "x" * 120, "{}" + "x" * 119 + "y", "{}" + "가" * 120, "{}" + "가" * 119 + "나"),
)


def look_alikes(count: int) -> list[str]:
    """So many ids; each differs from others by a case, a form, a sign that patterns or keys know, or its last character."""

    def made() -> Iterator[str]:
        for number in itertools.count():
            for form in _ALIKE:
                yield form.format(number // 3)

    found = dict.fromkeys(itertools.islice(made(), 4 * count))
    return list(found)[:count]


def users(trials: int, say: Say) -> Result:
    """Each asks the same question twice, by a task and by a program with a cache of its own."""
    ids = look_alikes(trials)
    names = {user: f"Canary{number:05}Q" for number, user in enumerate(ids)}
    numbers = itertools.count(1)

    def answer(messages: Messages) -> str:
        text = " ".join(str(message["content"]) for message in messages)
        found = [name for name in names.values() if name in text]
        return f"{' '.join(found)} call {next(numbers)}."

    with Fleet(nodes=2, concurrency=2, environ={"PERSONA_DOOR": "true"}) as fleet:
        fleet.endpoint.answer = answer
        told: list[Told] = []
        with captured_events(fleet.app) as events:
            for turn in range(2):
                for start in range(0, len(ids), BATCH):
                    batch = ids[start : start + BATCH]
                    requests = [
                        PersonaRequest.create(QUESTION, KEY, {"user_id": user, "user_name": names[user]}) for user in batch
                    ]
                    told += [Told(user, each.content) for user, each in zip(batch, fleet.plain(*requests), strict=True)]
                    if turn:
                        told += [
                            Told(user, fleet.client.submit_request(request).result(30).content)
                            for user, request in zip(batch, requests, strict=True)
                        ]
                    if start % 250 == 0:
                        say(f"users: {start} of {len(ids)}, turn {turn + 1}")
        bad = leaked(told, names)
        shared = _shared(told)
        places = {
            "keys": "\n".join(_keys(fleet)),
            "logs": fleet.logs(),
            "events": "\n".join(map(str, events)),
        }
        seen = {place: sum(name in text for name in names.values()) for place, text in places.items()}
        problems = [f"{count} names are in {place}" for place, count in seen.items() if count]
        problems += [f"{shared} answers were given to two users"] if shared else []
        return Result(
            len(ids),
            len(told),
            wrong=len(bad) + shared,
            more={f"in_{place}": n for place, n in seen.items()},
            problems=tuple(problems),
        )


def _shared(told: Sequence[Told]) -> int:
    """Answers of one call of the model that two users have."""
    owners: dict[str, set[str]] = defaultdict(set)
    for each in told:
        owners[each.text.rpartition("call ")[2]].add(each.owner)
    return sum(len(found) > 1 for found in owners.values())


def _keys(fleet: Fleet) -> Iterator[str]:
    for url in (fleet.broker.url, fleet.broker.url_of(1), fleet.cache.url):
        with redis.Redis.from_url(url) as client:
            yield from (name.decode(errors="replace") for name in client.scan_iter(count=1000))


ROWS: Final = (Row("users", (21,), "users with ids that look alike ask the same question", users, trials=1000),)
