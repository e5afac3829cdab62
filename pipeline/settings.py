"""Every setting of the project, its default and its meaning. Read once, from the environment, and never changed after.

A variable is `PERSONA_` and the field's name in capitals. A value that is not allowed, or an unknown `PERSONA_` variable, is
refused at start with the variable's name. What may hold a secret
may also be read from a file, which `PERSONA_BROKER_URL_FILE` names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from pipeline.discovery import stack_environment
from pipeline.errors import ConfigurationError

PREFIX: Final = "PERSONA_"
DEFAULT_NAMESPACE: Final = "persona"
_BESIDE_TLS: Final = ("virtual_host", "credential_provider", "client_name", "heartbeat", "login_method")
"""What else Celery and kombu take in the URL of a server behind TLS."""


class Settings(BaseModel):
    """Frozen; every default is visible here. Build it with `load_settings` (or `get_settings`, once per process)."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    # -- the queue
    broker_url: str = Field("redis://127.0.0.1:6379/0", description="Where tasks are queued: redis, rediss, amqp or amqps.")
    result_url: str = Field("", description="Where results are kept. Empty: database 1 of a Redis broker, rpc:// of RabbitMQ.")
    result_ttl_s: int = Field(3600, ge=1, le=7 * 86_400, description="How long a task's result is kept for its caller.")
    queue_full_at: float = Field(
        0.9,
        gt=0,
        le=1,
        description="At which share of a Redis broker's memory a client queues nothing more. "
        "Results are kept shorter from half of it on.",
    )
    fetch: Literal["claims", "pop"] = Field(
        "claims",
        description="How a worker takes messages from Redis: it claims them; or it pops them as Celery does, and may lose one.",
    )
    door: bool = Field(True, description="Whether a node's main process answers a hit itself, without a slot of its pool.")
    hit_events_per_s: float = Field(
        100.0, ge=0, le=10_000, description="Of hits answered so, how many a second each node shows to Flower as tasks."
    )
    unknown_task_s: float = Field(
        30.0, ge=0, le=3600, description="How long a task that a worker does not know goes back to its queue before it fails."
    )
    # -- the cache
    cache_url: str = Field("", description="The shared tier: redis, rediss or unix. Empty: each process has its own tier only.")
    cache_namespace: str = Field(
        DEFAULT_NAMESPACE, pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="Prefix of every key in Redis."
    )
    cache_timeout_s: float = Field(0.25, gt=0, le=10, description="How long one call of the shared tier may take.")
    l1_max_entries: int = Field(1000, ge=1, le=10_000_000, description="How many entries a process keeps.")
    l1_max_mb: float = Field(
        64.0, ge=0, le=1_000_000, description="How much memory a process keeps entries in, in MB of 2**20 bytes. 0: no bound."
    )
    l1_max_ttl_s: float = Field(60.0, gt=0, le=3600, description="How long a process keeps an entry at most.")
    max_ttl_s: float = Field(
        86_400.0,
        ge=7200,
        le=31 * 86_400,
        description="The longest life of any entry, and how long the log of invalidations remembers. The same in all processes.",
    )
    staleness_bound_s: float = Field(
        1.0,
        gt=0,
        le=60,
        description="How long a process may serve an entry that another process has invalidated: the lease of the first tier.",
    )
    listen: bool = Field(
        True,
        description="Whether a process that is no worker has a thread that hears what others invalidate. Else: by the lease.",
    )
    strict: bool = Field(False, description="With Redis out of reach: bypass the first tier rather than serve it unconfirmed.")
    stale_grace_s: float = Field(
        300.0,
        ge=0,
        le=3600,
        description="How long an answer is kept past its time to live: served while it is computed anew, or if the model fails.",
    )
    lease_s: float = Field(
        5.0,
        ge=0.5,
        le=60,
        description="How long a key waits at most for the process that computed it and died: 1.2 s, "
        "or this long if that was held up before.",
    )
    # -- the personas
    personas_dir: str = Field("", description="A folder of persona files, in the place of the package's own. Empty: those.")
    # -- the model
    llm_url: str = Field("", description="An OpenAI-compatible endpoint, with its /v1. Empty: answers are the composed prompts.")
    llm_model: str = Field("", description="The model's name at that endpoint.")
    llm_api_key: SecretStr = Field(SecretStr(""), description="Its key, if it asks for one.")
    llm_timeout_s: float = Field(
        30.0,
        gt=0,
        le=40,
        description="The deadline of one answer, retries included. A task may take 75 s, 30 s of it waiting for another's.",
    )
    llm_max_tokens: int = Field(256, ge=1, le=32_768, description="How long an answer may be.")
    llm_temperature: float = Field(0.7, ge=0, le=2, description="0 is the most repeatable.")
    responder: str = Field(
        "",
        description="What answers in the model's place: `package.module:object`, a responder or what makes one of the settings.",
    )
    result_max_kb: int = Field(
        1024,
        ge=16,
        le=65_536,
        description="How long a model's answer, and the outcome of a task, may be. What is longer is not kept: the task fails.",
    )
    # -- work done ahead
    preload_interval_s: float = Field(
        300.0, ge=1, le=86_400, description="How often the caches are warmed and the answers asked for most renewed."
    )
    preload_budget: int = Field(
        50, ge=0, le=10_000, description="How many answers are renewed at a time. 0: none, and no request is kept for it."
    )
    beat_lock_s: int = Field(60, ge=2, le=3600, description="After how long a spare beat stands in for one that died.")
    # -- the process
    figures: bool = Field(True, description="Tell the fleet's figures, in the cache's Redis, what each process counts.")
    audit_per_s: float = Field(
        20.0,
        ge=0,
        le=10_000,
        description="Of each tier's answers, how many a second and process the auditor judges by the log. 0: none.",
    )
    flower_read_only: bool = Field(
        False, description="Whether Flower's page of the fleet only shows, and nothing can be done from it."
    )
    flower_landing: Literal["fleet", "workers"] = Field(
        "fleet", description="Which page Flower's address leads to: the fleet's, or its own list of workers."
    )
    traces: bool = Field(
        False,
        description="Whether what is done for a request is told as OpenTelemetry spans, to the collector of OTEL_ variables.",
    )
    log: Literal["text", "json"] = Field("text", description="How worker and beat write their logs: json is one object a line.")
    stack_dir: str = Field("", description="Where `persona up` keeps what it runs. Empty: .persona in the working directory.")

    @field_validator("broker_url")
    @classmethod
    def _broker(cls, url: str) -> str:
        return _queue_url(url, ("redis", "rediss", "amqp", "amqps"))

    @field_validator("result_url")
    @classmethod
    def _result(cls, url: str) -> str:
        return _queue_url(url, ("redis", "rediss", "rpc")) if url else url

    @field_validator("cache_url")
    @classmethod
    def _cache(cls, url: str) -> str:
        if url:
            from pipeline.cache.server.address import (
                check_redis_url,  # where it is needed: a program without a cache does not load it
            )

            check_redis_url(url)
        return url

    @field_validator("llm_url")
    @classmethod
    def _llm(cls, url: str) -> str:
        return _checked_url(url, ("http", "https")).rstrip("/") if url else url

    @field_validator("responder")
    @classmethod
    def _responder(cls, name: str) -> str:
        if name and not re.fullmatch(r"[\w.]+:[\w.]+", name):
            raise ValueError(f"{name!r}; expected package.module:object")
        return name

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Hides passwords."""
        for name, value in super().__repr_args__():
            yield name, without_password(value) if name is not None and name.endswith("_url") else value

    __str__ = BaseModel.__repr__

    @property
    def result_backend_url(self) -> str:
        """`result_url`, or the default that follows from the broker."""
        if self.result_url:
            return self.result_url
        parts = urlsplit(self.broker_url)
        if parts.scheme in ("amqp", "amqps"):
            return "rpc://"
        return parts._replace(path="/1").geturl()


SECRETS: Final = tuple(
    name for name, field in Settings.model_fields.items() if name.endswith("_url") or field.annotation is SecretStr
)
"""Settings that may hold a password or are one."""
_OF_FILES: Final = {f"{PREFIX}{name.upper()}_FILE": PREFIX + name.upper() for name in SECRETS}


def with_files(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment, with the text of a file in place of each variable that names one (without the end of its last line).

    Raises ConfigurationError naming each variable whose file cannot be read, or that is given beside the one it stands for
    (unless that is empty).
    """
    given = {variable: path for variable, path in environ.items() if variable in _OF_FILES}
    if not given:
        return environ
    filled = {variable: value for variable, value in environ.items() if variable not in given}
    problems = []
    for variable, path in given.items():
        if environ.get(_OF_FILES[variable]):
            problems.append(f"{variable}: {_OF_FILES[variable]} is given, too; expected one of them")
        try:
            filled[_OF_FILES[variable]] = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeError) as error:
            problems.append(f"{variable}: its file cannot be read ({getattr(error, 'strerror', None) or type(error).__name__})")
    if problems:
        raise ConfigurationError("\n".join(problems))
    return filled


