"""The deployment files, as the tests read them: docker-compose.yml as Compose would, the Kubernetes manifests as they are
written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

ROOT: Final = Path(__file__).parents[1]
KUBERNETES: Final = ROOT / "deploy" / "kubernetes"
SECRETS: Final = ("BROKER_PASSWORD", "CACHE_PASSWORD", "FLOWER_PASSWORD", "GRAFANA_PASSWORD")
FILLED: Final = {name: f"of-{name.lower()}" for name in SECRETS}
"""A .env with no more than it must have."""


class MissingVariableError(Exception):
    """Compose would refuse the file, naming this variable."""


def documents(path: Path) -> list[dict[str, Any]]:
    """Every document of a YAML file."""
    with path.open(encoding="utf-8") as file:
        return list(YAML(typ="safe").load_all(file))


def interpolate(value: Any, environ: Mapping[str, str]) -> Any:
    """The value as Compose passes it on: `$$`, `${A}`, `${A:-default}` and `${A:?message}`, nested as it may be."""
    if isinstance(value, dict):
        return {key: interpolate(item, environ) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, environ) for item in value]
    return "".join(_parts(value, environ)) if isinstance(value, str) else value


def _parts(text: str, environ: Mapping[str, str]) -> Iterator[str]:
    at = 0
    while at < len(text):
        if text.startswith("$$", at):
            yield "$"
            at += 2
        elif text.startswith("${", at):
            depth, end = 1, at + 2
            while depth:
                depth += text.startswith("${", end) - (text[end] == "}")
                end += 1
            yield _replaced(text[at + 2 : end - 1], environ)
            at = end
        else:
            yield text[at]
            at += 1


def _replaced(expression: str, environ: Mapping[str, str]) -> str:
    matched = re.fullmatch(r"(\w+)(?::([-?])(.*))?", expression, re.DOTALL)
    assert matched, f"${{{expression}}} is none of the forms that are used here"
    name, operator, rest = matched.groups()
    if environ.get(name):
        return environ[name]
    if operator == "?":
        raise MissingVariableError(name)
    return str(interpolate(rest, environ)) if operator == "-" else ""


def compose(environ: Mapping[str, str] | None = FILLED) -> dict[str, Any]:
    """docker-compose.yml with the variables of `environ`; None: as it is written. Raises MissingVariableError."""
    (document,) = documents(ROOT / "docker-compose.yml")
    return document if environ is None else {**document, "services": interpolate(document["services"], environ)}


def secure_compose(environ: Mapping[str, str] = FILLED) -> dict[str, Any]:
    """The services of docker-compose.secure.yml over docker-compose.yml, as Compose merges the two."""
    (over,) = documents(ROOT / "docker-compose.secure.yml")
    base = compose(environ)["services"]
    services = dict(base)
    for name, service in interpolate(over["services"], environ).items():
        given = dict(service)
        services[name] = _merged(base[given.pop("extends")["service"] if "extends" in given else name], given)
    return {"services": services}


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for name, value in over.items():
        there = found.get(name)
        if isinstance(there, Mapping) and isinstance(value, Mapping):
            found[name] = _merged(there, value)
        else:
            found[name] = [*(there or ()), *value] if name in ("volumes", "tmpfs") else value
    return found


def patched(document: dict[str, Any], patches: list[dict[str, Any]]) -> dict[str, Any]:
    """The Kubernetes object with the patches of a kustomization whose target it is."""
    found = deepcopy(document)
    for patch in patches:
        target = patch["target"]
        if found["kind"] == target["kind"] and re.fullmatch(target["name"], found["metadata"]["name"]):
            for operation in YAML(typ="safe").load(patch["patch"]):
                _operate(found, **operation)
    return found


def _operate(document: Any, op: str, path: str, value: Any = None) -> None:
    *way, last = path.strip("/").split("/")
    for step in way:
        document = document[int(step) if isinstance(document, list) else step]
    if isinstance(document, list):
        assert op == "replace" or last == "-", (op, path)
        if last == "-":
            document.append(value)
        else:
            document[int(last)] = value
    else:
        assert (last in document) == (op in ("replace", "remove")), f"{op} {path}: a patch of something else"
        document.pop(last, None)
        if op != "remove":
            document[last] = value


def environment(service: Mapping[str, Any], environ: Mapping[str, str] = FILLED) -> dict[str, str]:
    """The container's variables: one without a value is passed on if `environ` has it, else left out."""
    given = service.get("environment") or {}
    found = {name: environ.get(name) if value is None else value for name, value in given.items()}
    return {name: value for name, value in found.items() if value is not None}


def manifests(folder: str) -> list[dict[str, Any]]:
    """The Kubernetes objects that the kustomization of that folder lists, its own and not those of other folders."""
    directory = KUBERNETES / folder
    (kustomization,) = documents(directory / "kustomization.yaml")
    files = [name for name in kustomization["resources"] if name.endswith(".yaml")]
    return [document for name in files for document in documents(directory / name)]


def seconds(duration: str) -> float:
    """A duration of Compose's: 45s."""
    matched = re.fullmatch(r"(\d+)s", duration)
    assert matched, f"{duration}: expected whole seconds"
    return float(matched[1])
