"""How a server proves who it is, and this process to it: the `ssl_*` options of a URL, one spelling for all that connect."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn, Self
from urllib.parse import parse_qsl, urlsplit

_CERT_REQS: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_VERSIONS: Final = {version.value: version for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)}
_BOOLEANS: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How a server proves who it is, and this process to it. Paths are of PEM files."""

    cert_reqs: ssl.VerifyMode = ssl.CERT_REQUIRED
    check_hostname: bool = True
    ca_certs: str | None = None
    ca_path: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    key_password: str | None = field(default=None, repr=False)
    min_version: ssl.TLSVersion | None = None
    ciphers: str | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """By options that TLS_OPTIONS has read. Raises ValueError."""
        if "ssl_keyfile" in options and "ssl_certfile" not in options:
            _refuse("ssl_keyfile: needs ssl_certfile, too")
        return cls(**{_FIELDS.get(name, name.removeprefix("ssl_")): value for name, value in options.items()})

    def context(self) -> ssl.SSLContext:
        """Reads the files. Raises ValueError naming the option that does not fit."""
        context = ssl.create_default_context()
        context.check_hostname = self.check_hostname and self.cert_reqs != ssl.CERT_NONE
        context.verify_mode = self.cert_reqs
        if self.ca_path is not None and not Path(self.ca_path).is_dir():
            _refuse("ssl_ca_path: there is no such folder")  # OpenSSL would find no authority in it, later
        if self.ca_certs is not None or self.ca_path is not None:
            option = "ssl_ca_certs" if self.ca_certs is not None else "ssl_ca_path"
            _load(option, "there is no certificate in it", lambda: context.load_verify_locations(self.ca_certs, self.ca_path))
        if self.certfile is not None:
            certfile = self.certfile
            # Without a password OpenSSL would ask for one at the terminal, and hold up a worker for ever.
            load = lambda: context.load_cert_chain(certfile, self.keyfile, self.key_password or "")  # noqa: E731
            _load("ssl_certfile", "certificate, key and password are none, or of different pairs", load)
        if self.min_version is not None:
            context.minimum_version = self.min_version
        if self.ciphers is not None:
            try:
                context.set_ciphers(self.ciphers)
            except ssl.SSLError:
                _refuse("ssl_ciphers: no cipher has that name")
        return context


def tls_of(url: str, *, others: tuple[str, ...] = ()) -> Tls | None:
    """What a `rediss://` or `amqps://` URL says of TLS; None of another scheme. Touches no file.

    Raises ValueError with the fault and what is allowed: an option that is neither known nor among `others`, one that is given
    twice, or one of TLS in a URL without.
    """
    parts = urlsplit(url)
    given = parse_qsl(parts.query, keep_blank_values=True)
    if parts.scheme not in ("rediss", "amqps"):
        for name, _ in given:
            if name.startswith("ssl_"):
                _refuse(f"{shown(name)}: belongs to {'amqps' if parts.scheme == 'amqp' else 'rediss'}://")
        return None
    options: dict[str, Any] = {}
    for name, text in given:
        if name in TLS_OPTIONS:
            if name in options:
                _refuse(f"{name}: is given twice")
            if not text:
                _refuse(f"{name}: is empty")
            options[name] = TLS_OPTIONS[name](text)
        elif name not in others:
            _refuse(f"unknown option {shown(name)}; allowed are {', '.join((*TLS_OPTIONS, *others))}")
    return Tls.of(options)


def shown(name: str) -> str:
    """The name of an option as a message may show it: of a URL that is cut in the wrong place, it may be a password."""
    return name if name.isidentifier() and len(name) <= 40 else "(not a name)"


def _refuse(why: str) -> NoReturn:
    raise ValueError(why)


def _load(option: str, fault: str, load: Callable[[], object]) -> None:
    try:
        load()
    except OSError as error:
        why = fault if isinstance(error, ssl.SSLError) else error.strerror or type(error).__name__
        raise ValueError(f"{option}: its file cannot be used ({why})") from None


def _cert_reqs(text: str) -> ssl.VerifyMode:
    # As redis-py writes it, and as Celery's documentation does.
    mode = _CERT_REQS.get(text.lower().removeprefix("cert_"))
    if mode is None:
        _refuse("ssl_cert_reqs: allowed are required, optional and none (or CERT_REQUIRED, CERT_OPTIONAL, CERT_NONE)")
    return mode


def _boolean(text: str) -> bool:
    value = _BOOLEANS.get(text.lower())
    if value is None:
        _refuse("ssl_check_hostname: allowed are true and false")
    return value


def _min_version(text: str) -> ssl.TLSVersion:
    version = _VERSIONS.get(int(text)) if text.isascii() and text.isdigit() else None
    if version is None:
        _refuse(f"ssl_min_version: allowed are {', '.join(f'{value} ({one.name})' for value, one in _VERSIONS.items())}")
    return version


TLS_OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    "ssl_cert_reqs": _cert_reqs,
    "ssl_check_hostname": _boolean,
    "ssl_ca_certs": str,
    "ssl_ca_path": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_password": str,
    "ssl_min_version": _min_version,
    "ssl_ciphers": str,
}
"""The options of a URL with TLS, and what reads each."""
_FIELDS: Final = {"ssl_password": "key_password"}
