"""The dashboards as files: what Grafana needs, what a person on call needs, and that they are what the code makes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.chart.rendering import render
from tests.monitoring.queries import DASHBOARDS, load, rules

ROOT = Path(__file__).parents[2]
WIDTH = 24
UNITS = {"short", "s", "bytes", "Bps", "percentunit", "cps", "mps", "reqps"}
METRIC = re.compile(r"\bpaquebot_\w+")

every_dashboard = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Without the headings."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in panels(dashboard):
        yield from (target["expr"] for target in panel["targets"])
    yield from (annotation["expr"] for annotation in dashboard["annotations"]["list"])


def generate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dashboards", *arguments]
    return subprocess.run(command, cwd=ROOT / "deploy", capture_output=True, text=True, timeout=60)


def test_the_files_are_what_the_code_makes() -> None:
    done = generate("--check")

    assert (done.returncode, done.stderr) == (0, "")


def test_writing_changes_only_what_is_not_up_to_date(tmp_path: Path) -> None:
    assert generate(str(tmp_path)).returncode == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        path.name: path.read_text() for path in DASHBOARDS
    }
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    (tmp_path / "relay.json").write_text("{}")
    (tmp_path / "gone.json").write_text("{}")

    assert generate("--check", str(tmp_path)).returncode == 1
    assert generate(str(tmp_path)).returncode == 0

    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert {name for name in before if after[name] != before[name]} == {"relay.json"}
    assert before.keys() == after.keys()


def test_there_is_a_dashboard_for_each_question() -> None:
    assert {path.stem for path in DASHBOARDS} == {
        "overview",
        "smtp-ingress",
        "delivery-queue",
        "relay",
        "imap-pop3",
        "storage-cost",
    }


@every_dashboard
def test_grafanas_own_model_reads_it_without_loss(path: Path) -> None:
    dashboard = load(path)
    again = json.loads(json.dumps(Dashboard.from_json(load(path)), cls=JSONEncoder))

    assert again["panels"] == dashboard["panels"]
    assert again["templating"] == dashboard["templating"]
    assert again["links"] == dashboard["links"]


@every_dashboard
def test_panels_neither_overlap_nor_leave_the_grid(path: Path) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in load(path)["panels"]:
        place = panel["gridPos"]
        assert place["x"] >= 0 and place["x"] + place["w"] <= WIDTH, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]


@every_dashboard
def test_ids_differ_and_the_uid_is_fixed(path: Path) -> None:
    dashboard = load(path)
    identities = [panel["id"] for panel in dashboard["panels"]]

    assert len(set(identities)) == len(identities)
    assert dashboard["uid"] == f"paquebot-{path.stem}"
    assert "id" not in dashboard  # Grafana gives it


@every_dashboard
def test_a_panel_tells_a_person_on_call_what_it_is(path: Path) -> None:
    for panel in panels(load(path)):
        title, defaults = panel["title"], panel["fieldConfig"]["defaults"]
        assert panel["description"].endswith((".", "`.")) and len(panel["description"]) > 10, title
        assert defaults["unit"] in UNITS, title
        assert defaults["thresholds"]["steps"][0]["value"] is None, title
        assert all(target["legendFormat"] for target in panel["targets"]), title
        assert panel["datasource"]["uid"] == "${datasource}", title


@every_dashboard
def test_it_has_variables_links_and_annotations(path: Path) -> None:
    dashboard = load(path)

    names = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert names == ["datasource", "namespace", "service", "pod"]
    (link,) = dashboard["links"]
    assert (link["tags"], link["includeVars"], link["keepTime"]) == (dashboard["tags"], True, True)
    assert {item["name"] for item in dashboard["annotations"]["list"]} == {"New version", "Process started"}


@every_dashboard
def test_every_query_heeds_the_variables(path: Path) -> None:
    for panel in panels(load(path)):
        for target in panel["targets"]:
            assert 'namespace=~"$namespace"' in target["expr"], panel["title"]


def test_dashboards_and_rules_name_only_metrics_that_are_documented() -> None:
    documented = set(METRIC.findall((ROOT / "docs" / "metrics.md").read_text("utf-8")))
    used = {name for path in DASHBOARDS for expr in expressions(load(path)) for name in METRIC.findall(expr)}
    used |= {name for rule in rules() for name in METRIC.findall(rule["expr"])}

    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in used} - documented == set()


def test_the_chart_gives_each_dashboard_to_grafanas_sidecar() -> None:
    values = {"monitoring.dashboards.labels.seen_by": "us", "monitoring.dashboards.annotations.grafana_folder": "Post"}
    maps = {
        name: item for name, item in render(values).of_kind("ConfigMap").items() if name.startswith("mail-dashboard-")
    }

    assert set(maps) == {f"mail-dashboard-{path.stem}" for path in DASHBOARDS}
    for path in DASHBOARDS:
        item = maps[f"mail-dashboard-{path.stem}"]
        assert json.loads(item["data"][f"paquebot-{path.stem}.json"]) == load(path)
        assert item["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert item["metadata"]["labels"]["seen_by"] == "us"
        assert item["metadata"]["annotations"] == {"grafana_folder": "Post"}


def test_without_dashboards_there_is_no_configmap_of_them() -> None:
    rendered = render({"monitoring.dashboards.enabled": False})

    assert not [name for name in rendered.of_kind("ConfigMap") if "dashboard" in name]
