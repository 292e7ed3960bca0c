"""From a domain to hosts, against a real DNS server: preference, aliases, null MX, our own host, silence."""

import random
from collections.abc import AsyncIterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from paquebot.relay.outcome import RelayResult, Unroutable
from paquebot.relay.routing.addresses import interface_addresses
from paquebot.relay.routing.resolver import Exchanger, Resolver
from paquebot.relay.routing.routes import Route, Routes
from paquebot.relay.settings import RoutingSettings
from paquebot.runtime.settings import Listen, Network, Seconds
from tests.support.dns_server import DnsServer

ZONE = """
@ MX 20 second
@ MX 10 first
first A 127.0.0.2
second A 127.0.0.3
second AAAA ::3
alone A 127.0.0.4
alias CNAME alone
mxalias CNAME @
toalias MX 10 alias
none MX 0 .
nonealso MX 0 .
nonealso MX 10 first
empty TXT "nothing here"
dangling MX 10 gone
partly MX 10 gone
partly MX 20 first
loop CNAME loop2
loop2 CNAME loop
ours MX 10 second
ours MX 20 relay.example.org.
ours MX 20 first
ours MX 30 alone
onlyus MX 10 relay.example.org.
failingmx MX 10 sick
sick A 127.0.0.9
"""


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer({"example.net": ZONE}) as server:
        yield server


HERE = (ip_network("127.0.0.0/8"), ip_network("::/64"))


def resolver(
    dns: DnsServer,
    *,
    own: tuple[Network, ...] = (),
    allow: tuple[Network, ...] = HERE,
    shuffle: object = None,
    **fields: object,
) -> Resolver:
    settings = RoutingSettings(
        dns=(Listen("127.0.0.1", dns.port),),
        dns_timeout=Seconds(0.6),
        own_addresses=own,
        allow_networks=allow,
        **fields,  # type: ignore[arg-type]
    )
    return Resolver(settings, "relay.example.org", 25, shuffle or (lambda exchangers: None))  # type: ignore[arg-type]


async def where(dns: DnsServer, domain: str, **fields: object) -> list[str]:
    return [str(host) for host in await resolver(dns, **fields).hosts(Route(domain))]  # type: ignore[arg-type]


async def nowhere(dns: DnsServer, domain: str, **fields: object) -> tuple[RelayResult, str]:
    with pytest.raises(Unroutable) as caught:
        await resolver(dns, **fields).hosts(Route(domain))  # type: ignore[arg-type]
    return caught.value.outcome.result, caught.value.outcome.status


async def test_preference_orders_hosts_and_addresses(dns: DnsServer) -> None:
    first = "first.example.net[127.0.0.2]:25"
    second = ["second.example.net[::3]:25", "second.example.net[127.0.0.3]:25"]
    assert await where(dns, "example.net") == [first, *second]
    assert await where(dns, "example.net", ipv6=False) == [first, second[1]]
    assert await where(dns, "example.net", addresses=2) == [first, second[0]]


async def test_implicit_mx_and_aliases(dns: DnsServer) -> None:  # RFC 5321 §5.1
    assert await where(dns, "alone.example.net") == ["alone.example.net[127.0.0.4]:25"]
    assert await where(dns, "alias.example.net") == ["alias.example.net[127.0.0.4]:25"]
    assert (await where(dns, "mxalias.example.net"))[0] == "first.example.net[127.0.0.2]:25"
    assert await where(dns, "toalias.example.net") == ["alias.example.net[127.0.0.4]:25"]


async def test_an_exchanger_without_address_is_skipped(dns: DnsServer) -> None:
    assert await where(dns, "partly.example.net") == ["first.example.net[127.0.0.2]:25"]


@pytest.mark.parametrize(
    ("domain", "status"),
    [
        ("none.example.net", "5.1.10"),  # RFC 7505
        ("nothere.example.net", "5.1.2"),
        ("empty.example.net", "5.1.2"),
        ("dangling.example.net", "5.4.4"),
        ("onlyus.example.net", "5.4.6"),
    ],
)
async def test_a_denial_of_dns_is_permanent(dns: DnsServer, domain: str, status: str) -> None:
    assert await nowhere(dns, domain) == (RelayResult.FAILED, status)


LONG_LABEL = "l" * 63


@pytest.mark.parametrize(
    "domain", ["web_01.example.net", "_x.example.net", "xn--ls8h.example.net", f"{LONG_LABEL}.example.net"]
)
async def test_names_that_only_dns_accepts(dns: DnsServer, domain: str) -> None:
    """DNS accepts underscores, A-labels unknown to IDNA 2008, and labels of the maximum length."""
    name = domain.split(".")[0]
    dns.set_zone("example.net", f"{name} MX 10 mx_1\nmx_1 A 127.0.0.2")
    assert await where(dns, domain) == ["mx_1.example.net[127.0.0.2]:25"]


