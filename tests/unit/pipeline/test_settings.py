"""The environment's settings, and the errors of wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.assembly import build_cache
from pipeline.errors import ConfigurationError
from pipeline.keys import LONGEST_TTL_S
from pipeline.settings import discover_settings, load_settings, without_password

SECRET = "s3cr3t"


def refusal(**environ: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environ)
    return str(caught.value)


def test_an_empty_environment_gives_the_defaults() -> None:
    """Nothing needs to be set, and nothing but `PERSONA_` variables counts."""
    settings = load_settings({"PATH": "/bin", "BROKER_URL": "nonsense", "XPERSONA_STRICT": "1"})
    assert settings == load_settings({})
    assert settings.broker_url == "redis://127.0.0.1:6379/0"
    assert settings.result_backend_url == "redis://127.0.0.1:6379/1"
    assert settings.cache_url == ""
    assert settings.llm_url == ""
    assert settings.staleness_bound_s == 1.0
    assert settings.l1_max_entries == 1000
    assert settings.l1_max_mb == 64.0
    assert settings.l1_max_ttl_s == 60.0
    assert settings.max_ttl_s == 86_400
    assert settings.strict is False
    assert (settings.result_ttl_s, settings.stale_grace_s, settings.lease_s) == (3600, 300.0, 5.0)


@pytest.mark.parametrize("max_ttl_s", ["86400", "7200", "2678400"])
def test_an_entry_may_live_for_a_day_where_the_log_remembers_it(max_ttl_s: str) -> None:
    """The cache takes what the settings allow, and no more."""
    cache = build_cache(load_settings({"PERSONA_MAX_TTL_S": max_ttl_s}))
    assert cache.get_or_compute("k", lambda: 1, ttl=float(max_ttl_s)) == 1
    with pytest.raises(ValueError, match=r"^ttl: .*max_ttl_s"):
        cache.set("k", 1, ttl=float(max_ttl_s) + 1)


def test_the_log_remembers_what_the_pipeline_keeps_longest() -> None:
    """An hour, and as long a grace: less is refused."""
    assert load_settings({}).max_ttl_s >= LONGEST_TTL_S
    assert refusal(PERSONA_MAX_TTL_S=str(LONGEST_TTL_S - 1)).startswith("PERSONA_MAX_TTL_S: ")


def test_a_variable_sets_its_field_in_its_type() -> None:
    """Text from the environment becomes what the field is declared as."""
    settings = load_settings(
        {
            "PERSONA_STALENESS_BOUND_S": "0.5",
            "PERSONA_L1_MAX_ENTRIES": "20",
            "PERSONA_STRICT": "1",
            "PERSONA_LLM_URL": "http://127.0.0.1:8080/v1/",
            "PERSONA_LLM_MODEL": "small",
            "PERSONA_LLM_API_KEY": SECRET,
        }
    )
    assert settings.staleness_bound_s == 0.5
    assert settings.l1_max_entries == 20
    assert settings.strict is True
    assert settings.llm_url == "http://127.0.0.1:8080/v1"
    assert settings.llm_api_key.get_secret_value() == SECRET
    assert SECRET not in repr(settings.llm_api_key)


@pytest.mark.parametrize("variable", ["PERSONA_BROKR_URL", "PERSONA_", "PERSONA_broker_url", "PERSONA_MODEL_CONFIG"])
def test_an_unknown_variable_is_refused_with_its_name_and_the_known(variable: str) -> None:
    """A misspelled variable must not silently mean the default."""
    message = refusal(**{variable: "redis://127.0.0.1/0"})
    assert message.startswith(f"{variable}: unknown setting; known are ")
    assert "PERSONA_BROKER_URL" in message


def test_every_problem_is_named_at_once() -> None:
    """One start tells all that is to mend."""
    message = refusal(PERSONA_STRICT="maybe", PERSONA_L1_MAX_ENTRIES="0", PERSONA_NOVELTY="x")
    for variable in ("PERSONA_STRICT", "PERSONA_L1_MAX_ENTRIES", "PERSONA_NOVELTY"):
        assert f"{variable}: " in message
    assert len(message.splitlines()) == 3


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PERSONA_STALENESS_BOUND_S", "0", "greater than 0"),
        ("PERSONA_STALENESS_BOUND_S", "nan", "Input should be"),
        ("PERSONA_STALENESS_BOUND_S", "61", "less than or equal to 60"),
        ("PERSONA_L1_MAX_ENTRIES", "1.5", "integer"),
        ("PERSONA_RESULT_TTL_S", "0", "greater than or equal to 1"),
        ("PERSONA_STALE_GRACE_S", "-1", "greater than or equal to 0"),
        ("PERSONA_STALE_GRACE_S", "3601", "less than or equal to 3600"),
        ("PERSONA_LEASE_S", "0.4", "greater than or equal to 0.5"),
        ("PERSONA_LEASE_S", "61", "less than or equal to 60"),
        ("PERSONA_LLM_TEMPERATURE", "hot", "number"),
        ("PERSONA_CACHE_NAMESPACE", "a:b", "A-Za-z0-9_.-"),
        ("PERSONA_CACHE_NAMESPACE", "a\n", "A-Za-z0-9_.-"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_what_is_allowed(variable: str, value: str, said: str) -> None:
    """The message names the variable and the bound."""
    message = refusal(**{variable: value})
    assert message.startswith(f"{variable}: ")
    assert said in message


@pytest.mark.parametrize("variable", ["PERSONA_BROKER_URL", "PERSONA_RESULT_URL", "PERSONA_CACHE_URL", "PERSONA_LLM_URL"])
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost", "its scheme is ''"),
        ("ftp://host/0", "its scheme is 'ftp'; allowed are"),
        (f"{{scheme}}://user:{SECRET}@", "it names no host"),
        ("{scheme}:///0", "it names no host"),
        ("{scheme}://host:99999/0", "a port is 0 to 65535"),
        (f"{{scheme}}://user:{SECRET}/more@host:6379/0", "its host or port cannot be read"),
        (f"{{scheme}}://:x[{SECRET}]x@host/0", "its host or port cannot be read"),
        (f"{{scheme}}://:[{SECRET}@host/0", "its host or port cannot be read"),
        (f"{{scheme}}://:\u2100{SECRET}@host/0", "its host or port cannot be read"),
    ],
)
def test_a_malformed_url_is_refused_and_its_password_is_not_shown(variable: str, url: str, said: str) -> None:
    """Start-up errors end in logs and tickets: whatever is wrong with a URL, what may be secret is not quoted."""
    scheme = "http" if variable == "PERSONA_LLM_URL" else "redis"
    given = {variable: url.format(scheme=scheme), "PERSONA_LLM_MODEL": "small"}
    with pytest.raises(ConfigurationError) as caught:
        load_settings(given)
    message = str(caught.value)
    assert message.startswith(f"{variable}: malformed URL: ")
    assert said in message
    assert SECRET not in message


def test_a_unix_url_needs_an_absolute_path() -> None:
    """Three slashes: with two, the first part of the path would be a host."""
    assert load_settings({"PERSONA_CACHE_URL": "unix:///run/cache.sock"}).cache_url == "unix:///run/cache.sock"
    assert "expected unix:///absolute/path" in refusal(PERSONA_CACHE_URL="unix://")


def test_a_model_endpoint_needs_a_model() -> None:
    """The message names the variable that is missing, not the one that is there."""
    assert refusal(PERSONA_LLM_URL="http://127.0.0.1:8080/v1").startswith("PERSONA_LLM_MODEL: missing")


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [("PERSONA_STALE_GRACE_S", "60.5", "60.5"), ("PERSONA_LEASE_S", "60", "60"), ("PERSONA_STALE_GRACE_S", "3600", "3600")],
)
def test_a_grace_or_a_lease_longer_than_a_results_life_is_refused(variable: str, value: str, told: str) -> None:
    """Both variables are named, since either may be the one that is wrong."""
    grace = {"PERSONA_STALE_GRACE_S": "0"} | {variable: value}
    message = refusal(**grace, PERSONA_RESULT_TTL_S="59")
    assert message == f"{variable}: {told}; allowed is up to the life of a result, PERSONA_RESULT_TTL_S, which is 59"
    assert load_settings({**grace, "PERSONA_RESULT_TTL_S": "3600"}).result_ttl_s == 3600


@pytest.mark.parametrize(
    ("broker", "result", "backend"),
    [
        ("redis://:pw@host:6380/4?ssl=1", "", "redis://:pw@host:6380/1?ssl=1"),
        ("rediss://host", "", "rediss://host/1?ssl_cert_reqs=required"),
        ("rediss://host/0?ssl_ciphers=DEFAULT", "", "rediss://host/1?ssl_ciphers=DEFAULT&ssl_cert_reqs=required"),
        ("amqp://host//", "", "rpc://"),
        ("amqp://host//", "redis://other/3", "redis://other/3"),
        ("redis://host/0", "rpc://", "rpc://"),
    ],
)
def test_the_result_backend_follows_from_the_broker_unless_it_is_named(broker: str, result: str, backend: str) -> None:
    """One variable is enough to start."""
    settings = load_settings({"PERSONA_BROKER_URL": broker, "PERSONA_RESULT_URL": result})
    assert settings.result_backend_url == backend


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("", "required"),
        ("?ssl_cert_reqs=required", "required"),
        ("?ssl_cert_reqs=CERT_REQUIRED", "required"),
        ("?ssl_cert_reqs=CERT_OPTIONAL", "optional"),
        ("?ssl_cert_reqs=none", "none"),
    ],
)
def test_how_certificates_are_checked_is_said_in_the_spelling_that_all_libraries_take(said: str, kept: str) -> None:
    """Celery refuses `rediss://` without it, the client of beat refuses Celery's own spelling."""
    settings = load_settings({"PERSONA_BROKER_URL": f"rediss://host/0{said}", "PERSONA_RESULT_URL": f"rediss://host/1{said}"})
    assert settings.broker_url == f"rediss://host/0?ssl_cert_reqs={kept}"
    assert settings.result_url == f"rediss://host/1?ssl_cert_reqs={kept}"


