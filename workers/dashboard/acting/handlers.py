"""The page's way to what can be done: a list, a question, a confirmation."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import msgspec
from flower.views import BaseHandler
from tornado.httputil import HTTPServerRequest
from tornado.web import HTTPError, authenticated

from pipeline.cache.encoding.decoders import ready
from pipeline.cache.errors import InvalidPatternError, SharedTierUnavailableError
from pipeline.settings import Settings
from workers.dashboard.acting.deeds import Deed, Deeds, Wish
from workers.dashboard.acting.pending import Pending, mark_of
from workers.queue.errors import NoRedisError, QueueUnavailableError

T = TypeVar("T")

logger: Final = logging.getLogger(__name__)

BOUND_S: Final = 20.0
MAX_BODY_BYTES: Final = 65_536
MARK_HEADER: Final = "X-Fleet-Mark"
FORGED: Final = "This did not come from this page: reload it, and act from there."
OVER: Final = "Nothing was done: this was confirmed before, or too late. Ask for it anew."


class VanishedError(Exception):
    """What was to be done cannot be, since what it was to be done to is not there."""


class Acting:
    """What handlers share. `allowed`: whether anything may be done; else there are but the lists."""

    def __init__(self, settings: Settings, secret: str | bytes, *, allowed: bool) -> None:
        self.allowed = allowed
        self.secret = secret
        self.pending: Pending[Deed] = Pending()
        self.deeds = Deeds(settings)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="acting")

    async def run(self, work: Callable[[], T]) -> T:
        """In a thread of its own. Raises TimeoutError."""
        return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(self._thread, work), BOUND_S)

    def mark(self, user: str) -> str:
        return mark_of(self.secret, user) if self.allowed else ""

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        self.deeds.close()


class _Answering(BaseHandler):
    """Answers in JSON, `{"sentence": ...}` where something cannot be."""

    @property
    def acting(self) -> Acting:
        acting: Acting = self.application.acting
        return acting

    async def answer(self, work: Callable[[], dict[str, Any]]) -> None:
        """What the work makes; or why that cannot be, which is no fault of the page's: by 200, `refused`."""
        try:
            document = await self.acting.run(work)
        except (QueueUnavailableError, NoRedisError, SharedTierUnavailableError, InvalidPatternError, VanishedError) as error:
            document = {"refused": True, "sentence": as_sentence(str(error))}
        except TimeoutError:
            document = {"refused": True, "sentence": "The servers have not answered in time: look whether it was done."}
        self.reply(document)

    def reply(self, document: dict[str, Any]) -> None:
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.finish(msgspec.json.encode(document))

    def refuse(self, status: int, sentence: str) -> None:
        self.set_status(status)
        self.reply({"sentence": sentence})

    def write_error(self, status_code: int, **_: Any) -> None:
        self.refuse(status_code, FORGED if status_code == 403 else "Nothing was done: the request cannot be read.")


class Letters(_Answering):
    """The failed tasks and the dead letters, without what anybody wrote."""

    @authenticated
    async def get(self) -> None:
        await self.answer(self.acting.deeds.listed)


class _Act(_Answering):
    """By POST alone, from this page alone: as JSON, of this origin, with the mark of this login."""

    def check_xsrf_cookie(self) -> None:
        """In place of Flower's check, and narrower: without a login by cookie Flower's has no token."""
        origin = self.request.headers.get("Origin", "")
        site = self.request.headers.get("Sec-Fetch-Site", "same-origin")
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        given = self.request.headers.get(MARK_HEADER, "")
        if not self.acting.allowed:
            raise HTTPError(404)
        if (
            origin not in (f"http://{self.request.host}", f"https://{self.request.host}")
            or site != "same-origin"
            or kind != "application/json"
            or not hmac.compare_digest(given.encode(), self.acting.mark(self.user).encode())
        ):
            logger.warning("dashboard.act_refused: by %s: it did not come from the page", self.user)
            raise HTTPError(403)

    @property
    def user(self) -> str:
        return user_of(self.request, self.current_user)

    def body(self, kind: type[T]) -> T:
        if len(self.request.body) > MAX_BODY_BYTES:
            raise HTTPError(413)
        try:
            return msgspec.json.decode(self.request.body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise HTTPError(400) from None


class Ask(_Act):
    """What a wish would do, and the word that confirms it."""

    @authenticated
    async def post(self) -> None:
        wish, user, acting = self.body(Wish), self.user, self.acting

        def consider() -> dict[str, Any]:
            deed = acting.deeds.consider(wish)
            if wish.what in ("again", "drop") and not deed.letters:
                raise VanishedError("nothing was done: there is none of these any more")
            return {"sentence": deed.sentence, "details": deed.details, "word": acting.pending.add(user, deed)}

        await self.answer(consider)


@ready
class _Confirmation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    word: str


class Confirm(_Act):
    """Does what was asked about, once."""

    @authenticated
    async def post(self) -> None:
        user, acting = self.user, self.acting
        deed = acting.pending.take(user, self.body(_Confirmation).word)
        if deed is None:
            self.refuse(409, OVER)
            return

        def do() -> dict[str, Any]:
            wish = deed.wish
            what = wish.what if wish.what == "preload" else f"{wish.what} {_line(wish.pattern) or wish.kind}"
            try:
                sentence = acting.deeds.do(deed)
            except Exception as error:
                logger.warning("dashboard.act_failed: %s by %s: %s", what, user, type(error).__name__)
                raise
            logger.info("dashboard.acted: %s by %s: %s", what, user, _line(sentence))
            return {"sentence": sentence}

        await self.answer(do)


def user_of(request: HTTPServerRequest, session: object) -> str:
    """The login's user: by name, or by the address that OAuth has given."""
    if isinstance(session, str):
        return session
    _, _, encoded = request.headers.get("Authorization", "").partition(" ")
    try:
        return base64.b64decode(encoded.strip(), validate=True).decode().partition(":")[0]
    except (binascii.Error, ValueError):
        return ""


def _line(words: str) -> str:
    """For the log, of which a line is one line."""
    return "".join(char if char.isprintable() else "?" for char in words)


def as_sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "?")) else ".")