@pytest.mark.parametrize(
    "domain",
    ["a..example.net", "l" + LONG_LABEL + ".net", "a." * 130 + "net", "a\\", "a\\999.net", "", ".", "\u00df" * 70],
)
async def test_an_impossible_name_is_permanent(dns: DnsServer, domain: str) -> None:
    outcome, status = await nowhere(dns, domain)
    assert (outcome, status) in ((RelayResult.FAILED, "5.1.2"), (RelayResult.DEFERRED, "4.4.3"))
    assert outcome is RelayResult.FAILED or domain in ("", "."), (
        "the root is a name, but this server has no zone for it"
    )


async def test_a_null_mx_beside_others_is_ignored(dns: DnsServer) -> None:
    assert await where(dns, "nonealso.example.net") == ["first.example.net[127.0.0.2]:25"]


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["failing", "silent"])
async def test_a_query_without_an_answer_is_temporary(dns: DnsServer, trouble: str) -> None:
    (dns.failing if trouble == "failing" else dns.silent).update({"example.net", "sick.example.net"})
    assert await nowhere(dns, "example.net") == (RelayResult.DEFERRED, "4.4.3")
    assert await nowhere(dns, "failingmx.example.net") == (RelayResult.DEFERRED, "4.4.3")


async def test_a_refused_zone_and_an_alias_loop_are_temporary(dns: DnsServer) -> None:
    assert await nowhere(dns, "example.invalid") == (RelayResult.DEFERRED, "4.4.3")
    outcome, _ = await nowhere(dns, "loop.example.net")
    assert outcome in (RelayResult.DEFERRED, RelayResult.FAILED)


async def test_our_own_host_ends_the_list(dns: DnsServer) -> None:  # RFC 5321 §5.1
    second = ["second.example.net[::3]:25", "second.example.net[127.0.0.3]:25"]
    assert await where(dns, "ours.example.net") == second
    by_address = (ip_network("127.0.0.3/32"),)
    assert await where(dns, "example.net", own=by_address) == ["first.example.net[127.0.0.2]:25"]
    assert await nowhere(dns, "alone.example.net", own=(ip_network("127.0.0.0/8"),)) == (RelayResult.FAILED, "5.4.6")


async def test_equal_preferences_are_shuffled(dns: DnsServer) -> None:
    dns.set_zone("equal.test", "\n".join(f"@ MX 10 h{n}\nh{n} A 127.0.1.{n}" for n in range(1, 6)))
    orders = set()
    for seed in range(8):
        hosts = await where(dns, "equal.test", shuffle=random.Random(seed).shuffle, addresses=9)
        assert len(hosts) == 5
        orders.add(tuple(hosts))
    assert len(orders) > 1


async def test_a_large_answer_arrives_over_tcp_and_is_bounded(dns: DnsServer) -> None:
    dns.set_zone(
        "many.test",
        "\n".join(
            f"@ MX {n} host-with-a-long-name-{n:03}\nhost-with-a-long-name-{n:03} A 127.0.0.1" for n in range(200)
        ),
    )
    seen: list[Exchanger] = []
    hosts = await where(dns, "many.test", exchangers=4, addresses=3, shuffle=seen.extend, ipv6=False)
    assert hosts == [f"host-with-a-long-name-{n:03}.many.test[127.0.0.1]:25" for n in range(3)]
    assert len(seen) == 200
    assert len([name for name, kind in dns.questions if kind == "A"]) == 4


async def test_answers_are_cached_for_their_ttl(dns: DnsServer) -> None:
    found = resolver(dns)
    await found.hosts(Route("example.net"))
    asked = len(dns.questions)
    await found.hosts(Route("example.net"))
    assert len(dns.questions) == asked


INSIDE = (
    "A 127.0.0.1",
    "A 10.1.2.3",
    "A 172.16.0.1",
    "A 192.168.1.1",
    "A 169.254.169.254",
    "A 100.64.0.1",
    "A 0.0.0.0",
    "A 192.0.2.1",
    "A 198.18.0.1",
    "A 224.0.0.1",
    "A 255.255.255.255",
    "AAAA ::1",
    "AAAA ::",
    "AAAA ::ffff:127.0.0.1",
    "AAAA ::ffff:8.8.8.8",
    "AAAA ::127.0.0.1",
    "AAAA fe80::1",
    "AAAA fd00::1",
    "AAAA fec0::1",
    "AAAA ff02::1",
    "AAAA 64:ff9b::10.0.0.1",
    "AAAA 64:ff9b:1::8.8.8.8",
    "AAAA 2002:7f00:1::",
    "AAAA 2002:a00:1::1",
    "AAAA 2001:0:808:808::1",
    "AAAA 2001:db8::1",
    "AAAA 3fff::1",
)