@pytest.mark.parametrize("variable", ["PERSONA_BROKER_URL", "PERSONA_RESULT_URL"])
def test_a_check_of_certificates_that_is_none_is_refused(variable: str) -> None:
    """At start, with what is allowed."""
    assert f"{variable}: ssl_cert_reqs: allowed are required" in refusal(**{variable: "rediss://host/0?ssl_cert_reqs=maybe"})


@pytest.mark.parametrize("variable", ["PERSONA_BROKER_URL", "PERSONA_RESULT_URL", "PERSONA_CACHE_URL"])
@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("rediss://host/0?ssl_ca_cert=a.pem", "unknown option ssl_ca_cert"),
        ("rediss://host/0?ssl_ca_certs=/no/such.pem", "ssl_ca_certs: its file cannot be used (No such file or directory)"),
        (f"rediss://host/0?ssl_ca_certs={__file__}", "ssl_ca_certs: its file cannot be used (there is no certificate in it)"),
        ("rediss://host/0?ssl_ca_path=/no/such", "ssl_ca_path: there is no such folder"),
        (f"rediss://host/0?ssl_certfile={__file__}", "ssl_certfile: its file cannot be used (certificate, key and password"),
        ("rediss://host/0?ssl_password=canary&ssl_keyfile=key.pem", "ssl_keyfile: needs ssl_certfile, too"),
        ("rediss://host/0?ssl_ca_certs=", "ssl_ca_certs: is empty"),
        ("rediss://host/0?ssl_ciphers=DEFAULT&ssl_ciphers=DEFAULT", "ssl_ciphers: is given twice"),
        ("rediss://host/0?ssl_check_hostname=perhaps", "ssl_check_hostname: allowed are true and false"),
        ("rediss://host/0?ssl_min_version=1", "ssl_min_version: allowed are 771"),
        ("redis://host/0?ssl_ca_certs=ca.pem", "rediss://"),
    ],
)
def test_an_option_of_tls_that_does_not_fit_is_refused_by_the_variable(variable: str, url: str, why: str) -> None:
    """In the same words for all three, before anything connects; without what may be a password."""
    message = refusal(**{variable: url})
    assert message.startswith(f"{variable}: ")
    assert why in message
    assert "canary" not in message


