"""The effect of a service's values on its objects."""

from __future__ import annotations

import importlib
import ipaddress
from typing import Any

import pytest

from paquebot.delivery.consumer import CONSUMER as DELIVERY
from paquebot.relay.service import CONSUMER as RELAY
from tests.chart.rendering import KEDA, MONITORING, RELEASE, SERVICES, Refused, Rendered, render


def _environment(rendered: Rendered, component: str) -> list[dict[str, Any]]:
    container = rendered.pods()["Deployment", f"{RELEASE}-{component}"]["spec"]["containers"][0]
    entries: list[dict[str, Any]] = container["env"]
    return entries


def _values(rendered: Rendered, component: str) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in _environment(rendered, component) if "value" in entry}


def test_settings_replace_the_chart_s_variables_and_each_name_occurs_once() -> None:
    rendered = render(
        {
            "imap.settings": {
                "PAQUEBOT_LOG_LEVEL": "debug",
                "PAQUEBOT_IMAP_SEARCH_WORK": 1000000,
                "PAQUEBOT_IMAP_SESSIONS": 200,
                "PAQUEBOT_S3_PATH_STYLE": True,
            },
            "imap.extraEnv": [{"name": "PAQUEBOT_IMAP_SESSIONS_PER_CLIENT", "value": "3"}],
        }
    )
    values = _values(rendered, "imap")

    assert values["PAQUEBOT_LOG_LEVEL"] == "debug"
    assert values["PAQUEBOT_IMAP_SEARCH_WORK"] == "1000000"
    assert values["PAQUEBOT_IMAP_SESSIONS"] == "200"
    assert values["PAQUEBOT_S3_PATH_STYLE"] == "true"
    assert values["PAQUEBOT_IMAP_SESSIONS_PER_CLIENT"] == "3"
    names = [entry["name"] for entry in _environment(rendered, "imap")]
    assert len(set(names)) == len(names)
    assert _values(rendered, "pop3")["PAQUEBOT_LOG_LEVEL"] == "info"


