"""The demo: accounts with a random password, which the world cannot reach by accident."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.chart.api_server import api_server
from tests.chart.rendering import Refused, Rendered, render

DEMO = {"demo.enabled": True}
MAIL = ("mail-smtp-ingress", "mail-imap", "mail-pop3")
TYPES = {
    "smtpIngress.service.type": "smtp-ingress",
    "imap.service.type": "imap",
    "pop3.service.type": "pop3",
}


def password(rendered: Rendered) -> str:
    return base64.b64decode(rendered.get("Secret", "mail-demo")["data"]["password"]).decode()


def job_env(rendered: Rendered) -> dict[str, Any]:
    ((_, template),) = [(name, pod) for (kind, name), pod in rendered.pods().items() if name.startswith("mail-demo-")]
    return {entry["name"]: entry for entry in template["spec"]["containers"][0]["env"]}


def guests(rendered: Rendered) -> dict[str, str]:
    container = rendered.pods()["Deployment", "mail-recipient-validation"]["spec"]["containers"][0]
    return {entry["name"]: entry["value"] for entry in container["env"] if "_GUEST_" in entry["name"]}


def test_each_installation_has_a_new_password() -> None:
    first, second = password(render(DEMO)), password(render(DEMO))

    assert first != second
    assert min(len(first), len(second)) >= 20


def test_the_job_gives_the_accounts_the_password_of_the_secret() -> None:
    env = job_env(render(DEMO))

    reference = env["PAQUEBOT_DEMO_PASSWORD"]["valueFrom"]["secretKeyRef"]
    assert reference == {"name": "mail-demo", "key": "password"}
    assert env["PAQUEBOT_DEMO_RESET"]["value"] == "true"


def test_an_upgrade_keeps_the_password_and_ends_no_session_for_it(tmp_path: Path) -> None:
    """Without a completed job the accounts get the password again, because their present one is unknown."""
    installed = render(DEMO)
    (job,) = (job for name, job in installed.of_kind("Job").items() if name.startswith("mail-demo-"))
    job["metadata"]["name"] = "mail-demo-0"  # a rendering always has revision 1
    for jobs, reset in (((), "true"), ((job,), "false")):
        with api_server(installed.of_kind("Secret").values(), tmp_path, jobs) as kubeconfig:
            upgraded = render(DEMO, more=("--dry-run=server", "--is-upgrade", "--kubeconfig", str(kubeconfig)))
        assert password(upgraded) == password(installed)
        assert job_env(upgraded)["PAQUEBOT_DEMO_RESET"]["value"] == reset


def test_the_user_s_own_secret_is_used() -> None:
    rendered = render({**DEMO, "demo.existingSecret": "mine"})

    assert "mail-demo" not in rendered.of_kind("Secret")
    assert job_env(rendered)["PAQUEBOT_DEMO_PASSWORD"]["valueFrom"]["secretKeyRef"]["name"] == "mine"


def test_without_the_demo_there_is_no_password_and_services_are_public() -> None:
    rendered = render()

    assert "mail-demo" not in rendered.of_kind("Secret")
    assert {rendered.get("Service", name)["spec"]["type"] for name in MAIL} == {"LoadBalancer"}


def test_mail_services_of_a_demo_stay_in_the_cluster() -> None:
    rendered = render({**DEMO, "smtpIngress.submission.separate": True})

    types = {name: rendered.get("Service", name)["spec"] for name in (*MAIL, "mail-submission")}
    assert {spec["type"] for spec in types.values()} == {"ClusterIP"}
    assert all("externalTrafficPolicy" not in spec for spec in types.values())


@pytest.mark.parametrize("kind", ["LoadBalancer", "NodePort"])
@pytest.mark.parametrize("path", TYPES)
def test_a_public_demo_needs_demo_public(path: str, kind: str) -> None:
    with pytest.raises(Refused, match=rf"{TYPES[path]}: a Service of type {kind} .*demo\.public=true"):
        render({**DEMO, path: kind})

    shown = render({**DEMO, path: kind, "demo.public": True})
    assert shown.get("Service", f"mail-{TYPES[path]}")["spec"]["type"] == kind


def test_separate_submission_is_checked_too() -> None:
    values = {**DEMO, "smtpIngress.submission.separate": True, "smtpIngress.submission.service.type": "NodePort"}
    with pytest.raises(Refused, match="submission: a Service of type NodePort"):
        render(values)


def test_demo_accounts_send_to_local_addresses_only_even_after_the_demo_is_disabled() -> None:
    for values in ({}, DEMO, {"demo.relay": True}):
        assert guests(render(values)) == {
            "PAQUEBOT_GUEST_DOMAINS": "paquebot.test",
            "PAQUEBOT_GUEST_RELAY": "false",
            "PAQUEBOT_GUEST_RECIPIENTS": "200",
        }
    assert guests(render({**DEMO, "demo.relay": True}))["PAQUEBOT_GUEST_RELAY"] == "true"


def _nats_ports(rendered: Rendered) -> set[int]:
    return {port["port"] for port in rendered.get("Service", "mail-nats")["spec"]["ports"]}


def test_only_keda_reaches_the_monitor_of_nats() -> None:
    assert _nats_ports(render()) == {2422}
    for values in ({"delivery.keda.enabled": True}, {"relay.keda.enabled": True}, {"bundled.nats.monitor": True}):
        rendered = render(values, api_versions=("keda.sh/v1alpha1/ScaledObject",))
        assert _nats_ports(rendered) == {2422, 2822}
        env = rendered.pods()["StatefulSet", "mail-nats"]["spec"]["containers"][0]["env"]
        assert {"name": "PAQUEBOT_ENGINE_MONITOR_HOST", "value": "0.0.0.0"} in env
