"""docker-compose.yml and the Dockerfile, held against the specification and against the code: no engine runs them here."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from deployment import FILLED, ROOT, SECRETS, MissingVariableError, compose, environment, interpolate, seconds

from pipeline.settings import PREFIX, Settings, load_settings
from workers.queue.celery_settings import celery_settings
from workers.queue.factory import make_app

CELERY = celery_settings(load_settings({}))

COMPOSE = ROOT / "docker-compose.yml"
SERVICES: dict[str, dict[str, Any]] = compose()["services"]
ALWAYS = {"broker", "cache", "worker", "beat", "flower"}
PROFILES = {"llm": {"llm"}, "monitoring": {"prometheus", "grafana"}}
APP = ("worker", "beat", "flower")
SERVERS = ("broker", "cache")
ENV_EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
VARIABLES = set(re.findall(r"(?<!\$)\$\{(\w+)", COMPOSE.read_text(encoding="utf-8")))


def check_schema(path: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("check-jsonschema")
    command = [str(program), "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def config_of(server: str) -> dict[str, str]:
    lines = (ROOT / "deploy" / "valkey" / f"{server}.conf").read_text(encoding="utf-8").splitlines()
    return dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))


def in_bytes(size: str) -> int:
    matched = re.fullmatch(r"(\d+)(m|mb|g|gb)", size)
    assert matched, size
    return int(matched[1]) << (20 if matched[2].startswith("m") else 30)


# -- the file


@pytest.mark.slow
def test_the_compose_file_is_of_the_specification(tmp_path: Path) -> None:
    """Every name and type is one that the compose specification has; a typing error is not."""
    done = check_schema(COMPOSE)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(COMPOSE.read_text(encoding="utf-8").replace("stop_grace_period:", "stop_grace_time:"), encoding="utf-8")
    assert check_schema(wrong).returncode != 0


def test_the_five_run_always_and_the_others_by_their_profile() -> None:
    """`docker compose up` starts the needed services and nothing else."""
    profiles = {name: set(service.get("profiles", ())) for name, service in SERVICES.items()}
    assert {name for name, found in profiles.items() if not found} == ALWAYS
    for profile, members in PROFILES.items():
        assert {name for name, found in profiles.items() if found == {profile}} == members
    assert set(profiles) == ALWAYS.union(*PROFILES.values())


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_each_service_is_checked_restarted_bounded_and_confined(name: str) -> None:
    """None is forgotten in a table of good habits."""
    service = SERVICES[name]
    assert {"test", "interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"])
    assert service["restart"] == "unless-stopped"
    assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"])
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"]["max-size"]
    assert seconds(service["stop_grace_period"]) > 0
    # Compose cannot lay a secret of the environment into a container whose file system is read-only.
    assert service["read_only"] is not bool(service.get("secrets"))


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_an_image_has_a_version(name: str) -> None:
    """The same file starts the same programs tomorrow."""
    tag = SERVICES[name]["image"].rpartition(":")[2]
    assert tag not in ("", "latest")


def test_workers_can_be_scaled() -> None:
    """A fixed name, port or host name would fit one container only."""
    assert not {"container_name", "ports", "hostname"} & set(SERVICES["worker"])


def test_only_what_people_look_at_is_published_and_on_loopback() -> None:
    """The servers hold what users wrote, and any program that may write to the broker may have tasks run."""
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"flower", "prometheus", "grafana"}
    for ports in published.values():
        assert all(port.startswith("127.0.0.1:") for port in ports)
    networks = compose()["networks"]
    assert networks["inside"]["internal"] is True
    for name in SERVERS:
        assert SERVICES[name]["networks"] == ["inside"]


def test_what_is_mounted_from_here_exists_and_cannot_be_written() -> None:
    """Docker makes an empty folder, owned by root, of a path that is not there."""
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source, _, rest = volume.partition(":")
            if source.startswith("./deploy"):
                assert (ROOT / source).exists(), source
            if source.startswith("."):
                assert rest.endswith(":ro"), volume
            else:
                assert source in compose()["volumes"], volume


# -- passwords and settings


@pytest.mark.parametrize("name", SECRETS)
def test_a_missing_password_is_refused_by_name(name: str) -> None:
    """No default password, no empty one: the file does not start without."""
    for environ in ({**FILLED, name: ""}, {key: value for key, value in FILLED.items() if key != name}):
        with pytest.raises(MissingVariableError, match=name):
            compose(environ)


def test_the_example_says_every_variable_and_no_password() -> None:
    """Every setting is found in one place; those that must be set are blank there."""
    lines = dict(re.findall(r"^#?(\w+)=(.*)$", ENV_EXAMPLE, re.MULTILINE))
    assert set(lines) >= VARIABLES, VARIABLES - set(lines)
    assert set(re.findall(r"^(\w+)=$", ENV_EXAMPLE, re.MULTILINE)) == set(SECRETS)
    named = {name.removeprefix(PREFIX).lower() for name in lines if name.startswith(PREFIX)}
    assert named <= set(Settings.model_fields)


def test_no_password_is_on_a_command_line() -> None:
    """Every process of the host may read those."""
    for name, service in SERVICES.items():
        shown = [*service.get("command", ()), *service["healthcheck"]["test"]]
        for secret in FILLED.values():
            assert not any(secret in argument for argument in shown), name


@pytest.mark.parametrize("name", APP)
def test_every_setting_is_passed_on(name: str) -> None:
    """A setting in .env must not be dropped in silence, and a name that is not a setting is refused at start."""
    passed = {variable for variable in SERVICES[name]["environment"] if variable.startswith(PREFIX)}
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    assert passed == known - {f"{PREFIX}STACK_DIR"}


@pytest.mark.parametrize("name", APP)
def test_the_settings_are_good_and_name_the_servers(name: str) -> None:
    """The hosts are services here, the ports those that their configuration says, the passwords theirs."""
    given = environment(SERVICES[name])
    settings = load_settings(given)
    for server, url in (("broker", settings.broker_url), ("cache", settings.cache_url)):
        parts = urlsplit(url)
        assert (parts.scheme, parts.hostname, str(parts.port)) == ("redis", server, config_of(server)["port"])
        assert parts.password == environment(SERVICES[server])["REDISCLI_AUTH"] == FILLED[f"{server.upper()}_PASSWORD"]


def test_a_setting_of_the_users_arrives_and_wins() -> None:
    """Also over the servers that are started here."""
    environ = {**FILLED, "PERSONA_STRICT": "1", "PERSONA_BROKER_URL": "redis://elsewhere:1/0"}
    settings = load_settings(environment(compose(environ)["services"]["worker"], environ))
    assert settings.strict is True
    assert settings.broker_url == "redis://elsewhere:1/0"


# -- the services


def test_a_stop_takes_longer_than_what_runs_may_take_to_end() -> None:
    """TERM begins the soft shutdown, and KILL comes well after its end."""
    worker = SERVICES["worker"]
    assert environment(worker)["REMAP_SIGTERM"] == "SIGQUIT"
    assert seconds(worker["stop_grace_period"]) >= CELERY["worker_soft_shutdown_timeout"] + 10


def test_a_worker_is_asked_by_its_own_name() -> None:
    """A ping that any worker may answer says nothing of this one."""
    (hostname,) = [argument for argument in SERVICES["worker"]["command"] if argument.startswith("--hostname=")]
    node = hostname.removeprefix("--hostname=").replace("%h", "$HOSTNAME")
    assert f'--destination "{node}"' in SERVICES["worker"]["healthcheck"]["test"][1]


def test_beats_check_asks_for_the_lock_that_beat_takes() -> None:
    """Of another name it would never be there."""
    from redbeat.schedulers import ensure_conf

    with make_app(load_settings({})) as app:
        ensure_conf(app)
        assert f'"{app.redbeat_conf.lock_key}"' in SERVICES["beat"]["healthcheck"]["test"][-1]
        assert seconds(SERVICES["beat"]["healthcheck"]["start_period"]) > CELERY["redbeat_lock_timeout"]


def test_flower_listens_where_it_is_published_checked_and_scraped() -> None:
    """One port, in four places; and no request gets in without the password."""
    flower = SERVICES["flower"]
    assert "--port=5555" in flower["command"]
    assert flower["ports"] == ["127.0.0.1:5555:5555"]
    assert "127.0.0.1:5555/healthcheck" in flower["healthcheck"]["test"][-1]
    assert "flower:5555" in (ROOT / "deploy" / "monitoring" / "prometheus.yml").read_text(encoding="utf-8")
    assert environment(flower)["FLOWER_BASIC_AUTH"] == f"persona:{FILLED['FLOWER_PASSWORD']}"
    assert environment(flower)["FLOWER_READ_ONLY"] == "true"


def test_flowers_variables_are_options_of_flower() -> None:
    """It ends with a KeyError at one that it does not know."""
    from flower.options import options

    names = {name.removeprefix("FLOWER_").lower() for name in SERVICES["flower"]["environment"] if name.startswith("FLOWER_")}
    assert names <= set(options._options) | {name.replace("-", "_") for name in options._options}


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_is_full_before_its_container_is(name: str) -> None:
    """Else the kernel ends it, and with it the broker's last second."""
    limit = in_bytes(SERVICES[name]["deploy"]["resources"]["limits"]["memory"])
    assert in_bytes(config_of(name)["maxmemory"]) <= 0.8 * limit


