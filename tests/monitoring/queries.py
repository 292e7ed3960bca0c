"""The queries of dashboards and alerts, as Grafana and Prometheus would send them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.monitoring.prometheus_server import CHART, NAMESPACE, RULES

DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
VARIABLES = {"$namespace": NAMESPACE, "$service": ".+", "$pod": "mail-.+", "$__rate_interval": "20s", "$__range": "1m"}

SELECTOR = re.compile(r"\b(?:paquebot[_:][\w:]+|process_\w+)(?:\{[^}]*\})?")


@dataclass(frozen=True, slots=True)
class Query:
    """`origin` says where it stands, for a person."""

    origin: str
    expr: str


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def substituted(expr: str) -> str:
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, f"an unknown variable in {expr}"
    return expr


def dashboard_queries() -> list[Query]:
    """Of all panels and annotations of all dashboards."""
    return [query for path in DASHBOARDS for query in _of(load(path))]


def _of(dashboard: dict[str, Any]) -> Iterator[Query]:
    for annotation in dashboard["annotations"]["list"]:
        yield Query(f"{dashboard['title']}: {annotation['name']}", substituted(annotation["expr"]))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            origin = f"{dashboard['title']}: {panel['title']}: {target['legendFormat']}"
            yield Query(origin, substituted(target["expr"]))


def rules() -> list[dict[str, Any]]:
    """Every rule of the chart, alerts and recordings."""
    return [
        rule
        for path in sorted(RULES.glob("*.yaml"))
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
        for rule in group["rules"]
    ]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def selectors(expr: str) -> set[str]:
    """The series that an expression reads, without ranges and offsets."""
    return {match.group(0) for match in SELECTOR.finditer(expr)}