def load_settings(environ: Mapping[str, str]) -> Settings:
    """The settings in `environ`. Raises ConfigurationError naming each variable that is not allowed."""
    given: dict[str, Any] = {}
    problems: list[str] = []
    for variable, value in with_files(environ).items():
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name in Settings.model_fields and variable.isupper():
            given[name] = value
        else:
            known = ", ".join(sorted(PREFIX + field.upper() for field in Settings.model_fields))
            problems.append(f"{variable}: unknown setting; known are {known}")
    try:
        settings = Settings(**given)
    except ValidationError as error:
        problems += [
            f"{PREFIX}{str(item['loc'][0]).upper()}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors(include_url=False, include_input=False)
        ]
    else:
        if settings.llm_url and not settings.llm_model:
            problems.append(f"{PREFIX}LLM_MODEL: missing; {PREFIX}LLM_URL needs the model's name")
        for name in ("stale_grace_s", "lease_s"):
            if getattr(settings, name) > settings.result_ttl_s:
                problems.append(
                    f"{PREFIX}{name.upper()}: {getattr(settings, name):g}; allowed is up to the life of a result, "
                    f"{PREFIX}RESULT_TTL_S, which is {settings.result_ttl_s}"
                )
        if not problems:
            return settings
    raise ConfigurationError("\n".join(problems))


