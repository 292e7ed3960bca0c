"""`helm install` with the chart's defaults on an empty cluster: ready in three minutes, without a restart."""

from __future__ import annotations

from tests.cluster.harness.release import ENGINES, SERVICES, Release, component_of, conditions

LONGEST_INSTALL_SECONDS = 180.0


def test_every_pod_is_ready_within_three_minutes(installed: Release, figures: list[tuple[str, str]]) -> None:
    assert {component_of(pod) for pod in installed.running()} == {*SERVICES, *ENGINES}
    took = next(float(value.removesuffix(" s")) for name, value in figures if name.startswith("helm install"))
    assert took < LONGEST_INSTALL_SECONDS


def test_nothing_started_twice_while_the_engines_came_up(installed: Release) -> None:
    assert installed.restarts() == {}
    reasons = {reason for pod in installed.pods() for reason in conditions(pod)}
    assert reasons <= {"Completed"}
    events = installed.get("events")["items"]
    assert [event["message"] for event in events if event["reason"] == "BackOff"] == []


def test_helm_test_sends_and_reads_through_the_services(installed: Release) -> None:
    said = installed.helm("test", installed.name, "--logs", "--timeout", "120s")
    assert "Succeeded" in said
