"""IPv4, IPv6 and both: pods listen on the address families of the Services."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from paquebot.cli.services import SERVICES as COMMANDS
from paquebot.runtime.settings import parse_listen
from tests.chart.rendering import SERVICES, Refused, Rendered, render

FAMILIES = {"0.0.0.0": {"IPv4"}, "[::]": {"IPv4", "IPv6"}}


def _listeners(rendered: Rendered) -> dict[tuple[str, str], str]:
    """Return (pod, variable) to the value of every listener of every pod, except empty ones."""
    return {
        (name, entry["name"]): entry["value"]
        for (_, name), template in rendered.pods().items()
        for container in template["spec"]["containers"]
        for entry in container.get("env", [])
        if entry["name"].endswith(("_LISTEN", "_ENGINE_HOST", "_MONITOR_HOST")) and entry["value"]
    }


def _served(rendered: Rendered) -> set[frozenset[str]]:
    found = set()
    for (_, variable), value in _listeners(rendered).items():
        hosts = value.split(",")
        if variable.endswith("LISTEN"):
            hosts = [item.rpartition(":")[0] for item in hosts]
        hosts = ["[::]" if host == "::" else host for host in hosts]
        found.add(frozenset().union(*(FAMILIES[host] for host in hosts)))
    return found


@pytest.mark.parametrize(
    ("values", "families"),
    [
        ({}, "IPv4"),
        ({"listen": "0.0.0.0"}, "IPv4"),
        ({"listen": "[::]"}, "IPv4 IPv6"),
        ({"listen": ["[::]"]}, "IPv4 IPv6"),
        ({"listen": "::"}, "IPv4 IPv6"),
        ({"listen": ["0.0.0.0", "[::]"]}, "IPv4 IPv6"),
        ({"imap.service.ipFamilies": ["IPv6"]}, "IPv4 IPv6"),
        ({"imap.service.ipFamilyPolicy": "PreferDualStack"}, "IPv4 IPv6"),
        ({"smtpIngress.service.ipFamilyPolicy": "RequireDualStack"}, "IPv4 IPv6"),
        ({"smtpIngress.service.ipFamilyPolicy": "SingleStack"}, "IPv4"),
    ],
    ids=str,
)
def test_every_listener_of_every_pod_serves_the_requested_families(values: dict[str, Any], families: str) -> None:
    rendered = render({**values, "demo.enabled": True, "internalTls.acceptPlain": True, "bundled.nats.monitor": True})

    assert _served(rendered) == {frozenset(families.split())}
    assert len(_listeners(rendered)) >= 22


def test_several_addresses_are_given_to_each_listener() -> None:
    rendered = render({"listen": ["10.0.0.7", "fd00::7"]})

    assert _listeners(rendered)["mail-imap", "PAQUEBOT_IMAPS_LISTEN"] == "10.0.0.7:2993,[fd00::7]:2993"
    for (_, variable), value in _listeners(rendered).items():
        if variable.endswith("_LISTEN"):
            assert [str(parse_listen(item)) for item in value.split(",")] == value.split(",")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"imap.service.ipFamilyPolicy": "RequireDualStack"}, "imap.service requests IPv6"),
        ({"pop3.service.ipFamilies": ["IPv6", "IPv4"]}, "pop3.service requests IPv6"),
        (
            {"smtpIngress.submission.separate": True, "smtpIngress.submission.service.ipFamilies": ["IPv6"]},
            "smtpIngress.submission.service requests IPv6",
        ),
    ],
)
def test_a_family_without_a_listener_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused) as refused:
        render({**values, "listen": "0.0.0.0"})
    assert f"{message}, but listen (0.0.0.0) has no such address" in str(refused.value)


def test_only_a_service_with_families_requests_them() -> None:
    rendered = render({"imap.service.ipFamilies": ["IPv6", "IPv4"], "imap.service.ipFamilyPolicy": "RequireDualStack"})

    spec = rendered.get("Service", "mail-imap")["spec"]
    assert (spec["ipFamilyPolicy"], spec["ipFamilies"]) == ("RequireDualStack", ["IPv6", "IPv4"])
    assert not {"ipFamilies", "ipFamilyPolicy"} & rendered.get("Service", "mail-pop3")["spec"].keys()


def test_a_connection_to_other_hosts_may_be_of_either_family() -> None:
    rules = render().get("NetworkPolicy", "mail-relay")["spec"]["egress"]
    (outside,) = [rule for rule in rules if any(port["port"] == 25 for port in rule.get("ports", []))]
    assert {peer["ipBlock"]["cidr"] for peer in outside["to"]} == {"0.0.0.0/0", "::/0"}


def test_every_listener_of_the_services_gets_the_address() -> None:
    """A listener that the chart does not set would listen on loopback."""
    listeners = _listeners(render({"listen": "[::]"}))
    for component in SERVICES.values():
        service = next(item for item in COMMANDS if item.name == component.replace("-", "_"))
        module = importlib.import_module(f"paquebot.{service.name}.service")
        assert getattr(module, service.settings)
        assert listeners[f"mail-{component}", "PAQUEBOT_METRICS_LISTEN"] == "[::]:2900"
