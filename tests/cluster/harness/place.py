"""Where the tests run: the cluster that KUBECONFIG names, or a local one that a tool beside the checkout brings up.

Both can run a program inside (with KUBECONFIG set) and as a host outside, which meets the platform only through its
load balancers; both make images known to the nodes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.cluster.harness.commands import run, until

ROOT = Path(__file__).resolve().parents[3]
_BUILD_SECONDS = 1800.0
_CONTAINERD = "/run/paquebot-containerd/containerd.sock"


class Place(Protocol):
    """A Kubernetes cluster to test on."""

    outside_address: str
    """Address of the outside host as the platform should see it; empty: unknown."""

    def inside(self, *command: object) -> list[str]:
        """`command` for a process that reaches the API server."""

    def outside(self, *command: object) -> list[str]:
        """`command` for a process outside the cluster."""

    def build(self, tag: str, target: str) -> None:
        """Build a stage of deploy/Dockerfile from the checkout, and let the nodes have it."""

    def retag(self, tag: str, new: str) -> None:
        """Let the nodes have the same image under a second tag."""

    def kill(self, namespace: str, pod: str) -> None:
        """End the pod's process at once, without a word to it."""

    def announce_mx(self, domain: str, host: str) -> bool:
        """Make the outside host the MX of `domain` in the cluster's DNS; False: it cannot be done here."""

    def ready_for_keda(self) -> bool:
        """Whether KEDA runs here."""


def kubectl(place: Place, *arguments: object, seconds: float = 60.0, stdin: str | None = None) -> str:
    return run(place.inside("kubectl", *arguments), seconds=seconds, stdin=stdin).stdout


@dataclass(slots=True)
class LocalPlace:
    """The local tool's one-node cluster, with network namespaces for the node and for the outside host."""

    tool: Path
    outside_address: str = "10.93.0.2"

    def inside(self, *command: object) -> list[str]:
        return [str(self.tool), "exec", *(str(word) for word in command)]

    def outside(self, *command: object) -> list[str]:
        return [str(self.tool), "outside", *(str(word) for word in command)]

    def build(self, tag: str, target: str) -> None:
        dockerfile = ROOT / "deploy" / "Dockerfile"
        run([self.tool, "build", ROOT, tag, "-f", dockerfile, "--target", target], seconds=_BUILD_SECONDS)

    def retag(self, tag: str, new: str) -> None:
        run(["ctr", "-a", _CONTAINERD, "-n", "k8s.io", "images", "tag", "--force", tag, new])

    def kill(self, namespace: str, pod: str) -> None:
        listing = json.loads(kubectl(self, "get", "pod", "-n", namespace, pod, "-o", "json"))
        container = listing["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        run(["ctr", "-a", _CONTAINERD, "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", container])

    def announce_mx(self, domain: str, host: str) -> bool:
        """Names under `test.` come from a zone file that is read again when its serial is higher."""
        label = domain.removesuffix(".test")
        state = Path(os.environ.get("CLUSTER_STATE", Path.home() / ".cache" / "paquebot-cluster"))
        zone = state / "run" / "zones" / "test.zone"
        lines = [line for line in zone.read_text().splitlines() if line.split()[:1] not in ([label], [f"mx.{label}"])]
        raised = re.sub(
            r"(SOA\s+\S+\s+\S+\s+)(\d+)", lambda found: f"{found[1]}{int(found[2]) + 1}", "\n".join(lines), count=1
        )
        records = f"{label} 5 IN MX 10 mx.{domain}.\nmx.{label} 5 IN A {self.outside_address}\n"
        zone.write_text(f"{raised}\n{records}")
        asking = f"import socket; print(socket.gethostbyname('mx.{domain}'))"
        look = self.inside(sys.executable, "-c", asking)
        until(f"{domain} in DNS", lambda: run(look, check=False).stdout.strip() == host, 30)
        return True

    def ready_for_keda(self) -> bool:
        return run([self.tool, "keda"], seconds=_BUILD_SECONDS, check=False).returncode == 0


@dataclass(slots=True)
class GivenPlace:
    """The cluster that KUBECONFIG names; this host is the outside."""

    outside_address: str = os.environ.get("PAQUEBOT_OUTSIDE_ADDRESS", "")

    def inside(self, *command: object) -> list[str]:
        return [str(word) for word in command]

    outside = inside

    def build(self, tag: str, target: str) -> None:
        builder = ["docker", "build"] if shutil.which("docker") else ["buildah", "bud"]
        run(
            [*builder, "-f", ROOT / "deploy" / "Dockerfile", "--target", target, "-t", tag, ROOT],
            seconds=_BUILD_SECONDS,
        )
        self._give(tag)

    def retag(self, tag: str, new: str) -> None:
        run(["docker" if shutil.which("docker") else "buildah", "tag", tag, new])
        self._give(new)

    def _give(self, tag: str) -> None:
        """kind loads images into its nodes; elsewhere the registry in the tag's name is where the nodes look."""
        context = run(["kubectl", "config", "current-context"]).stdout.strip()
        if context.startswith("kind-"):
            run(["kind", "load", "docker-image", tag, "--name", context.removeprefix("kind-")], seconds=_BUILD_SECONDS)
        else:
            run(["docker" if shutil.which("docker") else "buildah", "push", tag], seconds=_BUILD_SECONDS)

    def kill(self, namespace: str, pod: str) -> None:
        """No way to a node's processes: the API's own word for it."""
        run(["kubectl", "delete", "pod", "-n", namespace, pod, "--force", "--grace-period=0"])

    def announce_mx(self, domain: str, host: str) -> bool:
        return False

    def ready_for_keda(self) -> bool:
        return run(["kubectl", "get", "crd", "scaledobjects.keda.sh"], check=False).returncode == 0


def find_place() -> Place | str:
    """The place to test on, up and answering, or why there is none."""
    if os.environ.get("KUBECONFIG"):
        given = GivenPlace()
        answer = run(given.inside("kubectl", "get", "nodes"), check=False, seconds=30)
        return given if answer.returncode == 0 else f"KUBECONFIG is set, but: {answer.stderr.strip()}"
    tool = Path(os.environ.get("PAQUEBOT_CLUSTER", ROOT.parent / "shared" / "cluster" / "cluster"))
    if not tool.exists():
        return "no Kubernetes here: set KUBECONFIG, or PAQUEBOT_CLUSTER to a tool that brings one up"
    local = LocalPlace(tool)
    if run(local.inside("kubectl", "get", "--raw", "/readyz"), check=False, seconds=30).returncode:
        return f"the local cluster is not up: run `{tool} up && {tool} base`"
    return local


def start(command: Sequence[str]) -> subprocess.Popen[str]:
    """A program beside the tests. The caller ends it."""
    return subprocess.Popen(
        list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
