"""The alerts as files: one an alert, each with a runbook and a test of its own, and what the chart makes of them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.rendering import MONITORING, NAMESPACE, render
from tests.monitoring.prometheus_server import RULES, needs_prometheus
from tests.monitoring.queries import alerts, rules

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"
TESTS = Path(__file__).parent / "rules"
CHAPTERS = ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"]
NAMES = sorted({alert["alert"] for alert in alerts()})

every_alert = pytest.mark.parametrize("name", NAMES)


def _promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_file_has_the_one_alert_of_its_name() -> None:
    for path in RULES.glob("*.yaml"):
        found = {rule.get("alert") for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]}
        assert found == ({None} if path.stem == "recording" else {path.stem})


@every_alert
def test_an_alert_says_how_bad_it_is_and_what_happens(name: str) -> None:
    for alert in (alert for alert in alerts() if alert["alert"] == name):
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert alert["for"]
        assert not alert["annotations"]["summary"].endswith(".")
        assert "$labels.namespace" in alert["annotations"]["description"]


@every_alert
def test_an_alert_has_a_runbook_with_every_chapter(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text("utf-8")

    assert text.startswith(f"# {name}\n")
    assert re.findall("^## .*", text, re.MULTILINE) == CHAPTERS
    diagnosis = text.partition(CHAPTERS[2])[2].partition(CHAPTERS[3])[0]
    assert "kubectl" in diagnosis


def test_every_runbook_has_its_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("Paquebot*.md")} == set(NAMES)


def test_the_list_of_runbooks_has_every_one() -> None:
    listed = re.findall(r"^\| \[(\w+)\]\(\1\.md\) \|", (RUNBOOKS / "README.md").read_text("utf-8"), re.MULTILINE)
    assert listed == NAMES


@needs_prometheus
def test_prometheus_takes_every_rule() -> None:
    _promtool("check", "rules", *map(str, sorted(RULES.glob("*.yaml"))))


@every_alert
@needs_prometheus
def test_an_alert_fires_when_it_should_and_only_then(name: str) -> None:
    written = yaml.safe_load((TESTS / f"{name}.yaml").read_text("utf-8"))
    expected = [
        bool(check["exp_alerts"])
        for test in written["tests"]
        for check in test["alert_rule_test"]
        if check["alertname"] == name
    ]
    assert set(expected) == {True, False}  # it tests both

    _promtool("test", "rules", str(TESTS / f"{name}.yaml"))


def _rendered(values: dict[str, Any] | None = None) -> dict[str, Any]:
    found = render(values, api_versions=MONITORING).get("PrometheusRule", "mail")
    return {
        rule.get("alert") or rule["record"]: rule for group in found["spec"]["groups"] for rule in group["rules"]
    } | {"metadata": found["metadata"]}


def test_the_chart_has_every_rule_for_its_own_namespace_only() -> None:
    found = _rendered()

    assert found.keys() - {"metadata"} == {rule.get("alert") or rule["record"] for rule in rules()}
    for name in NAMES:
        assert found[name]["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md"
        assert 'namespace=~".+"' not in found[name]["expr"]
        assert f'namespace="{NAMESPACE}"' in found[name]["expr"]


def test_values_add_labels_leave_out_alerts_and_say_where_runbooks_are() -> None:
    found = _rendered(
        {
            "monitoring.rules.labels.release": "monitoring",
            "monitoring.rules.alertLabels.team": "post",
            "monitoring.rules.disabled[0]": "PaquebotQueueAge",
            "monitoring.rules.runbookBaseUrl": "https://example.test/runbooks/",
        }
    )

    assert "PaquebotQueueAge" not in found
    assert found["metadata"]["labels"]["release"] == "monitoring"
    alert = found["PaquebotHeldJobs"]
    assert alert["labels"] == {"severity": "warning", "team": "post"}
    assert alert["annotations"]["runbook_url"] == "https://example.test/runbooks/PaquebotHeldJobs.md"


def test_without_the_operator_or_when_turned_off_there_are_no_rules() -> None:
    assert render().of_kind("PrometheusRule") == {}
    assert render({"monitoring.rules.enabled": False}, api_versions=MONITORING).of_kind("PrometheusRule") == {}


@every_alert
def test_every_series_of_an_alert_is_of_the_releases_own_namespace(name: str) -> None:
    for alert in (alert for alert in alerts() if alert["alert"] == name):
        names = re.findall(r"\bpaquebot[_:][\w:]+", alert["expr"])
        assert alert["expr"].count('namespace=~".+"') == len(names)
