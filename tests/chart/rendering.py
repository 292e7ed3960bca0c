"""The objects that `helm template` renders from the chart, as a cluster would get them."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "charts" / "paquebot"
HELM = Path(sysconfig.get_path("scripts")) / "helm"
RELEASE = "mail"
NAMESPACE = "post"

SERVICES = {
    "smtpIngress": "smtp-ingress",
    "recipientValidation": "recipient-validation",
    "delivery": "delivery",
    "relay": "relay",
    "imap": "imap",
    "pop3": "pop3",
}
"""Key in the values: component."""

MONITORING = ("monitoring.coreos.com/v1/PodMonitor", "monitoring.coreos.com/v1/PrometheusRule")
CERT_MANAGER = ("cert-manager.io/v1/Certificate",)
KEDA = ("keda.sh/v1alpha1/ScaledObject",)


class Refused(Exception):
    """helm refused to render; the text is helm's message."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The objects of one rendering."""

    objects: tuple[dict[str, Any], ...]

    def of_kind(self, kind: str) -> dict[str, dict[str, Any]]:
        return {item["metadata"]["name"]: item for item in self.objects if item["kind"] == kind}

    def get(self, kind: str, name: str) -> dict[str, Any]:
        return self.of_kind(kind)[name]

    def by_identity(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {(item["kind"], _moment(item) + item["metadata"]["name"]): item for item in self.objects}

    def pods(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Every pod template, also of jobs and tests: (kind, name) to {"metadata", "spec"}. The names of objects that
        are created after the release was deleted begin with `post-delete:`."""
        found = {}
        for item in self.objects:
            match item["kind"]:
                case "Deployment" | "StatefulSet" | "Job":
                    template = item["spec"]["template"]
                case "CronJob":
                    template = item["spec"]["jobTemplate"]["spec"]["template"]
                case "Pod":
                    template = item
                case _:
                    continue
            found[item["kind"], _moment(item) + item["metadata"]["name"]] = template
        return found


def _moment(item: dict[str, Any]) -> str:
    hook = item["metadata"].get("annotations", {}).get("helm.sh/hook", "test")
    return "" if hook == "test" else f"{hook}:"


def helm(*arguments: str) -> str:
    """Run helm. Raises Refused."""
    done = subprocess.run([str(HELM), *arguments], capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise Refused(done.stderr)
    return done.stdout


def render(
    values: Mapping[str, Any] | None = None,
    *,
    files: Iterable[str] = (),
    api_versions: Iterable[str] = (),
    more: Iterable[str] = (),
) -> Rendered:
    """Render the chart with the example files of its folder, then `values` (dotted paths) on top."""
    arguments = ["template", RELEASE, str(CHART), "--namespace", NAMESPACE]
    for name in files:
        arguments += ["--values", str(CHART / name)]
    for path, value in (values or {}).items():
        arguments += ["--set-json", f"{path}={json.dumps(value)}"]
    for version in api_versions:
        arguments += ["--api-versions", version]
    text = helm(*arguments, *more)
    return Rendered(tuple(item for item in yaml.load_all(text, yaml.CSafeLoader) if item))