def discover_settings(environ: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings of the environment, completed by those of the stack that runs here, if there is one. `overrides`, by field,
    win over both.

    Raises ConfigurationError as `load_settings` does.
    """
    environ = with_files(os.environ if environ is None else environ)
    given = {PREFIX + name.upper(): str(value) for name, value in (overrides or {}).items()}
    environ = {**environ, **given}
    return load_settings({**stack_environment(environ), **environ})


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """This process's settings, as `discover_settings` finds them, read once."""
    return discover_settings()


def without_password(url: str) -> str:
    """The URL for a log line or a screen."""
    url = re.sub(r"([?&](?:ssl_)?password=)[^&#]*", r"\1***", url)  # the Redis client takes it there, too
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{parts.username or ''}:***@{host}").geturl()


def _queue_url(url: str, schemes: tuple[str, ...]) -> str:
    """The URL, if it can be one. Of `rediss://` it says how certificates are checked, in the one spelling that Celery, kombu and
    redis-py all take."""
    parts = urlsplit(_checked_url(url, schemes))
    if parts.scheme not in ("rediss", "amqps") and "ssl_" not in parts.query:
        return url
    from pipeline.cache.server.tls import tls_of  # where it is needed, as above

    tls = tls_of(url, others=_BESIDE_TLS)
    if tls is not None:
        if parts.scheme == "amqps" and (tls.ca_path is not None or tls.key_password is not None):
            raise ValueError("ssl_ca_path, ssl_password: RabbitMQ's client takes neither; expected ssl_ca_certs, a bare key")
        tls.context()
    if tls is None or parts.scheme == "amqps":
        return url
    mode = tls.cert_reqs.name.lower().removeprefix("cert_")
    others = [option for option in parts.query.split("&") if option and not option.startswith("ssl_cert_reqs=")]
    return parts._replace(query="&".join([*others, f"ssl_cert_reqs={mode}"])).geturl()


def _checked_url(url: str, schemes: tuple[str, ...]) -> str:
    """The URL, if it is valid. The message never shows the URL itself: it may hold a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError unless it is a number from 0 to 65535
    except ValueError:
        # The library's own message quotes the part that it stumbled on, which may be the password.
        raise ValueError(
            "malformed URL: its host or port cannot be read; a port is 0 to 65535, and a password's / ? # [ ] @ : are "
            "written as %2F %3F %23 %5B %5D %40 %3A"
        ) from None
    if parts.scheme not in schemes:
        raise ValueError(f"malformed URL: its scheme is {parts.scheme!r}; allowed are {', '.join(schemes)}")
    if parts.scheme == "unix":
        if not parts.path.startswith("/"):
            raise ValueError("malformed URL: expected unix:///absolute/path/of/the/socket")
    elif parts.scheme != "rpc" and not parts.hostname:
        raise ValueError("malformed URL: it names no host")
    return url
