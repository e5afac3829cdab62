"""Alerts, dashboard and their manual: one list of metrics, in docs/operations.md, holds them all together."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
from collections import Counter
from typing import Any

import promql_parser
import pytest
from deployment import ROOT, compose, documents

from pipeline.figures.histogram import wide_bound_ms
from pipeline.settings import load_settings
from workers.dashboard.metrics import BOUNDS
from workers.queue.celery_settings import celery_settings

CELERY = celery_settings(load_settings({}))

MONITORING = ROOT / "deploy" / "monitoring"
MANUAL = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
(RULES_FILE,) = documents(MONITORING / "alerts.yml")
RULES = [rule for group in RULES_FILE["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
DASHBOARD = json.loads((MONITORING / "grafana" / "dashboards" / "persona.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

ROW = re.compile(r"^\| `(persona_\w+)` \| (counter|gauge|histogram) \| (?:(.*?) )?\| (.+) \|$", re.MULTILINE)
METRICS: dict[str, tuple[str, dict[str, set[str]]]] = {
    name: (kind, {label: set(values.split(", ")) for label, values in re.findall(r"`(\w+)`: ([^;]+)", labels)})
    for name, kind, labels, _ in ROW.findall(MANUAL)
}
BOUNDS_S = {"+Inf", *(f"{wide_bound_ms(wide) / 1000:.10g}" for wide in BOUNDS)}
"""The buckets that Flower serves: a rule that asks for another one selects nothing."""
OF_PROMETHEUS = {"up": {"job": {"persona"}}, "ALERTS": {"alertname": set(ALERTS), "alertstate": {"firing", "pending"}}}


def series() -> dict[str, dict[str, set[str]]]:
    """The series that Prometheus stores of the list: the names, and each label with its values."""
    found: dict[str, dict[str, set[str]]] = {name: {} for name in RECORDED} | OF_PROMETHEUS
    for name, (kind, labels) in METRICS.items():
        if kind == "histogram":
            found |= {f"{name}_sum": labels, f"{name}_count": labels, f"{name}_bucket": {**labels, "le": BOUNDS_S}}
        else:
            found[name] = labels
    return found


def flowers_own() -> set[str]:
    """Stock Flower's names, from its source."""
    from flower.events import PrometheusMetrics

    names = set(re.findall(r"'(flower_\w+)'", inspect.getsource(PrometheusMetrics)))
    return names | {f"{name}_bucket" for name in names}


def selectors(expression: str) -> list[Any]:
    """Every selector of a PromQL expression. Raises ValueError for a text that is not one."""
    bare = re.sub(r"\$__(rate_interval|range)\b", "5m", expression)
    found: list[Any] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)
        elif isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(bare), visit)
    return list({str(selector): selector for selector in found}.values())


def check(expression: str) -> None:
    """That it names only metrics that exist, and matches only values that a label can have."""
    known = series()
    assert selectors(expression), f"{expression}: selects nothing"
    for selector in selectors(expression):
        if selector.name in flowers_own():
            continue
        assert selector.name in known, f"{expression}: {selector.name} is not in the list of docs/operations.md"
        for matcher in selector.matchers.matchers:
            values = known[selector.name].get(matcher.name)
            assert values is not None, f"{expression}: {selector.name} has no label {matcher.name}"
            if ".*" not in matcher.value:
                assert set(matcher.value.split("|")) <= values, f"{expression}: {matcher.name}={matcher.value}"
    for labels in re.findall(r"\bby \(([^)]*)\)", expression):
        names = {label.strip() for label in labels.split(",")}
        allowed = {"le", "severity"}.union(
            *(known.get(selector.name, {"worker", "task", "type"}) for selector in selectors(expression))
        )
        assert names <= allowed, f"{expression}: by {names - allowed}"


def expressions() -> list[tuple[str, str]]:
    return [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]


def test_the_list_is_there_and_its_labels_are_bounded() -> None:
    """Metrics without bounds on their labels end the Prometheus that collects them."""
    assert len(METRICS) >= 11
    assert METRICS["persona_queue_length"][1]["queue"] == {queue.name for queue in CELERY["task_queues"]}
    for name, (kind, labels) in METRICS.items():
        assert (kind == "counter") == name.endswith("_total")
        assert set(labels) <= {"source", "role", "tier", "queue"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_asks_for_what_there_is(rule: dict[str, Any]) -> None:
    """A mistyped name selects nothing: the alert would be silent for ever."""
    check(rule["expr"])


@pytest.mark.parametrize(("title", "expression"), expressions(), ids=lambda value: value if len(value) < 40 else "")
def test_a_panel_asks_for_what_there_is(title: str, expression: str) -> None:
    """As above: an empty panel passes for a quiet fleet."""
    check(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "persona_request_total",
        'persona_requests_total{source="hit"}',
        'persona_request_seconds_bucket{source="no",le="16"}',
        'persona_nodes{queue="persona"}',
        "sum by (user) (persona_nodes)",
    ],
)
def test_a_wrong_name_or_label_is_found(expression: str) -> None:
    """The two tests above can fail."""
    with pytest.raises(AssertionError):
        check(expression)
    with pytest.raises(ValueError, match=r".+"):
        check("sum(rate(persona_nodes[5m])")