def test_the_broker_keeps_everything_and_the_cache_nothing() -> None:
    """Opposite settings, so that neither can stand in for the other by mistake."""
    broker, cache = config_of("broker"), config_of("cache")
    assert (broker["appendonly"], broker["appendfsync"], broker["maxmemory-policy"]) == ("yes", "everysec", "noeviction")
    assert (cache["appendonly"], cache["save"], cache["maxmemory-policy"]) == ("no", '""', "allkeys-lfu")
    assert any(volume.endswith(f":{broker['dir']}") for volume in SERVICES["broker"]["volumes"])
    assert SERVICES["cache"]["tmpfs"] == [cache["dir"]]


def test_the_local_model_is_reached_as_the_example_says() -> None:
    """Its port and its name are in two files."""
    llm = environment(SERVICES["llm"])
    assert f"PERSONA_LLM_URL=http://llm:{llm['LLAMA_ARG_PORT']}/v1" in ENV_EXAMPLE
    assert f"PERSONA_LLM_MODEL={llm['LLAMA_ARG_ALIAS']}" in ENV_EXAMPLE
    assert f"127.0.0.1:{llm['LLAMA_ARG_PORT']}/health" in SERVICES["llm"]["healthcheck"]["test"][-1]


# -- the image


def test_the_image_is_of_the_locked_packages_and_runs_as_nobody_special() -> None:
    """Every file that is fetched is held by a hash; the image's user is not root, and named by number."""
    assert re.search(r"pip install .*--require-hashes .*-r \$\{LOCK\}\.lock", DOCKERFILE)
    assert re.findall(r"^ARG LOCK=(\S+)$", DOCKERFILE, re.MULTILINE) == ["runtime"]
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    (user,) = re.findall(r"^USER (\S+)$", last, re.MULTILINE)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert not re.findall(r"^(?:RUN|ADD) ", last, re.MULTILINE)


