"""Each value changes its own objects only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chart.api_server import api_server
from tests.chart.rendering import CERT_MANAGER, NAMESPACE, SERVICES, Refused, Rendered, render


def _changed(before: Rendered, after: Rendered) -> set[tuple[str, str]]:
    old, new = before.by_identity(), after.by_identity()
    return {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A cluster with the Secrets of a first installation."""
    secrets = render().of_kind("Secret").values()
    with api_server(secrets, tmp_path_factory.mktemp("cluster")) as path:
        yield path


def _again(kubeconfig: Path, values: dict[str, Any] | None = None) -> Rendered:
    return render(values, more=("--dry-run=server", "--is-upgrade", "--kubeconfig", str(kubeconfig)))


def test_an_upgrade_keeps_every_secret(kubeconfig: Path) -> None:
    first, second = _again(kubeconfig), _again(kubeconfig)

    assert first.of_kind("Secret") == second.of_kind("Secret")
    assert first.of_kind("Secret").keys() >= {"mail-engines", "mail-imap", "mail-migrate"}


def test_without_a_first_installation_secrets_are_new_each_time() -> None:
    assert render().of_kind("Secret") != render().of_kind("Secret")


@pytest.mark.parametrize(("key", "component"), SERVICES.items())
def test_replicas_of_a_service_change_nothing_else(kubeconfig: Path, key: str, component: str) -> None:
    before, after = _again(kubeconfig), _again(kubeconfig, {f"{key}.replicas": 5})

    assert after.get("Deployment", f"mail-{component}")["spec"]["replicas"] == 5
    assert _changed(before, after) <= {
        ("Deployment", f"mail-{component}"),
        ("PodDisruptionBudget", f"mail-{component}"),
    }


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"smtpIngres.replicas": 2}, "smtpIngres"),
        ({"smtpIngress.replica": 2}, "replica"),
        ({"imap.replicas": "two"}, "replicas"),
        ({"bundled.enable": False}, "enable"),
        ({"image.pullPolicy": "Sometimes"}, "pullPolicy"),
        ({"relay.service.type": "LoadBalancer"}, "service"),
        ({"delivery.settings": {"DELIVERY_JOBS": 5}}, "DELIVERY_JOBS"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_schema_refuses_a_typo_and_names_it(values: dict[str, Any], part: str) -> None:
    with pytest.raises(Refused, match=part):
        render(values)


def test_without_bundled_engines_the_chart_requires_external_ones() -> None:
    with pytest.raises(Refused, match=r"(?s)nats.*s3.*postgres|bundled"):
        render({"bundled.enabled": False})


def test_the_image_of_the_engines_follows_the_image() -> None:
    rendered = render({"image.repository": "example.test/box", "image.tag": "7", "image.pullPolicy": "Never"})

    for (kind, name), template in rendered.pods().items():
        container = template["spec"]["containers"][0]
        expected = "example.test/box-engines:7" if kind == "StatefulSet" else "example.test/box:7"
        assert (container["image"], container["imagePullPolicy"]) == (expected, "Never"), name


def test_submission_can_have_its_own_deployment() -> None:
    rendered = render({"smtpIngress.submission.separate": True})
    services = rendered.of_kind("Service")

    def ports(name: str) -> set[int]:
        return {port["port"] for port in services[name]["spec"]["ports"] if port["name"] != "metrics"}

    assert ports("mail-smtp-ingress") == {25}
    assert ports("mail-submission") == {587, 465}
    assert "mail-submission" in rendered.of_kind("Deployment")


@pytest.mark.parametrize("component", ["smtp-ingress", "imap", "pop3"])
def test_a_mail_service_keeps_the_address_of_its_clients(component: str) -> None:
    service = render().get("Service", f"mail-{component}")

    assert service["spec"]["type"] == "LoadBalancer"
    assert service["spec"]["externalTrafficPolicy"] == "Local"


def test_the_values_name_the_source_of_a_certificate() -> None:
    def mounted(rendered: Rendered) -> set[str]:
        return {
            volume["secret"]["secretName"]
            for component in ("smtp-ingress", "imap", "pop3")
            for volume in rendered.pods()["Deployment", f"mail-{component}"]["spec"]["volumes"]
            if volume["name"] == "tls"
        }

    own = render()
    (secret,) = mounted(own)
    assert own.get("Secret", secret)["type"] == "kubernetes.io/tls"

    given = render({"tls.existingSecret": "mine"})
    assert mounted(given) == {"mine"}
    assert secret not in given.of_kind("Secret")

    issued = render(
        {"tls.certManager": {"enabled": True, "issuerRef": {"name": "issuer", "kind": "ClusterIssuer"}}},
        api_versions=CERT_MANAGER,
    )
    (certificate,) = issued.of_kind("Certificate").values()
    assert mounted(issued) == {certificate["spec"]["secretName"]}
    assert certificate["spec"]["secretName"] not in issued.of_kind("Secret")


def test_objects_are_created_in_the_namespace_of_the_release() -> None:
    assert {item["metadata"].get("namespace", NAMESPACE) for item in render().objects} == {NAMESPACE}