def test_every_metric_is_on_the_dashboard() -> None:
    """A metric that no one sees need not be counted."""
    shown = {selector.name for _, expression in expressions() for selector in selectors(expression)}
    for name, (kind, _) in METRICS.items():
        assert {name, f"{name}_bucket", f"{name}_count"} & shown, name
        assert kind != "histogram" or f"{name}_bucket" in shown


def test_each_alert_says_how_bad_it_is_and_has_a_place_in_the_manual() -> None:
    """An operator who is woken by it finds there what to do; and nothing is there of an alert that is gone."""
    assert set(re.findall(r"^### (Persona\w+)$", MANUAL, re.MULTILINE)) == set(ALERTS)
    for name, alert in ALERTS.items():
        assert alert["labels"]["severity"] in ("critical", "warning"), name
        assert set(alert["annotations"]) == {"summary", "description"}, name
        assert re.fullmatch(r"\d+m", alert["for"]), f"{name}: a restart must not wake anybody"


def test_what_matters_most_has_an_alert() -> None:
    """Hit rate, staleness, queue wait, failures, the cache and the workers."""
    text = {name: alert["expr"] for name, alert in ALERTS.items()}
    for word in ("hit_ratio", "staleness", "queue_wait", "failure_ratio", "cache_up", "persona_nodes", "queue_length"):
        assert any(word in expression for expression in text.values()), word


def test_the_manual_has_each_promise_as_the_rules_have_it() -> None:
    """By the promise's name and what it allows, in every window; a budget that the page does not name is nobody's promise."""
    rows = dict(re.findall(r"^\| \*\*([a-z ]+)\*\* \| [^|]+ \| ([\d,]+ of [\d,]+) \|$", MANUAL, re.MULTILINE))
    said = {
        promise: int(part.replace(",", "")) / int(of.replace(",", ""))
        for promise, text in rows.items()
        for part, of in [text.split(" of ")]
    }
    burns = [rule for rule in RULES if rule.get("record", "").startswith("persona:budget_burn:")]
    assert {rule["labels"]["promise"] for rule in burns} == set(said) == {"answered", "in time", "fresh"}
    for rule in burns:
        window = rule["record"].partition(":rate")[2]
        assert set(re.findall(r"\[(\w+)\]", rule["expr"])) == {window}, rule["record"]
        assert float(rule["expr"].rpartition("/ ")[2]) == pytest.approx(said[rule["labels"]["promise"]])


def test_every_alert_is_tried_out() -> None:
    """`promtool test rules` runs them over made-up series: each fires there, and each is silent over a healthy fleet."""
    (cases,) = documents(MONITORING / "alerts.test.yml")
    fired: set[str] = set()
    silent: set[str] = set()
    for case in cases["tests"]:
        for tried in case["alert_rule_test"]:
            (fired if tried["exp_alerts"] else silent).add(tried["alertname"])
    assert fired == silent == set(ALERTS)


@pytest.mark.timeout(300)  # seven seconds of a processor's time, which a busy machine may take minutes to give
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, of Prometheus, is not installed")
@pytest.mark.parametrize(
    "command", ["check config --syntax-only prometheus.yml", "check rules alerts.yml", "test rules alerts.test.yml"]
)
def test_promtool_agrees(command: str) -> None:
    """Prometheus's own judgement, where it can be had."""
    done = subprocess.run(
        ["promtool", *command.split()], cwd=MONITORING, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_panels_have_places_words_and_a_source() -> None:
    """No two overlap, and none is without a sentence on what it shows."""
    taken: Counter[tuple[int, int]] = Counter()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        taken.update(
            (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
        )
    assert max(taken.values()) == 1
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_grafana_finds_dashboard_and_source() -> None:
    """By the paths that docker-compose.yml mounts and the uid that the source has."""
    provisioning = MONITORING / "grafana" / "provisioning"
    (sources,) = documents(provisioning / "datasources" / "prometheus.yml")
    (source,) = sources["datasources"]
    (variable,) = DASHBOARD["templating"]["list"]
    assert variable["current"]["value"] == source["uid"]
    assert source["url"] == "http://prometheus:9090"
    (providers,) = documents(provisioning / "dashboards" / "persona.yml")
    grafana = compose()["services"]["grafana"]
    folder = providers["providers"][0]["options"]["path"]
    assert f"./deploy/monitoring/grafana/dashboards:{folder}:ro" in grafana["volumes"]
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == f"{folder}/persona.json"


def test_prometheus_scrapes_flower_with_its_password() -> None:
    """The user, the file of the password and the job's name, which an alert asks for."""
    (config,) = documents(MONITORING / "prometheus.yml")
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "persona"
    services = compose()["services"]
    assert services["flower"]["environment"]["FLOWER_BASIC_AUTH"].partition(":")[0] == job["basic_auth"]["username"]
    (secret,) = services["prometheus"]["secrets"]
    assert job["basic_auth"]["password_file"] == f"/run/secrets/{secret}"
    assert compose()["secrets"][secret] == {"environment": "FLOWER_PASSWORD"}
    for file in config["rule_files"]:
        assert f"./deploy/monitoring/{file}:/etc/prometheus/{file}:ro" in services["prometheus"]["volumes"]
