"""The chart refuses values that cannot work before helm creates an object, with a message about the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from paquebot.runtime.settings import parse_bytes
from tests.chart.api_server import api_server
from tests.chart.rendering import CHART, Refused, render

Values = dict[str, Any]


@pytest.mark.parametrize(
    ("path", "name", "message"),
    [
        ("smtpIngress", "PAQUEBOT_SMTP_CONECTIONS", "did you mean PAQUEBOT_SMTP_CONNECTIONS?"),
        ("imap", "PAQUEBOT_IMAP_SESSION_PER_CLIENT", "did you mean PAQUEBOT_IMAP_SESSIONS_PER_CLIENT?"),
        ("relay", "PAQUEBOT_RELAY_LIFE_TIME", "did you mean PAQUEBOT_RELAY_LIFETIME?"),
        ("janitor", "PAQUEBOT_JANITOR_MINAGE", "did you mean PAQUEBOT_JANITOR_MIN_AGE?"),
        ("delivery", "PAQUEBOT_INFLIGHT", "did you mean PAQUEBOT_IN_FLIGHT?"),
        ("pop3", "PAQUEBOT_IMAP_POLL", "it is a setting of imap"),
        ("imap", "IMAP_SESSIONS", "did you mean PAQUEBOT_IMAP_SESSIONS?"),
        ("smtpIngress", "paquebot_smtp_hops", "did you mean PAQUEBOT_SMTP_HOPS?"),
        ("relay", "PAQUEBOT_ZZZ", "`paquebot relay --settings` lists what it knows"),
    ],
)
def test_a_setting_that_the_service_does_not_know_is_refused(path: str, name: str, message: str) -> None:
    with pytest.raises(Refused) as refused:
        render({f"{path}.settings": {name: "1"}})
    assert f"has no setting {name}" in str(refused.value)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("path", "name", "value", "what"),
    [
        ("imap", "PAQUEBOT_IMAP_TIMEOUT", "30 minutes", "a duration"),
        ("imap", "PAQUEBOT_IMAP_READING", "1GB free", "a size"),
        ("smtpIngress", "PAQUEBOT_TRUSTED_PROXIES", "10.0.0.0/8;10.1.0.0/16", "a list of networks"),
        ("smtpIngress", "PAQUEBOT_SMTP_CONNECTIONS", "many", "a whole number"),
        ("smtpIngress", "PAQUEBOT_SMTP_CHECK_FROM", "perhaps", "true or false"),
        ("smtpIngress", "PAQUEBOT_LOOP_SHARE", "a half", "a number"),
    ],
)
def test_a_setting_of_the_wrong_form_is_refused(path: str, name: str, value: str, what: str) -> None:
    with pytest.raises(Refused) as refused:
        render({f"{path}.settings": {name: value}})
    assert f'{path}.settings: {name} is "{value}", which is not {what}' in str(refused.value)


def test_every_form_that_the_services_read_is_accepted() -> None:
    """Every form that runtime/settings.py knows, also as YAML's own numbers and booleans."""
    render(
        {
            "imap.settings": {
                "PAQUEBOT_IMAP_TIMEOUT": 1800,
                "PAQUEBOT_IMAP_POLL": "1.5m",
                "PAQUEBOT_IMAP_READING": "64 mib",
                "PAQUEBOT_IMAP_BODY_CACHE": 67108864,
                "PAQUEBOT_LOG_ADDRESSES": "yes",
                "PAQUEBOT_S3_PATH_STYLE": False,
                "PAQUEBOT_LOOP_SHARE": 0.5,
                "PAQUEBOT_TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.1 2001:db8::/32",
                "PAQUEBOT_IMAP_LISTEN": "0.0.0.0:2143,[fd00::1]:2143",
                "PAQUEBOT_NATS_PASSWORD_FILE": "/etc/paquebot/more/password",
                "PAQUEBOT_IMAP_ERRORS": None,
            }
        }
    )


