"""Upgrades: from values of earlier versions, with numbers of any size, and without replacing unchanged objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.api_server import api_server
from tests.chart.generated_files import files
from tests.chart.rendering import CHART, Rendered, render
from tests.chart.values_table import documented

VALUES = (CHART / "values.yaml").read_text("utf-8")


def test_the_files_generated_from_the_code_are_up_to_date() -> None:
    for path, text in files().items():
        assert path.read_text("utf-8") == text, "run make chart-docs"


def _without(path: str) -> Rendered:
    """Render as `helm upgrade --reuse-values` does with a chart that introduced the value."""
    return render({path: None})


@pytest.mark.parametrize("path", sorted({*yaml.safe_load(VALUES), "imap.service", "bundled.s3", "relay.autoscaling"}))
def test_a_whole_group_that_is_missing_is_as_in_values_yaml(path: str) -> None:
    expected, found = render(), _without(path)

    assert {key: _bare(item) for key, item in found.by_identity().items()} == {
        key: _bare(item) for key, item in expected.by_identity().items()
    }


def _bare(item: dict[str, Any]) -> Any:
    """Return the objects without the parts that are random at each rendering."""
    text = json.dumps({key: value for key, value in item.items() if (item["kind"], key) != ("Secret", "data")})
    found = json.loads(text)
    if item["kind"] == "Secret":
        found["metadata"].pop("annotations")
    template = found.get("spec", {}).get("template", {}) if isinstance(found.get("spec"), dict) else {}
    template.get("metadata", {}).pop("annotations", None)
    return found


@pytest.mark.parametrize("group", sorted(yaml.safe_load(VALUES)))
def test_no_value_of_a_group_is_missed(group: str) -> None:
    """All values of a group are missing together; the group itself is there."""
    render({value.path: None for value in documented(VALUES) if value.path.partition(".")[0] == group})


def test_null_removes_a_limit() -> None:
    pod = render({"imap.resources.limits": None}).pods()["Deployment", "mail-imap"]["spec"]
    assert "limits" not in pod["containers"][0]["resources"]


def test_large_numbers_stay_whole_numbers() -> None:
    rendered = render(
        {"migrate.ttlSecondsAfterFinished": 2592000, "imap.sessionsPerClient": 1000000, "demo.enabled": True}
    )

    for job in rendered.of_kind("Job").values():
        assert job["spec"]["ttlSecondsAfterFinished"] == 2592000
    env = rendered.pods()["Deployment", "mail-imap"]["spec"]["containers"][0]["env"]
    assert {"name": "PAQUEBOT_IMAP_SESSIONS_PER_CLIENT", "value": "1000000"} in env


def test_every_variable_is_text() -> None:
    """Kubernetes refuses a number or a `yes` in an env value."""
    rendered = render(
        {"imap.settings": {"PAQUEBOT_LOG_ADDRESSES": "yes", "PAQUEBOT_IMAP_ERRORS": 9}, "janitor.settings": {}}
    )
    for template in rendered.pods().values():
        for container in template["spec"]["containers"]:
            for entry in container.get("env", []):
                assert isinstance(entry.get("value", ""), str), entry


def _engines(rendered: Rendered) -> dict[str, str]:
    return {
        name: item["spec"]["template"]["spec"]["containers"][0]["image"]
        for name, item in rendered.of_kind("StatefulSet").items()
    }


def _upgraded(installed: list[dict[str, Any]], directory: Path, values: dict[str, Any]) -> Rendered:
    with api_server((), directory, workloads=installed) as kubeconfig:
        return render(values, more=("--dry-run=server", "--is-upgrade", "--kubeconfig", str(kubeconfig)))


def test_an_upgrade_to_another_image_leaves_the_engines_running(tmp_path: Path) -> None:
    installed = list(render({"image.tag": "1"}).of_kind("StatefulSet").values())
    ends = {f"mail-{name}": name for name in ("nats", "s3", "postgres")}

    def images(values: dict[str, Any]) -> set[str]:
        found = _engines(_upgraded(installed, tmp_path, values))
        assert found.keys() == ends.keys()
        return {image.rpartition("/")[2] for image in found.values()}

    assert images({"image.tag": "2"}) == {"paquebot-engines:1"}
    assert images({"image.tag": "2", "enginesImage.tag": "2"}) == {"paquebot-engines:2"}
    assert images({"image.tag": "2", "enginesImage.repository": "other/engines"}) == {"engines:2"}
    for item in installed:
        item["metadata"]["annotations"]["paquebot/engines"] = "other code"
    assert images({"image.tag": "2"}) == {"paquebot-engines:2"}


def test_engines_replaced_together_stop_one_after_another() -> None:
    def pause(engine: str, values: dict[str, Any]) -> tuple[int, int]:
        pod = render(values).pods()["StatefulSet", f"mail-{engine}"]["spec"]
        command = pod["containers"][0].get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["0"])
        return int(command[-1]), pod["terminationGracePeriodSeconds"]

    assert [pause(engine, {}) for engine in ("nats", "s3", "postgres")] == [(0, 50), (20, 70), (40, 90)]
    assert {pause(engine, {"bundled.pauseSeconds": 0}) for engine in ("nats", "s3", "postgres")} == {(0, 50)}


def test_pods_of_helm_tests_are_deleted_with_the_release() -> None:
    """Helm removes a hook's pod only before it creates another of the same name."""
    (last,) = [item for item in render().objects if item["metadata"].get("annotations", {}).get(HOOK) == "post-delete"]
    (test,) = [item for item in render().objects if item["metadata"].get("annotations", {}).get(HOOK) == "test"]

    assert (last["kind"], last["metadata"]["name"]) == (test["kind"], test["metadata"]["name"]) == ("Pod", "mail-test")
    policies = last["metadata"]["annotations"]["helm.sh/hook-delete-policy"].split(",")
    assert set(policies) == {"before-hook-creation", "hook-succeeded", "hook-failed"}
    assert last["spec"]["activeDeadlineSeconds"] <= 60
    assert not [volume for volume in last["spec"]["volumes"] if "secret" in volume], "the Secrets may be gone"


HOOK = "helm.sh/hook"


def test_jobs_report_why_they_failed_and_wait_for_the_engines() -> None:
    rendered = render({"verify.enabled": True, "demo.enabled": True, "jobs.podAnnotations": {"a": "b"}})

    for (kind, name), template in rendered.pods().items():
        if kind in ("Job", "CronJob", "Pod"):
            assert template["spec"]["containers"][0]["terminationMessagePolicy"] == "FallbackToLogsOnError"
            assert template["metadata"]["annotations"]["a"] == "b", name
    for name in ("janitor", "verify"):
        args = rendered.pods()["CronJob", f"mail-{name}"]["spec"]["containers"][0]["args"]
        assert args[:3] == [name, "--wait", "10m"]