def test_what_rabbitmqs_client_does_not_take_is_refused() -> None:
    """Rather than left out."""
    assert "RabbitMQ's client takes neither" in refusal(PERSONA_BROKER_URL="amqps://host//?ssl_ca_path=/tmp")
    assert "belongs to amqps://" in refusal(PERSONA_BROKER_URL="amqp://host//?ssl_ca_certs=ca.pem")
    assert load_settings({"PERSONA_BROKER_URL": "amqps://host//?heartbeat=10"}).broker_url == "amqps://host//?heartbeat=10"


def test_settings_do_not_change() -> None:
    """The settings read at start hold until the end."""
    settings = load_settings({})
    with pytest.raises(ValidationError, match="frozen"):
        settings.strict = True


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://user:{SECRET}@host:6379/0", "redis://user:***@host:6379/0"),
        (f"redis://:{SECRET}@host/0", "redis://:***@host/0"),
        (f"unix:///run/s.sock?password={SECRET}&db=2", "unix:///run/s.sock?password=***&db=2"),
        (f"rediss://host/0?ssl_password={SECRET}&db=2", "rediss://host/0?ssl_password=***&db=2"),
        ("redis://host/0?db=2", "redis://host/0?db=2"),
        ("amqp://guest@host//", "amqp://guest@host//"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    """Wherever the client library takes a password from, a log line hides it."""
    assert without_password(url) == shown


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_what_may_hold_a_secret_may_be_read_from_a_file(end: str, tmp_path: Path) -> None:
    """As container platforms hand secrets over: not in the environment, which `docker inspect` and /proc show."""
    for variable, value, name in (
        ("PERSONA_BROKER_URL", "redis://:s3cret@h:1/0", "broker_url"),
        ("PERSONA_CACHE_URL", "redis://:s3cret@h:2/0", "cache_url"),
        ("PERSONA_RESULT_URL", "redis://:s3cret@h:3/0", "result_url"),
    ):
        path = tmp_path / variable
        path.write_bytes((value + end).encode())
        assert getattr(load_settings({f"{variable}_FILE": str(path)}), name) == value
        assert getattr(discover_settings({f"{variable}_FILE": str(path), "PERSONA_STACK_DIR": "/none"}), name) == value
    path.write_text(f"sk-1{end}")
    assert load_settings({"PERSONA_LLM_API_KEY_FILE": str(path)}).llm_api_key.get_secret_value() == "sk-1"


def test_a_file_that_cannot_be_read_is_named_by_its_variable(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError) as refused:
        load_settings(
            {
                "PERSONA_BROKER_URL_FILE": str(tmp_path / "none"),
                "PERSONA_CACHE_URL_FILE": str(tmp_path / "binary"),
                "PERSONA_LLM_API_KEY": "a",
                "PERSONA_LLM_API_KEY_FILE": str(tmp_path / "binary"),
            }
        )
    told = str(refused.value)
    assert "PERSONA_BROKER_URL_FILE: its file cannot be read (No such file or directory)" in told
    assert "PERSONA_CACHE_URL_FILE: its file cannot be read (UnicodeDecodeError)" in told
    assert "PERSONA_LLM_API_KEY_FILE: PERSONA_LLM_API_KEY is given, too" in told


def test_only_what_may_hold_a_secret_has_a_file() -> None:
    with pytest.raises(ConfigurationError, match="PERSONA_LEASE_S_FILE: unknown setting"):
        load_settings({"PERSONA_LEASE_S_FILE": "/none"})
