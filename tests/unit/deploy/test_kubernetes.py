"""The Kubernetes manifests: the references between objects are true, and they run what docker-compose.yml runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from deployment import KUBERNETES, ROOT, compose, documents, manifests, seconds

from pipeline.settings import PREFIX, Settings, load_settings
from workers.queue.celery_settings import celery_settings

CELERY = celery_settings(load_settings({}))

BASE = manifests("base")
(BASE_FILE,) = documents(KUBERNETES / "base" / "kustomization.yaml")
(SCALING_FILE,) = documents(KUBERNETES / "autoscaling" / "kustomization.yaml")
SCALING = documents(KUBERNETES / "autoscaling" / "keda.yaml")
SECRETS = {document["metadata"]["name"]: document["stringData"] for document in documents(KUBERNETES / "secrets.example.yaml")}
NAMESPACE = BASE_FILE["namespace"]
QUEUES = {queue.name for queue in CELERY["task_queues"]}
COMPOSE = compose()["services"]

# The API's own names of the fields used here and near them: a server drops, or refuses, any other.
POD_FIELDS = {
    "affinity", "automountServiceAccountToken", "containers", "enableServiceLinks", "imagePullSecrets", "initContainers",
    "nodeSelector", "priorityClassName", "securityContext", "serviceAccountName", "terminationGracePeriodSeconds", "tolerations",
    "topologySpreadConstraints", "volumes",
}  # fmt: skip
CONTAINER_FIELDS = {
    "args", "command", "env", "envFrom", "image", "imagePullPolicy", "lifecycle", "livenessProbe", "name", "ports",
    "readinessProbe", "resources", "securityContext", "startupProbe", "volumeMounts", "workingDir",
}  # fmt: skip
PROBE_FIELDS = {"exec", "failureThreshold", "httpGet", "initialDelaySeconds", "periodSeconds", "tcpSocket", "timeoutSeconds"}
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def of_kind(*kinds: str) -> dict[str, dict[str, Any]]:
    return {document["metadata"]["name"]: document for document in BASE if document["kind"] in kinds}


WORKLOADS = of_kind("Deployment", "StatefulSet")
SERVICES = of_kind("Service")
APP = ("worker", "worker-bulk", "beat", "flower")
WORKERS = ("worker", "worker-bulk")


def pod(name: str) -> dict[str, Any]:
    found: dict[str, Any] = WORKLOADS[name]["spec"]["template"]["spec"]
    return found


def container(name: str) -> dict[str, Any]:
    (found,) = pod(name)["containers"]
    assert isinstance(found, dict)
    return found


def labels(name: str) -> dict[str, str]:
    found: dict[str, str] = WORKLOADS[name]["spec"]["template"]["metadata"]["labels"]
    return found


def selected(selector: dict[str, str]) -> set[str]:
    return {name for name in WORKLOADS if selector.items() <= labels(name).items()}


def ports(name: str) -> set[str]:
    return {port["name"] for port in container(name).get("ports", ())}


def config_maps() -> dict[str, set[str]]:
    """Of the two kustomizations, with their keys."""
    (servers,) = documents(ROOT / "deploy" / "valkey" / "kustomization.yaml")
    found = {}
    for generated in [*BASE_FILE["configMapGenerator"], *servers["configMapGenerator"]]:
        found[generated["name"]] = {line.partition("=")[0] for line in generated.get("literals", ())} | set(
            generated.get("files", ())
        )
    return found


def test_the_kustomizations_list_every_file_and_no_other() -> None:
    """A manifest that is listed nowhere is not applied."""
    for folder, kustomization in (("base", BASE_FILE), ("autoscaling", SCALING_FILE)):
        directory = KUBERNETES / folder
        listed = kustomization["resources"]
        assert {name for name in listed if name.endswith(".yaml")} == {
            path.name for path in directory.glob("*.yaml") if path.name != "kustomization.yaml"
        }
        for name in listed:
            path = directory / name
            assert path.is_file() or (path / "kustomization.yaml").is_file(), path
        assert kustomization["namespace"] == NAMESPACE
    for generated in documents(ROOT / "deploy" / "valkey" / "kustomization.yaml")[0]["configMapGenerator"]:
        assert all((ROOT / "deploy" / "valkey" / name).is_file() for name in generated["files"])


def test_there_is_what_the_compose_file_has() -> None:
    """The five, and workers for batches beside them."""
    assert set(WORKLOADS) == {"broker", "cache", "worker", "worker-bulk", "beat", "flower"}
    assert set(SERVICES) == {"broker", "cache", "flower"}
    assert of_kind("Namespace")[NAMESPACE]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_a_workload_has_the_pods_that_it_selects(name: str) -> None:
    """And no other workload's."""
    selector = WORKLOADS[name]["spec"]["selector"]["matchLabels"]
    assert selected(selector) == {name}
    for spread in pod(name).get("topologySpreadConstraints", ()):
        assert selected(spread["labelSelector"]["matchLabels"]) == {name}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_leads_to_its_pods(name: str) -> None:
    """By labels and by the port's name; with the port that the configuration says."""
    spec = SERVICES[name]["spec"]
    assert selected(spec["selector"]) == {name}
    assert {port["targetPort"] for port in spec["ports"]} <= ports(name)
    (inside,) = container(name)["ports"]
    assert spec["ports"][0]["port"] == inside["containerPort"] == (5555 if name == "flower" else 6379)