@pytest.mark.parametrize("record", INSIDE)
async def test_dns_leads_only_to_public_addresses(dns: DnsServer, record: str) -> None:
    dns.set_zone("inner.test", f"@ MX 10 mx\nmx {record}\nplain {record}")
    for domain in ("inner.test", "plain.inner.test"):
        with pytest.raises(Unroutable) as caught:
            await resolver(dns, allow=()).hosts(Route(domain))
        assert (caught.value.outcome.result, caught.value.outcome.status) == (RelayResult.FAILED, "5.1.2")
        assert record.split()[1] not in caught.value.outcome.text, "inner addresses are not revealed"


OUTSIDE = ("A 8.8.8.8", "AAAA 2606:4700::1", "AAAA 64:ff9b::8.8.8.8", "AAAA 2002:808:808::1")


@pytest.mark.parametrize("record", OUTSIDE)
async def test_public_addresses(dns: DnsServer, record: str) -> None:
    dns.set_zone("outer.test", f"@ MX 10 mx\nmx {record}\nmx A 10.0.0.1\n@ MX 20 inner\ninner A 192.168.0.1")
    [host] = await resolver(dns, allow=()).hosts(Route("outer.test"))
    assert ip_address(host.address) == ip_address(record.split()[1]), "and no other address that is not public"


async def test_an_operator_may_allow_networks(dns: DnsServer) -> None:
    dns.set_zone("inner.test", "@ A 10.1.2.3\n@ A 10.2.2.3")
    allowed = (ip_network("10.1.0.0/16"),)
    assert await where(dns, "inner.test", allow=allowed) == ["inner.test[10.1.2.3]:25"]


async def test_static_routes_lead_anywhere(dns: DnsServer) -> None:
    routes = Routes(["a.test=[10.0.0.1]", "b.test=[alone.example.net]"])
    for domain, address in (("a.test", "10.0.0.1"), ("b.test", "127.0.0.4")):
        [host] = await resolver(dns, allow=()).hosts(routes.route(domain))
        assert host.address == address


@pytest.mark.parametrize("literal", ["[8.8.8.8]", "[IPv6:2606:4700::1]", "[127.0.0.4]"])
async def test_address_literals_are_not_sent_to(dns: DnsServer, literal: str) -> None:
    assert await nowhere(dns, literal) == (RelayResult.FAILED, "5.1.2")


async def test_address_literals_where_they_are_enabled(dns: DnsServer) -> None:
    wanted = {"literals": True, "allow": ()}
    assert await where(dns, "[8.8.8.8]", **wanted) == ["[8.8.8.8][8.8.8.8]:25"]
    assert await nowhere(dns, "[127.0.0.4]", **wanted) == (RelayResult.FAILED, "5.1.2")
    assert await nowhere(dns, "[8.8.8.8]", own=(ip_network("8.8.8.0/24"),), **wanted) == (
        RelayResult.FAILED,
        "5.4.6",
    )


def test_own_addresses_of_this_host(tmp_path: Path) -> None:
    (tmp_path / "fib_trie").write_text(
        "Main:\n  |-- 127.0.0.1\n     /32 host LOCAL\n  |-- 203.0.113.5\n     /32 host LOCAL\n  |-- 203.0.113.0\n"
        "     /24 link UNICAST\nLocal:\n  |-- 203.0.113.5\n     /32 host LOCAL\n"
    )
    (tmp_path / "if_inet6").write_text(
        "00000000000000000000000000000001 01 80 10 80       lo\n26064700000000000000000000000005 02 40 00 80     eth0\n"
        "fe800000000000000000000000000005 02 40 20 80     eth0\n"
    )
    own = interface_addresses(tmp_path)
    assert own == (ip_network("203.0.113.5/32"), ip_network("2606:4700::5/128"))
    assert interface_addresses(tmp_path / "nothing") == ()


async def test_address_literals_and_static_routes_need_no_lookup(dns: DnsServer) -> None:
    assert await where(dns, "[127.0.0.7]", literals=True) == ["[127.0.0.7][127.0.0.7]:25"]
    assert await where(dns, "[IPv6:::1]", literals=True) == ["[IPv6:::1][::1]:25"]
    (host,) = await resolver(dns).hosts(Routes(["*=[127.0.0.8]:2525"]).route("anywhere.test"))
    assert str(host) == "127.0.0.8[127.0.0.8]:2525"
    assert dns.questions == []


async def test_static_routes_by_name(dns: DnsServer) -> None:
    routes = Routes(["a.test=example.net:2525", "b.test=[alone.example.net]"])
    assert (await resolver(dns).hosts(routes.route("a.test")))[0].port == 2525
    (host,) = await resolver(dns).hosts(routes.route("b.test"))
    assert str(host) == "alone.example.net[127.0.0.4]:25"
    assert ("alone.example.net", "MX") not in dns.questions