def test_the_drain_has_a_value_that_also_sets_the_grace_period() -> None:
    with pytest.raises(Refused, match="drainSeconds"):
        render({"relay.settings": {"PAQUEBOT_DRAIN": "5m"}})

    pod = render({"relay.drainSeconds": 300}).pods()["Deployment", "mail-relay"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 305


def test_autoscaling_and_keda_exclude_each_other() -> None:
    with pytest.raises(Refused, match="delivery: enable autoscaling or keda, not both"):
        render({"delivery.autoscaling.enabled": True, "delivery.keda.enabled": True}, api_versions=KEDA)


def test_keda_reads_the_consumers_that_the_services_open() -> None:
    rendered = render(files=("values-keda.yaml",), api_versions=KEDA)

    for component, consumer in (("delivery", DELIVERY), ("relay", RELAY)):
        (trigger,) = rendered.get("ScaledObject", f"mail-{component}")["spec"]["triggers"]
        assert trigger["metadata"]["consumer"] == consumer
        assert trigger["metadata"]["stream"] == "MAIL"
        assert trigger["metadata"]["natsServerMonitoringEndpoint"] == "mail-nats.post.svc:2822"


@pytest.mark.parametrize(
    ("component", "module"), [("smtp-ingress", "smtp_ingress"), ("imap", "imap"), ("pop3", "pop3")]
)
def test_keda_queries_prometheus_for_a_metric_that_the_service_has(component: str, module: str) -> None:
    metrics = importlib.import_module(f"paquebot.{module}.metrics")
    gauge = metrics.OPEN_SESSIONS if module == "smtp_ingress" else metrics.SESSIONS
    names = {family.name for family in gauge.collect()}

    (trigger,) = render(files=("values-keda.yaml",), api_versions=KEDA).get("ScaledObject", f"mail-{component}")[
        "spec"
    ]["triggers"]
    assert trigger["metadata"]["query"].partition("(")[2].partition("{")[0] in names


def test_scaling_by_sessions_needs_the_address_of_prometheus() -> None:
    with pytest.raises(Refused, match=r"keda\.prometheus\.serverAddress"):
        render({"imap.keda.enabled": True}, api_versions=KEDA)


def test_pods_are_spread_by_their_own_labels() -> None:
    rendered = render()

    for component in SERVICES.values():
        template = rendered.pods()["Deployment", f"mail-{component}"]
        (rule,) = template["spec"]["topologySpreadConstraints"]
        assert rule["whenUnsatisfiable"] == "ScheduleAnyway"
        assert rule["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_a_rule_with_its_own_selector_keeps_it() -> None:
    rule = {
        "maxSkew": 2,
        "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"a": "b"}},
    }

    rendered = render({"relay.topologySpreadConstraints": [rule]})

    assert rendered.pods()["Deployment", "mail-relay"]["spec"]["topologySpreadConstraints"] == [rule]


def test_an_upgrade_never_serves_with_fewer_pods() -> None:
    for item in render().of_kind("Deployment").values():
        assert item["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_one_pod_alone_can_be_moved_from_its_node() -> None:
    budgets = render().of_kind("PodDisruptionBudget")

    for component in SERVICES.values():
        assert budgets[f"mail-{component}"]["spec"]["maxUnavailable"] == 1


def test_submission_reaches_the_engines_and_the_directory_as_smtp_ingress_does() -> None:
    rendered = render({"smtpIngress.submission.separate": True})
    policies = rendered.of_kind("NetworkPolicy")
    labels = rendered.pods()["Deployment", "mail-submission"]["metadata"]["labels"]

    def lets_in(peer: dict[str, Any]) -> bool:
        selector = peer["podSelector"]
        return (
            all(
                labels[rule["key"]] in rule["values"]
                if rule["operator"] == "In"
                else labels[rule["key"]] not in rule["values"]
                for rule in selector.get("matchExpressions", [])
            )
            and selector.get("matchLabels", {}).items() <= labels.items()
        )

    def reaches(name: str, port: int | str) -> bool:
        return any(
            any(item["port"] == port for item in rule["ports"]) and any(lets_in(peer) for peer in rule["from"])
            for rule in policies[name]["spec"]["ingress"]
            if "from" in rule
        )

    assert policies["mail-submission"]["spec"]["egress"] == policies["mail-smtp-ingress"]["spec"]["egress"]
    assert reaches("mail-nats", "nats")
    assert reaches("mail-s3", "s3")
    assert reaches("mail-recipient-validation", "grpc")
    assert not reaches("mail-postgres", "postgres")


def test_only_our_pods_reach_recipient_validation() -> None:
    rules = render().get("NetworkPolicy", "mail-recipient-validation")["spec"]["ingress"]

    (rule,) = [rule for rule in rules if {"port": "grpc", "protocol": "TCP"} in rule["ports"]]
    (peer,) = rule["from"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == RELEASE


def test_a_service_monitor_needs_the_prometheus_operator() -> None:
    assert not render().of_kind("PodMonitor")
    assert set(render(api_versions=MONITORING).of_kind("PodMonitor")) >= {f"mail-{name}" for name in SERVICES.values()}


def test_services_get_proxies_and_traces_from_the_values() -> None:
    plain = render()
    given = render({"trustedProxies": ["192.0.2.0/28", "2001:db8::/64"], "tracing.endpoint": "http://otel:4317"})

    for component in ("smtp-ingress", "imap", "pop3"):
        assert "PAQUEBOT_TRUSTED_PROXIES" not in _values(plain, component)
        assert _values(given, component)["PAQUEBOT_TRUSTED_PROXIES"] == "192.0.2.0/28,2001:db8::/64"
    for component in SERVICES.values():
        assert "PAQUEBOT_TRACE_ENDPOINT" not in _values(plain, component)
        assert _values(given, component)["PAQUEBOT_TRACE_ENDPOINT"] == "http://otel:4317"
        assert _values(given, component)["PAQUEBOT_TRACE_SAMPLE"] == "0.01"


def test_a_new_version_of_the_chart_alone_replaces_no_pods() -> None:
    for component in SERVICES.values():
        assert "helm.sh/chart" not in render().pods()["Deployment", f"mail-{component}"]["metadata"]["labels"]


def test_a_fixed_port_of_nodes_is_given_to_its_port() -> None:
    service = render({"imap.service.type": "NodePort", "imap.service.nodePorts": {"imaps": 30993}}).get(
        "Service", "mail-imap"
    )

    assert {port["name"]: port.get("nodePort") for port in service["spec"]["ports"]} == {"imap": None, "imaps": 30993}


def test_relay_reaches_no_network_that_is_not_public() -> None:
    rule = _outside(render())
    assert [item["port"] for item in rule["ports"]] == [25, 465, 587]
    blocks = {peer["ipBlock"]["cidr"]: peer["ipBlock"]["except"] for peer in rule["to"]}
    assert blocks.keys() == {"0.0.0.0/0", "::/0"}
    closed = [ipaddress.ip_network(text) for text in (*blocks["0.0.0.0/0"], *blocks["::/0"])]
    for inside in (
        "10.1.2.3",
        "172.20.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "127.0.0.1",
        "::1",
        "fd00::1",
    ):
        address = ipaddress.ip_address(inside)
        assert any(address.version == network.version and address in network for network in closed), inside


def test_an_operator_sets_the_networks_closed_to_relay() -> None:
    rule = _outside(render({"relay.closedNetworks": ["10.0.0.0/8"]}))
    assert [peer["ipBlock"] for peer in rule["to"]] == [
        {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]},
        {"cidr": "::/0"},
    ]
    assert "to" not in _outside(render({"relay.closedNetworks": []}))


def test_relay_knows_the_addresses_of_the_mail_services() -> None:
    values = {"smtpIngress.service.loadBalancerIP": "198.51.100.7", "relay.ownAddresses": ["198.51.100.8"]}
    container = render(values).pods()["Deployment", "mail-relay"]["spec"]["containers"][0]
    settings = {item["name"]: item.get("value") for item in container["env"]}
    assert settings["PAQUEBOT_RELAY_OWN_ADDRESSES"] == "198.51.100.8,198.51.100.7"


def test_ports_declare_to_a_mesh_that_the_server_speaks_first() -> None:
    services = render({"smtpIngress.submission.separate": True}).of_kind("Service")
    for name in ("smtp-ingress", "submission", "imap", "pop3", "nats", "postgres", "s3"):
        assert {port["appProtocol"] for port in services[f"mail-{name}"]["spec"]["ports"]} == {"tcp"}


def test_an_empty_list_of_ports_opens_nothing() -> None:
    """In a NetworkPolicy a rule without ports applies to all of them."""
    rendered = render({"relay.ports": [], "networkPolicy.dnsPorts": []})
    for name, policy in rendered.of_kind("NetworkPolicy").items():
        for rule in policy["spec"]["egress"]:
            assert rule["ports"], name


def _outside(rendered: Rendered) -> dict[str, Any]:
    """relay's rule of egress to other hosts."""
    rules = rendered.get("NetworkPolicy", "mail-relay")["spec"]["egress"]
    return next(rule for rule in rules if any(item["port"] == 25 for item in rule.get("ports", [])))
