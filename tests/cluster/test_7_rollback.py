"""Every switch that takes something out of the manifest can be taken back with `helm rollback`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.harness.commands import CommandError
from tests.cluster.harness.release import SERVICES, Release
from tests.cluster.harness.traffic import inbox

CALLERS = ("admin", *SERVICES)
ELSEWHERE = {
    "bundled": {"enabled": False},
    "nats": {"url": ["nats://nats.example.test:4222"]},
    "s3": {"endpoint": "http://s3.example.test:9000", "credentials": {"existingSecret": "engines-elsewhere"}},
    "postgres": {"host": "postgres.example.test", "owner": {"existingSecret": "engines-elsewhere"}},
}


def _copy(release: Release, names: Iterable[str]) -> None:
    """Secrets of the user's, with what the release's own have: `own-NAME`."""
    for name in names:
        secret = release.get("secret", f"{release.name}-{name}")
        wanted = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"own-{name}"}}
        release.kubectl(
            "apply", "-f", "-", stdin=json.dumps({**wanted, "type": secret["type"], "data": secret["data"]})
        )


def _back_and_forth(release: Release, changes: dict[str, Any], *flags: str) -> None:
    """Upgrade with `changes`, roll back, and find the revision before as it was."""
    values, (before, status) = release.values, release.revision()
    assert status == "deployed"
    manifest = release.helm("get", "manifest", release.name)
    secrets = {item["metadata"]["name"] for item in release.get("secrets")["items"] if item["type"] != HELM}
    try:
        release.upgrade(changes, *flags, seconds=320)
        assert release.revision() == (before + 1, "deployed")
        assert secrets <= {item["metadata"]["name"] for item in release.get("secrets")["items"]}
        release.rollback(before)
    finally:
        release.values = values
    assert release.revision() == (before + 2, "deployed")
    assert release.helm("get", "manifest", release.name) == manifest
    assert release.helm("get", "values", release.name, "-o", "json") == release.helm(
        "get", "values", release.name, "-o", "json", "--revision", before
    )
    release.wait_ready(180)


HELM = "helm.sh/release.v1"
READY = ("--wait", "--timeout", "300s")


def test_a_certificate_of_one_s_own(installed: Release) -> None:
    _copy(installed, ["tls"])
    _back_and_forth(installed, {"tls": {"existingSecret": "own-tls"}}, *READY)


def test_secrets_of_one_s_own(installed: Release) -> None:
    _copy(installed, ["imap", "pop3"])
    _back_and_forth(installed, {"secrets": {"existing": {"imap": "own-imap", "pop3": "own-pop3"}}}, *READY)


def test_certificates_between_services(installed: Release) -> None:
    _copy(installed, [f"grpc-{caller}" for caller in CALLERS])
    named = {caller.replace("-", "_"): f"own-grpc-{caller}" for caller in CALLERS}
    _back_and_forth(installed, {"internalTls": {"existingSecrets": named}}, *READY)


def test_the_demo(installed: Release) -> None:
    _back_and_forth(installed, {"demo": {"enabled": False}}, *READY)


@pytest.mark.parametrize("kind", ["ClusterIP", "NodePort"])
def test_the_type_of_services(installed: Release, kind: str) -> None:
    service = {"service": {"type": kind}}
    changes = {"smtpIngress": {**service, "submission": {"separate": True, **service}}, "imap": service}
    _back_and_forth(installed, changes, *READY)


def test_engines_of_one_s_own(installed: Release, scratch: Path) -> None:
    """Engines that do not exist: the services wait for them, and find the mail when the others are back."""
    keys = ("username", "password", "s3-access-key", "s3-secret-key")
    wanted = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "engines-elsewhere"}}
    installed.kubectl("apply", "-f", "-", stdin=json.dumps({**wanted, "stringData": dict.fromkeys(keys, "x")}))
    before = {user: inbox(installed, scratch, user) for user in ("alice", "bob")}

    _back_and_forth(installed, ELSEWHERE)

    assert {user: inbox(installed, scratch, user) for user in ("alice", "bob")} == before
    assert "Succeeded" in installed.helm("test", installed.name, "--logs", "--timeout", "120s")


def test_a_revision_that_an_earlier_chart_left_without_them(installed: Release) -> None:
    """What is kept and is in no manifest any more, as charts did before, is taken in by the next upgrade."""
    _copy(installed, ["tls"])
    installed.upgrade({"tls": {"existingSecret": "own-tls"}}, *READY)
    rendered = installed.helm("get", "manifest", installed.name)
    assert f"name: {installed.name}-tls\n" in rendered
    installed.upgrade({"tls": {"existingSecret": ""}}, *READY)


def test_helm_test_says_why_it_failed(installed: Release) -> None:
    installed.scale("imap", 0)
    selector = f"app.kubernetes.io/instance={installed.name},app.kubernetes.io/component=imap"
    installed.kubectl("wait", "--for=delete", "pod", "-l", selector, "--timeout=120s", seconds=130)  # it drains
    try:
        with pytest.raises(CommandError) as failed:
            installed.helm("test", installed.name, "--logs", "--timeout", "180s")
    finally:
        installed.scale("imap", 1)
    place = f"{installed.name}-imap:143"
    assert f"the round trip failed at imap ({place}): connection refused; is one of its pods ready?" in str(
        failed.value
    )
    pod = installed.get("pod", f"{installed.name}-test")
    assert "connection refused" in pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"]


def test_a_name_that_cannot_be_makes_nothing(installed: Release) -> None:
    def there() -> set[str]:
        items = installed.get("pods,secrets,services,deployments")["items"]
        return {f"{item['kind']}/{item['metadata']['name']}" for item in items if "1mail" in item["metadata"]["name"]}

    with pytest.raises(CommandError, match="cannot begin the name of a Service"):
        Release(installed.place, installed.namespace, name="1mail").install()
    assert there() == set()
