"""`helm uninstall` removes what runs and leaves what is kept; installing again finds every mail under its UID."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.harness.commands import until
from tests.cluster.harness.release import ENGINES, Release
from tests.cluster.harness.traffic import inbox


def volumes(release: Release) -> dict[str, str]:
    """Claim to its volume."""
    return {item["metadata"]["name"]: item["spec"]["volumeName"] for item in release.get("pvc")["items"]}


def left(release: Release) -> set[str]:
    """What is still there of the release, but for Secrets and claims, which are said to stay."""
    kinds = "pods,jobs,cronjobs,deployments,statefulsets,services,configmaps,networkpolicies,poddisruptionbudgets"
    items = release.get(kinds, "-l", f"app.kubernetes.io/instance={release.name}")["items"]
    return {f"{item['kind']}/{item['metadata']['name']}" for item in items}


def test_an_installation_under_the_same_name_finds_the_mail(installed: Release, scratch: Path) -> None:
    before = {user: inbox(installed, scratch, user) for user in ("alice", "bob")}
    assert all(messages for _, messages in before.values())
    kept = volumes(installed)
    assert set(kept) == {f"data-{installed.name}-{engine}-0" for engine in ENGINES}

    installed.helm("test", installed.name, "--timeout", "120s")
    installed.uninstall()
    until("everything else is gone", lambda: not left(installed), 180)
    assert volumes(installed) == kept

    installed.install()
    installed.wait_ready(180)
    assert volumes(installed) == kept
    assert {user: inbox(installed, scratch, user) for user in ("alice", "bob")} == before
