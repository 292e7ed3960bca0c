"""What a pod without any credential, in a namespace of its own, gets from the pods of the release: nothing.

Where the cluster enforces NetworkPolicies they answer for part of it; here the ports themselves must.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.harness.commands import run, until
from tests.cluster.harness.place import kubectl
from tests.cluster.harness.release import ENGINES, REPOSITORY, SERVICES, Release

PROBES = Path(__file__).parent / "probes"
METRICS, GRPC = 2900, 2552
SHOWN = {
    "nats": {"nats": 2422},
    "s3": {"s3": 2333, "s3_grpc": 2334},
    "postgres": {"postgres": 2543},
}
"""What the engines' pods listen on beside metrics, by its name in probes/stranger.py."""
HIDDEN = {
    "nats": {"nats_monitor": 2822},
    "s3": {
        "s3_filer": 2335,
        "s3_filer_grpc": 2336,
        "s3_master": 2337,
        "s3_master_grpc": 2338,
        "s3_volume": 2339,
        "s3_volume_grpc": 2340,
    },
    "postgres": {},
}
"""What they listen on at their own loopback."""
OF_SERVICES = {
    "smtp-ingress": {2525, 2587, 2465},
    "recipient-validation": {GRPC},
    "delivery": set(),
    "relay": set(),
    "imap": {2143, 2993},
    "pop3": {2110, 2995},
}


def pod_of(release: Release, component: str) -> str:
    return str(release.pods(component)[0]["metadata"]["name"])


def listening(release: Release, component: str) -> set[tuple[str, int]]:
    found = release.python(pod_of(release, component), (PROBES / "listeners.py").read_text())
    return {(address, port) for address, port in json.loads(found)["tcp"]}


@pytest.fixture(scope="module")
def stranger(installed: Release) -> Iterator[Release]:
    """A namespace with one pod, `stranger`, that has Python and no credential."""
    other = Release(installed.place, f"{installed.namespace}-stranger")
    other.make_namespace()
    container = {
        "name": "one",
        "image": f"{REPOSITORY}:dev",
        "command": ["sleep", "3600"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"containers": [container], "securityContext": security, "automountServiceAccountToken": False}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stranger"}, "spec": spec}
    kubectl(other.place, "-n", other.namespace, "apply", "-f", "-", stdin=json.dumps(pod))
    until("the stranger", lambda: other.get("pod", "stranger")["status"].get("phase") == "Running", 60)
    yield other
    run(other.place.inside("kubectl", "delete", "namespace", other.namespace, "--wait=false"), check=False)


@pytest.mark.parametrize("component", SERVICES)
def test_a_service_listens_on_no_other_port(installed: Release, component: str) -> None:
    assert {port for _, port in listening(installed, component)} == {*OF_SERVICES[component], METRICS}


@pytest.mark.parametrize("component", ENGINES)
def test_an_engine_listens_on_no_other_port(installed: Release, component: str) -> None:
    found = listening(installed, component)
    shown, hidden = set(SHOWN[component].values()), set(HIDDEN[component].values())
    assert {port for _, port in found} == {*shown, *hidden, METRICS}
    assert {port for address, port in found if address == "127.0.0.1"} == hidden


@pytest.mark.parametrize("component", ENGINES)
def test_an_engine_gives_a_stranger_nothing(installed: Release, stranger: Release, component: str) -> None:
    address = installed.pods(component)[0]["status"]["podIP"]
    ports = SHOWN[component] | HIDDEN[component]
    program = (PROBES / "stranger.py").read_text()
    got = json.loads(stranger.python("stranger", program, address, *(f"{name}={port}" for name, port in ports.items())))
    assert got == {name: [] for name in ports}


def test_recipient_validation_gives_a_stranger_nothing(installed: Release, stranger: Release) -> None:
    address = installed.pods("recipient-validation")[0]["status"]["podIP"]
    program = (PROBES / "stranger.py").read_text()
    assert json.loads(stranger.python("stranger", program, address, f"grpc={GRPC}")) == {"grpc": []}


def test_the_password_of_the_demo_is_nobody_s_guess(installed: Release) -> None:
    assert len(installed.demo_password) >= 20