def test_what_is_copied_exists_and_reaches_the_builder() -> None:
    """And .env, .git and the environment do not."""
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in rules if line and not line.startswith("#")]

    def sent(path: str) -> bool:
        kept = True
        for pattern in patterns:
            bare = pattern.removeprefix("!").removeprefix("**/")
            if fnmatch.fnmatch(path, bare) or fnmatch.fnmatch(path, f"*/{bare}") or path.startswith(f"{bare}/"):
                kept = pattern.startswith("!")
        return kept

    sources = " ".join(re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE)).split()
    assert {"requirements/runtime.lock", "requirements/traces.lock", "persona_worker.py", "pipeline", "workers"} == set(sources)
    for source in sources:
        assert (ROOT / source).exists()
        assert sent(source), source
    assert sent("pipeline/cache/server/lua/append.lua")
    for secret in (
        ".env",
        "celeryconfig.py",
        ".git/config",
        ".venv/bin/python",
        "pipeline/__pycache__/x.pyc",
        "tests/deployment.py",
    ):
        assert not sent(secret), secret


def test_the_image_has_the_entry_points_of_the_package() -> None:
    """It holds the sources and no package: without them, a program of its own would announce no invalidation."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (text,) = re.findall(r"/entry_points\.txt\n(.*?)^END$", DOCKERFILE, re.MULTILINE | re.DOTALL)
    found = ConfigParser()
    found.read_string(text)
    assert {name: dict(found[name]) for name in found.sections()} == project["entry-points"]
    for name in ("name", "version"):
        assert f"\n{name.capitalize()}: {project[name]}\n" in DOCKERFILE


WITHOUT = """
import sys
from importlib.abc import MetaPathFinder

