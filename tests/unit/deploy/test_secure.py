"""docker-compose.secure.yml and deploy/kubernetes/secure: the same parts, behind TLS and users of their own."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from deployment import FILLED, KUBERNETES, ROOT, compose, documents, environment, manifests, patched, secure_compose

from pipeline.settings import load_settings

FILE = ROOT / "docker-compose.secure.yml"
SERVICES: dict[str, dict[str, Any]] = secure_compose()["services"]
PLAIN = compose()["services"]
APP = ("worker", "beat", "flower", "operator")
FILES = "/run/secrets/persona"
(SECURE,) = documents(KUBERNETES / "secure" / "kustomization.yaml")
PODS = {
    document["metadata"]["name"]: patched(document, SECURE["patches"])["spec"]["template"]["spec"]
    for document in manifests("base")
    if document["kind"] in ("Deployment", "StatefulSet")
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What deploy/secure.sh makes."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here")
    folder = tmp_path_factory.mktemp("made") / "secure"
    make(folder)
    return folder


def make(folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(ROOT / "deploy" / "secure.sh"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def mounted(service: Mapping[str, Any]) -> dict[str, str]:
    """The containers' folders of what was made, by the folder on the host."""
    volumes = [volume.split(":") for volume in service["volumes"] if volume.startswith("./secure/")]
    assert all(rest[-1] == "ro" for _, *rest in volumes)
    return {source.removeprefix("./secure/"): target for source, target, _ in volumes}


@pytest.mark.slow
def test_the_file_is_of_the_specification() -> None:
    program = Path(sys.executable).with_name("check-jsonschema")
    command = [str(program), "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_part_has_a_folder_of_its_own_and_no_other(made: Path) -> None:
    """A part that is broken into has no other's password."""
    for name in ("broker", "cache"):
        assert mounted(SERVICES[name]) == {name: "/tls"}
    for name in APP:
        assert mounted(SERVICES[name]) == {name: FILES}
    assert {path.name for path in made.iterdir() if path.is_dir()} == {"broker", "cache", "caller", *APP}
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert stat.S_IMODE((made / "ca.key").stat().st_mode) == 0o600
    passwords = [re.findall(r"rediss://\w+:(\w{48})@", path.read_text()) for path in made.glob("*/broker-url")]
    assert len({password for (password,) in passwords}) == len(passwords) == 5


@pytest.mark.parametrize("name", APP)
def test_a_parts_settings_come_from_its_files(name: str, made: Path, tmp_path: Path) -> None:
    """They are read whole, certificates and all, and name the part's own user, at the servers' names here and in Kubernetes."""
    given = {variable: value.replace(FILES, str(made / name)) for variable, value in environment(SERVICES[name]).items()}
    for url in ("broker-url", "cache-url"):
        if (path := made / name / url).exists():
            here = tmp_path / url
            here.write_text(path.read_text().replace(FILES, str(made / name)))
            given = {variable: value.replace(str(path), str(here)) for variable, value in given.items()}
    settings = load_settings({variable: value for variable, value in given.items() if variable.startswith("PERSONA_")})
    broker, cache = urlsplit(settings.broker_url), urlsplit(settings.cache_url)
    assert (broker.scheme, broker.username, broker.hostname, broker.port) == ("rediss", name, "broker", 6379)
    if name == "beat":
        assert not settings.cache_url
    else:
        assert (cache.scheme, cache.username, cache.hostname) == ("rediss", "app" if name == "worker" else name, "cache")
    assert urlsplit(settings.result_backend_url).username == name


def test_the_script_overwrites_nothing(made: Path) -> None:
    """The servers that run have the passwords that are there."""
    before = (made / "worker" / "broker-url").read_text()
    done = make(made)
    assert done.returncode == 1
    assert "is there already" in done.stderr
    assert (made / "worker" / "broker-url").read_text() == before


def test_every_user_has_a_password_and_each_certificate_is_of_the_authority(made: Path) -> None:
    """By OpenSSL's strict rules, which Python from 3.13 on goes by."""
    for server in ("broker", "cache"):
        users = [line for line in (made / server / "users.conf").read_text().splitlines() if line.startswith("user ")]
        assert "user default off" in users
        assert not any("CHANGE_ME" in line for line in users)
    certificates = [*made.glob("*/server.pem"), *made.glob("*/client.pem")]
    assert len(certificates) == 7
    command = ["openssl", "verify", "-x509_strict", "-CAfile", str(made / "ca.pem"), *map(str, certificates)]
    assert subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0


@pytest.mark.parametrize("name", ["broker", "cache"])
def test_a_server_takes_no_connection_without_tls_and_no_other_setting_of_it_changes(name: str) -> None:
    """The overlay replaces the command alone; what the base says of memory and disk holds."""
    command = SERVICES[name]["command"][-1]
    for line in ("port 0", "tls-port 6379", "tls-auth-clients yes", "include /tls/users.conf"):
        assert f"\n{line}\n" in command
    assert "requirepass" not in command
    changed = {"command", "volumes", "healthcheck", "environment"}
    assert {key: value for key, value in SERVICES[name].items() if key not in changed} == {
        key: value for key, value in PLAIN[name].items() if key not in changed
    }


@pytest.mark.parametrize("name", ["worker", "beat", "flower"])
def test_a_part_is_started_as_without_it(name: str) -> None:
    """Only where it finds its servers differs."""
    assert SERVICES[name]["command"] == PLAIN[name]["command"]
    assert SERVICES[name]["healthcheck"] == PLAIN[name]["healthcheck"]
    assert not {variable for variable in FILLED.values() if variable in str(SERVICES[name]["environment"])} - {
        "of-flower_password"
    }


@pytest.mark.parametrize("name", sorted(PODS))
def test_the_manifests_are_those_of_the_compose_file(name: str) -> None:
    """Commands, checks, variables and folders; each part's Secret is the folder of its name."""
    part = name.removesuffix("-bulk")
    there, (only,) = SERVICES[part], PODS[name]["containers"]
    volumes = {volume["name"]: volume for volume in PODS[name]["volumes"]}
    (folder,) = mounted(there).items()
    assert volumes["tls"]["secret"]["secretName"] == f"persona-tls-{folder[0]}"
    assert {"name": "tls", "mountPath": folder[1], "readOnly": True} in only["volumeMounts"]
    plain = {entry["name"]: entry["value"] for entry in only.get("env", ()) if "value" in entry}
    given = environment(there)
    assert all(given[variable] == value for variable, value in plain.items())
    assert set(plain) >= {variable for variable in given if variable.endswith("_FILE") or variable == "REDISCLI_AUTH"}
    if part in ("broker", "cache"):
        assert only["command"][-1].strip() == there["command"][-1].replace("/etc/valkey.conf", f"/etc/valkey/{name}.conf").strip()
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert only[probe]["exec"]["command"] == ["sh", "-c", there["healthcheck"]["test"][1]]
    else:
        assert {"secretRef": {"name": "persona-model", "optional": True}} in only["envFrom"]
        assert not any(source.get("secretRef", {}).get("name") == "persona-connections" for source in only["envFrom"])
