"""The platform grows and shrinks with its load, and an eviction never takes more pods than its budget allows."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.harness.commands import run, until
from tests.cluster.harness.release import SERVICES, Release
from tests.cluster.harness.traffic import DOMAIN, Figures, client, settle

Table = list[tuple[str, str]]
# As fast as an autoscaler can: tests do not wait five minutes for calm.
AT_ONCE: dict[str, Any] = {
    "scaleUp": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 4, "periodSeconds": 5}]},
    "scaleDown": {"stabilizationWindowSeconds": 5, "policies": [{"type": "Pods", "value": 4, "periodSeconds": 5}]},
}


def replicas(release: Release, service: str) -> int:
    return int(release.get("deployment", f"{release.name}-{service}")["status"].get("readyReplicas", 0))


def memory(release: Release) -> dict[str, str]:
    """`kubectl top`: component to memory of its pods."""
    usage: dict[str, str] = {}
    for line in release.kubectl("top", "pods", "--no-headers").splitlines():
        name, cpu, size = line.split()
        usage[name] = f"{size} {cpu}"
    return usage


def test_an_autoscaler_grows_smtp_ingress_under_load_and_shrinks_it(
    installed: Release, scratch: Path, figures: Table
) -> None:
    autoscaling = {
        "enabled": True, "minReplicas": 1, "maxReplicas": 3, "targetCPUUtilizationPercentage": 50, "behavior": AT_ONCE,
    }  # fmt: skip
    installed.upgrade(
        {"smtpIngress": {"autoscaling": autoscaling, "resources": {"requests": {"cpu": "50m"}}}},
        "--wait", "--timeout", "240s",
    )  # fmt: skip
    until("one pod", lambda: replicas(installed, "smtp-ingress") == 1, 180)
    sender = client(
        installed, "sender", scratch / "autoscaler.log", installed.address("smtp-ingress"), 25, "--mark", "autoscaler",
        "--recipient", f"alice@{DOMAIN}", "--recipient", f"bob@{DOMAIN}", "--connections", 6, "--pause", 0.01,
    )  # fmt: skip
    try:
        began = time.monotonic()
        until("more pods under load", lambda: replicas(installed, "smtp-ingress") > 1, 240)
        grown = time.monotonic() - began
        usage = memory(installed)
    finally:
        sender.end()
    began_to_rest = time.monotonic()
    sent = Figures.of(sender.rows())
    until("one pod again", lambda: replicas(installed, "smtp-ingress") == 1, 240)
    figures += [
        ("HPA of smtp_ingress", f"grew after {grown:.0f} s, shrank after {time.monotonic() - began_to_rest:.0f} s"),
        ("mails accepted meanwhile", f"{len(sent.accepted)}, {len(sent.accepted) / grown:.0f} a second"),
        *((f"memory and CPU of {name}", value) for name, value in usage.items()),
    ]
    assert sent.refused == ()
    account = settle(installed, scratch, sent)
    assert not account, account
    installed.upgrade({"smtpIngress": {"autoscaling": {"enabled": False}}}, "--wait", "--timeout", "240s")


def test_keda_lets_delivery_follow_the_backlog(installed: Release, scratch: Path, figures: Table) -> None:
    if not installed.place.ready_for_keda():
        pytest.skip("KEDA is not in this cluster")
    # Pods with so little CPU that they need longer to start than the autoscaler to look (15 s): a backlog of this size
    # is gone a moment later.
    installed.upgrade(
        {
            "keda": {"pollingInterval": 2},
            "delivery": {
                "keda": {"enabled": True, "minReplicas": 1, "maxReplicas": 3, "pendingJobs": 5, "behavior": AT_ONCE},
                "resources": {"requests": {"cpu": "40m"}, "limits": {"cpu": "40m", "memory": "512Mi"}},
            },
        },
        "--wait", "--timeout", "240s",
    )  # fmt: skip
    scaled, paused = f"scaledobject/{installed.name}-delivery", "autoscaling.keda.sh/paused-replicas"
    installed.kubectl("annotate", scaled, f"{paused}=0")
    until("no delivery while the backlog is made", lambda: not installed.pods("delivery"), 120)
    sender = client(
        installed, "sender", scratch / "backlog.log", installed.address("smtp-ingress"), 25, "--mark", "backlog",
        "--recipient", f"alice@{DOMAIN}", "--recipient", f"bob@{DOMAIN}",
        "--connections", 2, "--pause", 0, "--count", 600,
    )  # fmt: skip
    sender.process.wait(timeout=180)
    sent = Figures.of(sender.rows())
    sender.end()
    assert len(sent.accepted) == 600
    most = [0]

    def grown() -> bool:
        most[0] = max(most[0], int(installed.get("deployment", f"{installed.name}-delivery")["spec"]["replicas"]))
        return most[0] > 1

    began = time.monotonic()
    installed.kubectl("annotate", scaled, f"{paused}-")
    until("delivery grows with the backlog", grown, 180)
    grew = time.monotonic() - began
    account = settle(installed, scratch, sent, 240)
    until("delivery shrinks when the backlog is gone", lambda: replicas(installed, "delivery") == 1, 240)
    figures.append(
        (
            "KEDA on a backlog of 600 mails",
            f"{most[0]} pods asked for after {grew:.0f} s, one again after {time.monotonic() - began:.0f} s",
        )
    )
    assert not account, account
    installed.upgrade(
        {"delivery": {"keda": {"enabled": False}, "resources": {"limits": {"cpu": None, "memory": "512Mi"}}}},
        "--wait", "--timeout", "240s",
    )  # fmt: skip


def evict(release: Release, pod: str) -> str:
    """Ask as `kubectl drain` does (policy/v1 Eviction): empty when granted, else the API server's refusal."""
    wanted = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": release.namespace}}
    path = f"/api/v1/namespaces/{release.namespace}/pods/{pod}/eviction"
    command = release.place.inside("kubectl", "create", "--raw", path, "-f", "-")
    answer = run(command, stdin=json.dumps(wanted), check=False)
    return answer.stderr if answer.returncode else ""


def test_an_eviction_respects_the_budget_of_each_service(installed: Release) -> None:
    changes = {
        name: {"replicas": 2} for name in ("smtpIngress", "recipientValidation", "delivery", "relay", "imap", "pop3")
    }
    installed.upgrade(changes, "--wait", "--timeout", "240s")
    installed.wait_ready(120)

    def budgets() -> bool:
        """Each has seen its two pods, and one may go."""
        items = installed.get("poddisruptionbudgets")["items"]
        return all(item["status"].get("disruptionsAllowed") == 1 for item in items) and len(items) >= len(SERVICES)

    until("the budgets know the pods", budgets, 60)
    for service in SERVICES:
        one, other = (pod["metadata"]["name"] for pod in installed.pods(service))
        assert evict(installed, one) == "", service
        assert "disruption budget" in evict(installed, other), service
    installed.wait_ready(120)
    until("the budgets allow the next", budgets, 60)
    for service in SERVICES:
        assert evict(installed, installed.pods(service)[0]["metadata"]["name"]) == "", service
    installed.wait_ready(120)
    installed.upgrade({name: {"replicas": 1} for name in changes}, "--wait", "--timeout", "240s")