def test_all_faults_are_reported_together() -> None:
    values = {"imap.settings": {"PAQUEBOT_A": "1"}, "pop3.settings": {"PAQUEBOT_B": "1"}, "relay.inFlight": "1GiB"}
    with pytest.raises(Refused) as refused:
        render(values)
    for part in ("PAQUEBOT_A", "PAQUEBOT_B", "relay.resources.limits.memory"):
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"delivery.inFlight": "300MiB"}, "delivery.resources.limits.memory is 512Mi, but inFlight 300MiB need 600Mi"),
        ({"relay.settings": {"PAQUEBOT_IN_FLIGHT": "1GiB"}}, "relay.resources.limits.memory is 512Mi"),
        ({"imap.sessions": 10000}, "inFlight 128MiB and sessions 10000 need 784Mi"),
        ({"pop3.inFlight": 314572800}, "pop3.resources.limits.memory"),
        ({"smtpIngress.maxMessageSize": "150MiB"}, "inFlight 128MiB, maxMessageSize 150MiB and connections 2000"),
        ({"smtpIngress.settings": {"PAQUEBOT_WORKERS": 2}}, "in each of 2 workers"),
        ({"recipientValidation.hashThreads": 17}, "hashThreads 17 need 393Mi"),
        (
            {
                "smtpIngress.submission.separate": True,
                "smtpIngress.submission.resources": {"limits": {"memory": "256Mi"}},
            },
            "smtpIngress.submission.resources.limits.memory is 256Mi",
        ),
        ({"imap.resources.requests": {"memory": "1Gi"}}, "limits.memory 512Mi is less than requests.memory 1Gi"),
    ],
)
def test_memory_that_a_pod_could_not_have_is_refused(values: Values, message: str) -> None:
    with pytest.raises(Refused) as refused:
        render(values)
    assert message in str(refused.value)


@pytest.mark.parametrize("limit", [None, "2Gi", "2147483648", 2147483648, "1.5G"])
def test_memory_that_is_enough_or_unlimited_is_accepted(limit: Any) -> None:
    render({"delivery.inFlight": "700MiB", "delivery.resources.limits": {"memory": limit} if limit else None})


def test_the_defaults_leave_the_memory_that_docs_hostile_input_states() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    for part in ("delivery", "relay", "imap", "pop3"):
        assert 2 * parse_bytes(values[part]["inFlight"]) <= 512 << 20


@pytest.mark.parametrize(
    "values",
    [
        {"trustedProxies": ["10.0.0.0/33"]},
        {"trustedProxies": ["300.0.0.0/8"]},
        {"relay.allowNetworks": ["10.0.0.0"]},
        {"relay.closedNetworks": ["10.0.0.0/40"]},
        {"relay.ownAddresses": ["mail.example.org"]},
        {"smtpIngress.relayClients": ["2001:db8::/129"]},
        {"imap.service.loadBalancerSourceRanges": ["office"]},
        {"imap.inFlight": "128Mi"},
        {"relay.lifetime": "5 days"},
    ],
    ids=str,
)
def test_networks_sizes_and_durations_have_their_form(values: Values) -> None:
    with pytest.raises(Refused, match="values don't meet the specifications of the schema"):
        render(values)


def test_an_upgrade_changes_no_existing_volume(tmp_path: Path) -> None:
    engines = render().of_kind("StatefulSet").values()

    def upgrade(values: Values) -> None:
        with api_server((), tmp_path, workloads=engines) as kubeconfig:
            render(values, more=("--dry-run=server", "--is-upgrade", "--kubeconfig", str(kubeconfig)))

    upgrade({"bundled.nats.storage": "2048Mi"})
    with pytest.raises(Refused, match=r"bundled\.s3\.storage is 20Gi, but the volume was created with 10Gi"):
        upgrade({"bundled.s3.storage": "20Gi"})
    with pytest.raises(Refused, match=r"bundled\.s3\.storageClass is fast"):
        upgrade({"bundled.s3.storageClass": "fast"})
