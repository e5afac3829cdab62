"""`explain` on the page: what is known of a key or of a task. Reads alone, and never tells what a user wrote, was answered, or is
called."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec
from flower.views import BaseHandler
from tornado.web import HTTPError, authenticated

from pipeline.cache.errors import InvalidPatternError, SharedTierUnavailableError
from pipeline.cache.keys import check_key
from pipeline.errors import ConfigurationError
from pipeline.figures.records import shown_patterns
from pipeline.keys import deps_of
from pipeline.personas import catalog_from
from pipeline.settings import Settings
from workers.dashboard.acting.handlers import as_sentence
from workers.explain.key import account_of_key
from workers.explain.task import account_of_task
from workers.explain.unknown import NothingKnownError
from workers.queue.errors import NoRedisError, QueueUnavailableError
from workers.queue.factory import PersonaApp, make_app
from workers.queue.reach import bound_waits

BOUND_S: Final = 15.0
WAITING: Final = 8
"""So many questions may wait for the one that is answered."""
MAX_TASK_CHARS: Final = 256
NEITHER: Final = "This is neither a key, which has a ':' in it, nor a task's id."


class RefusedError(Exception):
    """Its text says why there is no account."""


class Explaining:
    """Accounts of keys and tasks, one after another in a thread of its own. Of one event loop."""

    def __init__(self, settings: Settings) -> None:
        """Connects at the first question."""
        self._settings = settings
        self._app: PersonaApp | None = None
        self._slugs: frozenset[str] | None = None
        self._asked = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explaining")

    async def account(self, subject: str) -> dict[str, Any]:
        """The document. Raises RefusedError, with a sentence."""
        if self._asked >= WAITING:
            raise RefusedError("Others ask for so much just now: ask again in a moment.")
        self._asked += 1
        try:
            work = asyncio.get_running_loop().run_in_executor(self._thread, self._account, subject)
            return await asyncio.wait_for(work, BOUND_S)
        except TimeoutError:
            raise RefusedError("The servers have not answered in time.") from None
        except NothingKnownError as error:
            raise RefusedError(f"{error.kind.capitalize()}: {error}.") from None
        except SharedTierUnavailableError:
            raise RefusedError("The cache's server does not answer, or refuses.") from None
        except (InvalidPatternError, QueueUnavailableError, NoRedisError, ConfigurationError) as error:
            raise RefusedError(as_sentence(str(error))) from None
        finally:
            self._asked -= 1

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._app is not None:
            self._app.close()

    def _account(self, subject: str) -> dict[str, Any]:
        if ":" in subject:
            return self._of_key(check_key(subject))
        if not subject.isprintable() or not subject or " " in subject or len(subject) > MAX_TASK_CHARS:
            raise RefusedError(NEITHER)
        if self._app is None:
            self._app = make_app(self._settings)
            bound_waits(self._app)
        return account_of_task(self._app, subject)

    def _of_key(self, key: str) -> dict[str, Any]:
        if not self._settings.cache_url:
            raise RefusedError("There is no shared cache (PERSONA_CACHE_URL is empty).")
        if self._slugs is None:
            self._slugs = frozenset(persona.slug for persona in catalog_from(self._settings))
        return _without_ids(account_of_key(self._settings, key, deps_of(key, self._slugs)))


def _without_ids(document: dict[str, Any]) -> dict[str, Any]:
    """What an answer was computed from, and what has ended it, may name its user. The page is for more eyes than answers are."""
    ended = document["ended_by"]
    if ended is not None:
        ended = {**ended, "pattern": _shown(ended["pattern"]), "means": _shown(ended["means"])}
    return {**document, "computed_from": list(map(_shown, document["computed_from"])), "ended_by": ended}


def _shown(pattern: str) -> str:
    (shown,) = shown_patterns((pattern,))
    return shown


class Explain(BaseHandler):
    """The account as JSON, or `{"refused": true, "sentence": ...}`."""

    @authenticated
    async def get(self) -> None:
        if self.request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            raise HTTPError(403)  # it shows another site nothing, and would cost the servers something
        try:
            answer = await self.application.explaining.account(self.get_query_argument("of", ""))
        except RefusedError as error:
            answer = {"refused": True, "sentence": str(error)}
        self._reply(answer)

    def write_error(self, status_code: int, **_: Any) -> None:
        self.set_status(status_code)
        self._reply({"refused": True, "sentence": NEITHER if status_code == 400 else "This cannot be explained."})

    def _reply(self, document: dict[str, Any]) -> None:
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.finish(msgspec.json.encode(document))
