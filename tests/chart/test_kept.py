"""Objects that stay in the cluster stay in the manifest, because `helm rollback` fails otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chart.api_server import api_server, owned
from tests.chart.rendering import CERT_MANAGER, NAMESPACE, RELEASE, SERVICES, Rendered, render

USERS = ("smtp_ingress", "recipient_validation", "delivery", "relay", "imap", "pop3", "janitor", "migrate")
EXTERNAL = {
    "bundled.enabled": False,
    "nats.url": ["nats://nats:4222"],
    "s3.endpoint": "https://s3.example.net",
    "s3.credentials.existingSecret": "s3",
    "postgres.host": "db",
    "postgres.owner.existingSecret": "db-app",
}
SWITCHES: dict[str, dict[str, Any]] = {
    "a certificate of one's own": {"tls.existingSecret": "mine"},
    "a certificate of cert-manager": {"tls.certManager": {"enabled": True, "issuerRef": {"name": "issuer"}}},
    "one Secret of one's own": {"secrets.existing.imap": "mine"},
    "all Secrets of one's own": {f"secrets.existing.{user}": f"own-{user}" for user in (*USERS, "engines")},
    "engines of one's own": EXTERNAL,
    "no demo": {"demo.enabled": False},
    "a demo with a Secret of one's own": {"demo.existingSecret": "mine"},
    "no TLS between services": {"internalTls.enabled": False},
    "certificates between services of one's own": {
        "internalTls.existingSecrets": {
            caller.replace("-", "_"): f"own-{caller}" for caller in ("admin", *SERVICES.values())
        }
    },
    "certificates between services of cert-manager": {"internalTls.certManager.enabled": True},
    "no janitor and another type of Service": {"janitor.enabled": False, "imap.service.type": "ClusterIP"},
}


def _installed() -> Rendered:
    return render({"demo.enabled": True})


def _upgraded(secrets: list[dict[str, Any]], directory: Path, values: dict[str, Any]) -> Rendered:
    with api_server(secrets, directory) as kubeconfig:
        more = ("--dry-run=server", "--is-upgrade", "--kubeconfig", str(kubeconfig))
        return render({"demo.enabled": True, **values}, api_versions=CERT_MANAGER, more=more)


def _own(name: str) -> dict[str, Any]:
    """Return a user's Secret with every key that a service may need."""
    keys = ("nats-user", "nats-password", "s3-access-key", "s3-secret-key", "postgres-password", "admin-token")
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": dict.fromkeys(keys, "dGVzdA==")}


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_kept_secret_is_in_the_manifest_after(switch: str, tmp_path: Path) -> None:
    before = _installed().of_kind("Secret")
    kept = {name: item for name, item in before.items() if item["metadata"]["annotations"]["helm.sh/resource-policy"]}
    assert len(kept) == len(before) >= 15
    in_cluster = [owned(item, RELEASE, NAMESPACE) for item in before.values()]
    theirs = [_own(name) for name in ("mine", *(f"own-{user}" for user in USERS))]

    after = _upgraded([*in_cluster, *theirs], tmp_path, SWITCHES[switch]).of_kind("Secret")

    assert after.keys() >= before.keys()
    for name, item in before.items():
        assert after[name]["data"].keys() >= item["data"].keys(), name
        if name != "mail-engines":  # the engines accept the logins of the user's Secret
            assert after[name]["data"].items() >= item["data"].items(), name
        assert after[name]["type"] == item["type"]
        assert after[name]["metadata"]["annotations"] == item["metadata"]["annotations"], name


def test_a_secret_that_is_not_this_release_s_is_left_alone(tmp_path: Path) -> None:
    before = _installed().of_kind("Secret")
    others = owned(before["mail-tls"], "post", NAMESPACE)
    made_by_hand = _own("mail-demo")

    after = _upgraded([others, made_by_hand], tmp_path, {"tls.existingSecret": "mine", "demo.enabled": False})

    assert not {"mail-tls", "mail-demo"} & after.of_kind("Secret").keys()


def test_a_deleted_object_is_not_restored(tmp_path: Path) -> None:
    assert "mail-tls" not in _upgraded([], tmp_path, {"tls.existingSecret": "mine"}).of_kind("Secret")
