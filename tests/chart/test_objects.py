"""Every object of every example is valid and consistent with the others."""

from __future__ import annotations

import functools
from typing import Any

import kubernetes_validate
import pytest

from tests.chart.rendering import CERT_MANAGER, CHART, KEDA, MONITORING, SERVICES, Rendered, helm, render

EXAMPLES: dict[str, tuple[str, ...]] = {
    "default": (),
    "production": ("values-production.yaml",),
    "minimal": ("values-minimal.yaml",),
    "keda": ("values-keda.yaml",),
    "gitops": ("values-gitops.yaml",),
}
EXTENSIONS = {"monitoring.coreos.com", "cert-manager.io", "keda.sh"}
"""API groups of third-party controllers, for which Kubernetes has no schema."""
KUBERNETES = ("1.29", "1.31", "1.34", "1.36")


@functools.cache
def example(name: str) -> Rendered:
    return render(files=EXAMPLES[name], api_versions=(*MONITORING, *CERT_MANAGER, *KEDA))


each_example = pytest.mark.parametrize("name", EXAMPLES)


@each_example
def test_helm_lint_finds_no_fault(name: str) -> None:
    files = [part for file in EXAMPLES[name] for part in ("--values", str(CHART / file))]

    helm("lint", "--strict", str(CHART), *files)


@pytest.mark.parametrize("version", KUBERNETES)
@each_example
def test_every_object_fits_the_schema_of_kubernetes(name: str, version: str) -> None:
    for item in example(name).objects:
        group = item["apiVersion"].rpartition("/")[0]
        if group not in EXTENSIONS:
            kubernetes_validate.validate(item, version, strict=True)


@each_example
def test_no_object_is_rendered_twice(name: str) -> None:
    rendered = example(name)

    assert len(rendered.by_identity()) == len(rendered.objects)


@each_example
def test_each_service_has_its_own_deployment(name: str) -> None:
    deployments = example(name).of_kind("Deployment")

    assert {f"mail-{component}" for component in SERVICES.values()} <= set(deployments)


@each_example
def test_every_selector_matches_the_pods_of_one_workload(name: str) -> None:
    rendered = example(name)
    pods = {identity: template["metadata"]["labels"] for identity, template in rendered.pods().items()}

    for kind in ("Deployment", "StatefulSet"):
        for own, item in rendered.of_kind(kind).items():
            chosen = item["spec"]["selector"]["matchLabels"]
            assert [key for key, labels in pods.items() if chosen.items() <= labels.items()] == [(kind, own)]
    for service in rendered.of_kind("Service").values():
        chosen = service["spec"]["selector"]
        found = [key for key, labels in pods.items() if chosen.items() <= labels.items()]
        assert len(found) == 1, f"{service['metadata']['name']} serves {found}"
    for kind in ("PodDisruptionBudget", "PodMonitor"):
        for item in rendered.of_kind(kind).values():
            chosen = item["spec"]["selector"]["matchLabels"]
            assert [key for key, labels in pods.items() if chosen.items() <= labels.items()]


@each_example
def test_the_pods_of_a_service_open_every_port_of_it(name: str) -> None:
    rendered = example(name)

    for service in rendered.of_kind("Service").values():
        chosen = service["spec"]["selector"]
        template = next(t for t in rendered.pods().values() if chosen.items() <= t["metadata"]["labels"].items())
        opened = [port for container in template["spec"]["containers"] for port in container.get("ports", [])]
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            assert target in {p["name"] for p in opened} | {p["containerPort"] for p in opened}


@each_example
def test_scaling_objects_name_a_deployment_without_replicas(name: str) -> None:
    rendered = example(name)
    deployments = rendered.of_kind("Deployment")

    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for item in rendered.of_kind(kind).values():
            target = deployments[item["spec"]["scaleTargetRef"]["name"]]
            assert "replicas" not in target["spec"], item["metadata"]["name"]


def test_each_example_has_the_objects_of_its_purpose() -> None:
    assert {"mail-delivery", "mail-relay"} <= {
        item["spec"]["scaleTargetRef"]["name"] for item in example("keda").of_kind("ScaledObject").values()
    }
    assert not example("production").of_kind("StatefulSet")
    assert example("production").of_kind("HorizontalPodAutoscaler") or example("production").of_kind("ScaledObject")
    assert set(example("default").of_kind("StatefulSet")) == {"mail-nats", "mail-s3", "mail-postgres"}


def _references(template: dict[str, Any]) -> set[tuple[str, str]]:
    """Return (Secret, key) of every environment variable of a pod."""
    found = set()
    for container in template["spec"]["containers"]:
        for entry in container.get("env", []):
            reference = entry.get("valueFrom", {}).get("secretKeyRef")
            if reference is not None and not reference.get("optional"):
                found.add((reference["name"], reference["key"]))
    return found


def test_every_secret_that_a_pod_reads_exists() -> None:
    rendered = example("default")
    there = {
        (name, key)
        for name, secret in rendered.of_kind("Secret").items()
        for key in (*secret.get("data", {}), *secret.get("stringData", {}))
    }

    for identity, template in rendered.pods().items():
        assert _references(template) <= there, identity
        for volume in template["spec"].get("volumes", []):
            if "secret" in volume:
                assert volume["secret"]["secretName"] in {name for name, _ in there}, identity


@pytest.mark.parametrize("component", SERVICES.values())
def test_a_service_reads_no_credentials_but_its_own(component: str) -> None:
    template = example("default").pods()["Deployment", f"mail-{component}"]

    assert {name for name, _ in _references(template)} <= {f"mail-{component}"}
    assert all("secretRef" not in source for c in template["spec"]["containers"] for source in c.get("envFrom", []))


def test_no_secret_has_passwords_of_two_services() -> None:
    secrets = example("default").of_kind("Secret")
    values = [
        (name, value)
        for component in SERVICES.values()
        if (name := f"mail-{component}") in secrets
        for key, value in {**secrets[name].get("data", {}), **secrets[name].get("stringData", {})}.items()
        if key.endswith(("password", "secret-key"))
    ]

    assert len({value for _, value in values}) == len(values) > 0
