"""Every pod runs restricted, answers the kubelet's probes, and has the time that its drain needs."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import pytest

from paquebot.cli.services import SERVICES as COMMANDS
from paquebot.runtime.settings import describe, load, parse_seconds
from tests.chart.rendering import SERVICES, Rendered, render


@functools.cache
def default() -> Rendered:
    return render({"demo.enabled": True, "verify.enabled": True})


def _containers(template: dict[str, Any]) -> list[dict[str, Any]]:
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


def _environment(template: dict[str, Any]) -> dict[str, str]:
    """Return the variables of the first container; 16 letters stand for a value from a Secret or field."""
    return {entry["name"]: entry.get("value", "w" * 16) for entry in template["spec"]["containers"][0]["env"]}


@pytest.mark.parametrize("identity", sorted(default().pods()), ids="/".join)
def test_a_pod_meets_the_restricted_standard(identity: tuple[str, str]) -> None:
    template = default().pods()[identity]
    pod = template["spec"]

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    for container in _containers(template):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
    assert {next(iter(volume.keys() - {"name"})) for volume in pod.get("volumes", [])} <= {
        "configMap",
        "emptyDir",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }


@pytest.mark.parametrize("component", SERVICES.values())
def test_probes_use_the_port_without_a_connection_limit(component: str) -> None:
    container = default().pods()["Deployment", f"mail-{component}"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}

    assert ports["metrics"] == 2900
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "metrics"}
    assert container["startupProbe"]["httpGet"] == {"path": "/livez", "port": "metrics"}
    # Also where gRPC has its own probe: a kubelet has no client certificate.
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
    for name in ("livenessProbe", "readinessProbe"):
        # A readiness probe may take 2 s to report that an engine does not answer.
        assert container[name]["timeoutSeconds"] >= 3


@pytest.mark.parametrize("component", SERVICES.values())
def test_the_grace_period_is_longer_than_the_drain(component: str) -> None:
    template = default().pods()["Deployment", f"mail-{component}"]
    container = template["spec"]["containers"][0]
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    drain = parse_seconds(_environment(template)["PAQUEBOT_DRAIN"])

    assert template["spec"]["terminationGracePeriodSeconds"] >= pause + drain + 5


@pytest.mark.parametrize("component", SERVICES.values())
def test_the_service_understands_every_setting_it_is_given(component: str) -> None:
    service = next(item for item in COMMANDS if item.name == component.replace("-", "_"))
    settings_class = getattr(importlib.import_module(f"paquebot.{service.name}.service"), service.settings)
    environment = _environment(default().pods()["Deployment", f"mail-{component}"])
    known = {name for name, _, _ in describe(settings_class)}

    assert {name for name in environment if name.startswith("PAQUEBOT_")} <= known
    load(settings_class, environment)
