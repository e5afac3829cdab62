"""The dashboard's users: those in the options, or one with a password that is made at the start. Never everyone."""

from __future__ import annotations

import hmac
import secrets
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import click
from tornado.httputil import HTTPServerRequest
from tornado.web import decode_signed_value

USER: Final = "persona"
COOKIE: Final = "user"
"""Flower's own cookie, set when OAuth has identified the user."""
HOW: Final = "user:password, in ASCII; several are separated by commas, which neither may hold"


class Login(NamedTuple):
    """`basic`: the `user:password` of each user. `emails`: the pattern of --auth, for OAuth; with both, both are required.
    `made`: the password that was made here, since neither was given."""

    basic: tuple[str, ...]
    emails: str = ""
    cookie_secret: str | bytes = ""
    made: str = ""

    def admits(self, request: HTTPServerRequest) -> bool:
        return self.knows(request) and (not self.emails or self._has_session(request))

    def knows(self, request: HTTPServerRequest) -> bool:
        """Whether the request bears one of `basic`, if there are any. Takes as long for any wrong one."""
        if not self.basic:
            return bool(self.emails)
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        try:
            given = b64decode(encoded.strip(), validate=True)
        except (Base64Error, ValueError):
            return False
        found = False
        for credentials in self.basic:
            found |= hmac.compare_digest(credentials.encode(), given)
        return found and scheme.lower() == "basic"

    def _has_session(self, request: HTTPServerRequest) -> bool:
        from flower.utils.authentication import authenticate

        cookie = request.cookies.get(COOKIE)
        email = decode_signed_value(self.cookie_secret, COOKIE, cookie.value) if cookie is not None else None
        return email is not None and bool(authenticate(self.emails, email.decode()))


def login_of(options: Any, cookie_secret: str | bytes) -> Login:
    """The login by Flower's options. Sets `basic_auth` among them if no login is given: Flower's own handlers read it, too.

    Raises ClickException naming an option whose value would admit every user, or none.
    """
    basic = _checked([given for given in options.basic_auth or () if given])
    emails = options.auth or ""
    if basic or emails:
        options.basic_auth = list(basic)
        return Login(basic, emails, cookie_secret)
    password = secrets.token_urlsafe(24)
    options.basic_auth = [f"{USER}:{password}"]
    return Login((f"{USER}:{password}",), "", cookie_secret, password)


def _checked(given: Sequence[str]) -> tuple[str, ...]:
    for number, credentials in enumerate(given, start=1):
        user, _, password = credentials.partition(":")
        if not user or not password or not credentials.isascii():
            # Without the value: it is a password.
            raise click.ClickException(f"--basic_auth (FLOWER_BASIC_AUTH): entry {number} does not fit; expected {HOW}")
    return tuple(given)