def test_budgets_and_policies_name_pods_and_ports_that_exist() -> None:
    """A policy that selects nothing protects nothing, and says so nowhere."""
    for name, budget in of_kind("PodDisruptionBudget").items():
        assert selected(budget["spec"]["selector"]["matchLabels"]) == {name}
    assert set(of_kind("PodDisruptionBudget")) == set(WORKERS)
    policies = of_kind("NetworkPolicy")
    assert policies.pop("nobody")["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    assert set(policies) == set(SERVICES)
    for name, policy in policies.items():
        assert selected(policy["spec"]["podSelector"]["matchLabels"]) == {name}
        for rule in policy["spec"]["ingress"]:
            assert {port["port"] for port in rule["ports"]} <= ports(name)
            for source in rule["from"]:
                if "podSelector" in source:
                    assert selected(source["podSelector"]["matchLabels"])


def test_each_part_that_connects_to_a_server_may() -> None:
    """The label that the policy asks for, on every pod that has the server's address."""
    for name in APP:
        assert labels(name)["persona/uses-broker"] == "true"
    for name in (*WORKERS, "flower"):
        assert labels(name)["persona/uses-cache"] == "true"


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_a_pod_meets_the_restricted_profile_and_has_bounds(name: str) -> None:
    """Not root, nothing to write except the mounts, no privileges, no token, no variables of Services."""
    spec, only = pod(name), container(name)
    assert set(spec) <= POD_FIELDS
    assert set(only) <= CONTAINER_FIELDS
    security = spec["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert {"cpu", "memory"} <= set(only["resources"]["requests"])
    assert "memory" in only["resources"]["limits"]
    found = [only[probe] for probe in PROBES if probe in only]
    assert only["livenessProbe"] in found
    for probe in found:
        assert set(probe) <= PROBE_FIELDS
        assert len({"exec", "httpGet", "tcpSocket"} & set(probe)) == 1
        if "httpGet" in probe:
            assert probe["httpGet"]["port"] in ports(name)


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_everything_that_a_pod_refers_to_exists(name: str) -> None:
    """ConfigMaps, Secrets and their keys, volumes."""
    spec, only = pod(name), container(name)
    maps = config_maps()
    for source in only.get("envFrom", ()):
        assert source["configMapRef"]["name"] in maps if "configMapRef" in source else source["secretRef"]["name"] in SECRETS
    for variable in only.get("env", ()):
        if "valueFrom" in variable:
            reference = variable["valueFrom"]["secretKeyRef"]
            assert reference["key"] in SECRETS[reference["name"]]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    claimed = {claim["metadata"]["name"] for claim in WORKLOADS[name]["spec"].get("volumeClaimTemplates", ())}
    assert {mount["name"] for mount in only["volumeMounts"]} == set(volumes) | claimed
    for volume in volumes.values():
        assert "configMap" not in volume or volume["configMap"]["name"] in maps


def given() -> dict[str, str]:
    (settings,) = [entry for entry in BASE_FILE["configMapGenerator"] if entry["name"] == "persona-settings"]
    literals = dict(line.split("=", 1) for line in settings["literals"])
    return {**literals, **SECRETS["persona-connections"]}


def test_the_settings_are_good_and_name_the_services() -> None:
    """Every variable is a setting; hosts and ports are those of the Services; the passwords are the servers' own."""
    assert all(variable.removeprefix(PREFIX).lower() in Settings.model_fields for variable in given())
    settings = load_settings(given())
    for server, url in (("broker", settings.broker_url), ("cache", settings.cache_url)):
        parts = urlsplit(url)
        assert parts.hostname == server
        assert parts.port == SERVICES[server]["spec"]["ports"][0]["port"]
        assert parts.password == SECRETS["persona-servers"][f"{server}-password"]
    for name in APP:
        assert {"configMapRef": {"name": "persona-settings"}} in container(name)["envFrom"]
        assert {"secretRef": {"name": "persona-connections"}} in container(name)["envFrom"]
        assert not [variable for variable in container(name).get("env", ()) if variable["name"].startswith(PREFIX)]


def test_the_template_fills_each_placeholder_in_one_go() -> None:
    """As its own comment and docs/operations.md have it: three passwords, the same wherever they are used."""
    text = (KUBERNETES / "secrets.example.yaml").read_text(encoding="utf-8")
    body = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    placeholders = set(re.findall(r"[A-Z]+_PASSWORD", body))
    assert placeholders == {"BROKER_PASSWORD", "CACHE_PASSWORD", "FLOWER_PASSWORD"}
    for where in (text, (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")):
        assert placeholders <= set(re.findall(r"s/([A-Z]+_PASSWORD)/\$\(openssl rand -hex 24\)/", where))
    assert all(document["metadata"]["namespace"] == NAMESPACE for document in documents(KUBERNETES / "secrets.example.yaml"))


def bare(command: list[str]) -> list[str]:
    """Without what differs between the two on purpose: which queues."""
    return [argument for argument in command if not argument.startswith("--queues=")]


@pytest.mark.parametrize("name", APP)
def test_the_commands_are_those_of_the_compose_file(name: str) -> None:
    """One of them is run by a test: what runs here and what runs there is the same."""
    there = COMPOSE[name.removesuffix("-bulk")]
    assert bare(container(name)["command"]) == there["command"]
    image = {entry["name"] for entry in BASE_FILE["images"]}
    assert container(name)["image"] in image
    plain = {entry["name"]: entry["value"] for entry in container(name).get("env", ()) if "value" in entry}
    there_plain = {key: value for key, value in there["environment"].items() if not key.startswith((PREFIX, "FLOWER_BASIC"))}
    assert plain == there_plain
    assert pod(name)["terminationGracePeriodSeconds"] == seconds(there["stop_grace_period"])


@pytest.mark.parametrize("name", ["worker", "worker-bulk", "beat", "broker", "cache"])
def test_the_checks_are_those_of_the_compose_file(name: str) -> None:
    """As above."""
    there = COMPOSE[name.removesuffix("-bulk")]["healthcheck"]["test"]
    expected = ["sh", "-c", there[1]] if there[0] == "CMD-SHELL" else there[1:]
    for probe in PROBES:
        if probe in container(name):
            assert container(name)[probe]["exec"]["command"] == expected


@pytest.mark.parametrize("name", ["broker", "cache"])
def test_the_servers_are_started_as_in_the_compose_file(name: str) -> None:
    """Each with the configuration of its own."""
    there, here = COMPOSE[name]["command"][-1], container(name)["command"][-1]
    assert here == there.replace("/etc/valkey.conf", f"/etc/valkey/{name}.conf")
    assert f"{name}.conf" in config_maps()["valkey"]
    assert container(name)["image"] == COMPOSE[name]["image"]


def test_there_is_never_a_second_cache() -> None:
    """Behind one Service, two would each have a log of its own, and neither would be the truth."""
    for name in ("cache", "broker"):
        assert WORKLOADS[name]["spec"]["replicas"] == 1
    assert WORKLOADS["cache"]["spec"]["strategy"] == {"type": "Recreate"}


def queues_of(name: str) -> set[str]:
    (argument,) = [argument for argument in container(name)["command"] if argument.startswith("--queues=")]
    return set(argument.removeprefix("--queues=").split(","))


def test_every_queue_is_read_by_one_of_the_workers() -> None:
    """And batches by workers of their own."""
    assert queues_of("worker") | queues_of("worker-bulk") == QUEUES
    assert queues_of("worker-bulk") == {"persona.bulk"}
    assert not queues_of("worker") & queues_of("worker-bulk")


def triggers() -> Iterator[tuple[str, dict[str, Any]]]:
    for document in SCALING:
        if document["kind"] == "ScaledObject":
            for trigger in document["spec"]["triggers"]:
                yield document["spec"]["scaleTargetRef"]["name"], trigger


def test_workers_are_scaled_by_the_queues_that_they_read() -> None:
    """The list is the queue's, the server the broker, the password its own, and only KEDA says how many there are."""
    (login,) = [document for document in SCALING if document["kind"] == "TriggerAuthentication"]
    for reference in login["spec"]["secretTargetRef"]:
        assert reference["key"] in SECRETS[reference["name"]]
        assert reference["parameter"] == "password"
    database = urlsplit(given()["PERSONA_BROKER_URL"]).path.removeprefix("/")
    for target, trigger in triggers():
        assert trigger["type"] == "redis"
        assert trigger["authenticationRef"]["name"] == login["metadata"]["name"]
        metadata = trigger["metadata"]
        assert metadata["listName"] in queues_of(target)
        assert metadata["address"] == f"broker.{NAMESPACE}.svc:6379"
        assert metadata["databaseIndex"] == database
        assert all(isinstance(value, str) for value in metadata.values()), "KEDA takes texts alone"
    (patch,) = SCALING_FILE["patches"]
    assert {target for target, _ in triggers()} == set(WORKERS) == set(patch["target"]["name"].split("|"))
    assert "path: /spec/replicas" in patch["patch"]
    keda = of_kind("NetworkPolicy")["broker"]["spec"]["ingress"][0]["from"][1]["namespaceSelector"]["matchLabels"]
    assert keda == {"kubernetes.io/metadata.name": "keda"}


def test_only_batches_may_be_left_without_a_worker() -> None:
    """Callers wait for everything else."""
    for document in SCALING:
        if document["kind"] == "ScaledObject":
            spec = document["spec"]
            assert spec["minReplicaCount"] < spec["maxReplicaCount"]
            assert (spec["minReplicaCount"] == 0) == (spec["scaleTargetRef"]["name"] == "worker-bulk")
