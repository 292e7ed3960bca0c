"""Rendering without a cluster (Argo CD, `helm template`) gives the same text each time when the values name Secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chart.api_server import api_server
from tests.chart.rendering import CERT_MANAGER, CHART, KEDA, MONITORING, Refused, render

USERS = ("smtp_ingress", "recipient_validation", "delivery", "relay", "imap", "pop3", "janitor", "migrate", "engines")
NAMED = {"tls.existingSecret": "tls", **{f"secrets.existing.{user}": f"s-{user}" for user in USERS}}
EXAMPLES = ("", *sorted(path.name for path in CHART.glob("values-*.yaml")))


def _twice(values: dict[str, Any], files: tuple[str, ...]) -> None:
    versions = (*MONITORING, *CERT_MANAGER, *KEDA)
    first, second = (render(values, files=files, api_versions=versions) for _ in range(2))
    assert first.objects == second.objects
    assert not first.of_kind("Secret")


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_rendered_the_same_twice(example: str) -> None:
    values = dict(NAMED)
    if example == "values-production.yaml":  # it uses cert-manager and external engines
        del values["tls.existingSecret"]
    if example == "values-gitops.yaml":  # its values name them already
        values = {}
    _twice({**values, "demo.existingSecret": "s-demo"}, (example,) if example else ())


def test_pods_mount_certificates_that_the_rendering_does_not_create() -> None:
    rendered = render(NAMED)

    for component in ("imap", "smtp-ingress", "recipient-validation"):
        volumes = rendered.pods()["Deployment", f"mail-{component}"]["spec"]["volumes"]
        (found,) = [volume["secret"]["secretName"] for volume in volumes if volume["name"] == "grpc-tls"]
        assert found == f"mail-grpc-{component}"


def test_helm_still_creates_certificates_beside_secrets_that_it_can_read(tmp_path: Path) -> None:
    keys = ("nats-user", "nats-password", "s3-access-key", "s3-secret-key", "postgres-password", "admin-token")
    there = [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"s-{user}"}, "data": dict.fromkeys(keys, "eA==")}
        for user in USERS
    ]
    with api_server(there, tmp_path) as kubeconfig:
        rendered = render(NAMED, more=("--dry-run=server", "--kubeconfig", str(kubeconfig)))
    assert {"mail-grpc-ca", "mail-grpc-imap", "mail-grpc-admin"} <= rendered.of_kind("Secret").keys()


def test_a_secret_of_the_bundled_engines_alone_is_refused() -> None:
    with pytest.raises(Refused, match=r"set secrets\.existing\.engines too"):
        render({"secrets.existing.imap": "mine"})
