"""One installation of the chart in a namespace of its own, as an operator sees it: through helm and kubectl."""

from __future__ import annotations

import base64
import ipaddress
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.harness.commands import CommandError, run, until
from tests.cluster.harness.place import ROOT, Place, kubectl

CHART = ROOT / "charts" / "paquebot"
HELM = Path(sys.prefix) / "bin" / "helm"
SERVICES = ("smtp-ingress", "recipient-validation", "delivery", "relay", "imap", "pop3")
ENGINES = ("nats", "s3", "postgres")
REPOSITORY = "example.test/paquebot"
HOSTNAME = "mail.paquebot.test"

_SHOWN = {"service": {"type": "LoadBalancer"}}
# The chart's defaults but for what an image that is in no registry needs, and the accounts to try it with: they send
# and read from outside here, and to other domains.
DEFAULTS: dict[str, Any] = {
    "image": {"repository": REPOSITORY, "tag": "dev", "pullPolicy": "IfNotPresent"},
    "demo": {"enabled": True, "public": True, "relay": True, "recipientsPerHour": 0},
    "smtpIngress": {**_SHOWN, "submission": _SHOWN},
    "imap": _SHOWN,
    "pop3": _SHOWN,
}


@dataclass(slots=True)
class Release:
    """A release `name` in `namespace`. `values` are those of the last install or upgrade."""

    place: Place
    namespace: str
    name: str = "paquebot"
    values: dict[str, Any] = field(default_factory=lambda: dict(DEFAULTS))

    def __post_init__(self) -> None:
        """Mail for another domain goes to the outside host, whose address may be one that relay refuses by itself."""
        if address := self.place.outside_address:
            network = str(ipaddress.ip_network(address))
            self.values = _merged(self.values, {"relay": {"allowNetworks": [network], "closedNetworks": []}})

    def kubectl(self, *arguments: object, seconds: float = 60.0, stdin: str | None = None) -> str:
        return kubectl(self.place, "-n", self.namespace, *arguments, seconds=seconds, stdin=stdin)

    def get(self, *arguments: object) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found

    def helm(self, *arguments: object, seconds: float = 300.0, stdin: str | None = None) -> str:
        return run(self.place.inside(HELM, "-n", self.namespace, *arguments), seconds=seconds, stdin=stdin).stdout

    def make_namespace(self) -> None:
        """A namespace that refuses every pod that the restricted Pod Security Standard forbids."""
        enforced = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
        wanted = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": enforced}}
        kubectl(self.place, "apply", "-f", "-", stdin=json.dumps(wanted))

    def install(self, *flags: object) -> None:
        self.helm("install", self.name, CHART, "-f", "-", *flags, stdin=json.dumps(self.values))

    def upgrade(self, changes: Mapping[str, Any], *flags: object, seconds: float = 300.0) -> None:
        """`helm upgrade` with `changes` merged into the values; None takes a value out."""
        self.values = _merged(self.values, changes)
        self.helm("upgrade", self.name, CHART, "-f", "-", *flags, seconds=seconds, stdin=json.dumps(self.values))

    def rollback(self, revision: int = 0) -> None:
        """`helm rollback` to the revision before, or to `revision`; returns when every pod is as it was then."""
        self.helm("rollback", self.name, *([revision] if revision else []), "--wait", "--timeout", "280s")

    def revision(self) -> tuple[int, str]:
        """Number and status of the last revision."""
        last = json.loads(self.helm("history", self.name, "--max", 1, "-o", "json"))[-1]
        return last["revision"], last["status"]

    # --- pods -----------------------------------------------------------------------------------------------------

    def pods(self, component: str = "") -> list[dict[str, Any]]:
        """Pods of the release that are not being ended."""
        selector = f"app.kubernetes.io/instance={self.name}" + (
            f",app.kubernetes.io/component={component}" if component else ""
        )
        items: list[dict[str, Any]] = self.get("pods", "-l", selector)["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def running(self) -> list[dict[str, Any]]:
        """Pods that are to run for ever: those of services and engines."""
        return [pod for pod in self.pods() if component_of(pod) in (*SERVICES, *ENGINES)]

    def not_ready(self) -> list[str]:
        """What is still missing: a line for each Deployment and StatefulSet that has not all of its pods ready."""
        lines = []
        for item in self.get("deployments,statefulsets", "-l", f"app.kubernetes.io/instance={self.name}")["items"]:
            wanted, status = item["spec"]["replicas"], item["status"]
            current = status.get("observedGeneration") == item["metadata"]["generation"]
            ready, updated = status.get("readyReplicas", 0), status.get("updatedReplicas", 0)
            if not current or not (wanted == ready == updated == status.get("replicas", 0)):
                lines.append(f"{item['metadata']['name']}: {ready} of {wanted} ready, {updated} updated")
        return lines

    def wait_ready(self, seconds: float) -> None:
        """Every service and engine has all the pods it should have. Raises AssertionError with the state of things."""
        last: list[str] = []

        def look() -> bool:
            last[:] = self.not_ready()
            return not last

        try:
            until("every pod is ready", look, seconds)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{last}\n{self.diagnosis()}") from None

    def wait_job(self, component: str, seconds: float) -> None:
        """The newest job of `component` is done."""
        selector = f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component={component}"

        def look() -> bool:
            jobs = self.get("jobs", "-l", selector)["items"]
            return bool(jobs) and all(job["status"].get("succeeded") for job in jobs)

        try:
            until(f"job {component}", look, seconds)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self.diagnosis()}") from None

    def restarts(self) -> dict[str, int]:
        """Pods that were started again, with how often."""
        counts = {
            pod["metadata"]["name"]: sum(s["restartCount"] for s in pod["status"].get("containerStatuses", []))
            for pod in self.pods()
        }
        return {name: count for name, count in counts.items() if count}

    def scale(self, service: str, replicas: int) -> None:
        """Ask for so many pods and wait until they serve, and no other."""
        self.kubectl("scale", f"deployment/{self.name}-{service}", f"--replicas={replicas}")
        self.kubectl("rollout", "status", f"deployment/{self.name}-{service}", "--timeout=120s", seconds=130)

    def python(self, pod: str, program: str, *arguments: object) -> str:
        """Run a Python program in a pod, with the pod's own environment and credentials."""
        return self.kubectl("exec", "-i", pod, "--", "python", "-", *arguments, stdin=program)

    def logs(self, component: str) -> str:
        selector = f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component={component}"
        return self.kubectl("logs", "-l", selector, "--tail=-1", "--prefix", "--max-log-requests=20")

    def diagnosis(self) -> str:
        """Pods, events, and the last words of every pod that is not well."""
        parts = [
            self.kubectl("get", "pods,jobs", "-o", "wide"),
            self.kubectl("get", "events", "--sort-by=.lastTimestamp"),
        ]
        for pod in self.get("pods")["items"]:
            name, states = pod["metadata"]["name"], pod["status"].get("containerStatuses", [])
            if pod["status"]["phase"] == "Succeeded" or all(s["ready"] and not s["restartCount"] for s in states):
                continue
            for previous in ([], ["--previous"]):
                said = run(
                    self.place.inside("kubectl", "-n", self.namespace, "logs", name, "--tail=30", *previous),
                    check=False,
                )
                parts.append(f"--- {name} {' '.join(previous)}\n{said.stdout}{said.stderr}")
        return "\n".join(parts)[-12000:]

    # --- how clients reach it --------------------------------------------------------------------------------------

    def address(self, service: str) -> str:
        """Address of the service's load balancer."""

        def look() -> str:
            entries = self.get("service", f"{self.name}-{service}")["status"]["loadBalancer"].get("ingress", [])
            return str(entries[0].get("ip") or entries[0]["hostname"]) if entries else ""

        return until(f"a load balancer for {service}", look, 120)

    def secret(self, suffix: str) -> dict[str, str]:
        data = self.get("secret", f"{self.name}-{suffix}")["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    @property
    def demo_password(self) -> str:
        """Of alice and bob."""
        return self.secret("demo")["password"]

    def authority(self, directory: Path) -> Path:
        """A file with the certificate that clients are to trust."""
        path = directory / "ca.crt"
        if not path.exists():
            path.write_text(self.secret("tls")["ca.crt"])
        return path

    def uninstall(self) -> None:
        self.helm("uninstall", self.name, "--wait", "--timeout", "180s")

    def forget(self) -> None:
        """Remove the namespace with all volumes' claims: the end of the tests, not of an operator's installation."""
        run(self.place.inside("kubectl", "delete", "namespace", self.namespace, "--wait=false"), check=False)


def component_of(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"]["labels"].get("app.kubernetes.io/component", ""))


def conditions(pod: Mapping[str, Any]) -> Iterator[str]:
    """Reasons for which containers of the pod wait or ended."""
    for status in pod["status"].get("containerStatuses", []):
        for state in (status.get("state", {}), status.get("lastState", {})):
            for detail in state.values():
                if "reason" in detail:
                    yield detail["reason"]


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for key, value in new.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if nested else value
        if value is None:
            del merged[key]
    return merged


__all__ = [
    "CHART",
    "DEFAULTS",
    "ENGINES",
    "HOSTNAME",
    "SERVICES",
    "CommandError",
    "Release",
    "component_of",
    "conditions",
]