class Refusal(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refusal())
import celery.backends.redis, flower.command, kombu.transport.redis, openai, redbeat.schedulers, workers.app, workers.cli
for name in workers.app.app.conf.imports:
    __import__(name)
"""


@pytest.mark.slow
def test_a_container_needs_nothing_but_the_runtime_lock() -> None:
    """The development environment has more: what only a test tool brings along would be missed in the image alone."""
    text = (ROOT / "requirements" / "runtime.lock").read_text(encoding="utf-8")
    locked = {_name(name) for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)} | {"persona-worker"}
    foreign = [module for module, owners in packages_distributions().items() if not locked & {_name(owner) for owner in owners}]
    assert "pytest" in foreign
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *foreign], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def _name(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_the_command_that_makes_the_passwords_makes_them(tmp_path: Path) -> None:
    """As docs/operations.md has it: each blank is filled, nothing else is changed, no other user can read it."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here")
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^\(umask.*?^done < \.env\.example > \.env\)$", text, re.MULTILINE | re.DOTALL)
    shutil.copy(ROOT / ".env.example", tmp_path)
    subprocess.run(["bash", "-euc", command], cwd=tmp_path, timeout=60, check=True)
    made = tmp_path / ".env"
    assert made.stat().st_mode & 0o077 == 0
    filled = dict(re.findall(r"^(\w+)=(.+)$", made.read_text(encoding="utf-8"), re.MULTILINE))
    assert set(filled) == set(SECRETS)
    assert len(set(filled.values())) == len(SECRETS)
    assert re.sub(r"(?<=_PASSWORD=)\w+", "", made.read_text(encoding="utf-8")) == ENV_EXAMPLE
    assert compose(filled)


def test_the_manual_names_what_there_is() -> None:
    """Files, services, profiles, variables and settings of Celery in docs/operations.md."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for path in re.findall(r"(?<![\w/.])((?:deploy|docs|pipeline|tests)/[\w./-]*\w)", text):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"docker compose (?:exec|ps) (\w+)", text):
        assert name in SERVICES
    for profile in re.findall(r"--profile (\w+)", text):
        assert profile in PROFILES
    for variable in re.findall(r"\bPERSONA_[A-Z0-9_]+", text):
        assert variable.removeprefix(PREFIX).removesuffix("_FILE").lower() in Settings.model_fields, variable
    for name in re.findall(r"`((?:worker|redbeat|task|result)_\w+)`", text):
        assert name in CELERY, name
    assert f"`worker_soft_shutdown_timeout` ({CELERY['worker_soft_shutdown_timeout']} s)" in text
    assert f"`redbeat_lock_timeout` ({CELERY['redbeat_lock_timeout']} s)" in text
    assert f"{seconds(SERVICES['worker']['stop_grace_period']):.0f} s in both manifests" in text


# -- the reader of the file


def test_variables_are_read_as_compose_reads_them() -> None:
    """The tests above stand on it."""
    environ = {"A": "a", "EMPTY": ""}
    assert interpolate("$$HOME ${A} ${B:-b} ${EMPTY:-${A}x}", environ) == "$HOME a b ax"
    assert interpolate(["${A:?m}", {"k": "${B:-${C:-c}}"}, 3], environ) == ["a", {"k": "c"}, 3]
    with pytest.raises(MissingVariableError, match="EMPTY"):
        interpolate("${EMPTY:?m}", environ)
