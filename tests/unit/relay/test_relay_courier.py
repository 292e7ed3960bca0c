"""One message through the hosts of a destination: the next host, open connections, limits, the smart host's login."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_network
from pathlib import Path

import pytest

from paquebot.relay.courier import Courier, CourierResult
from paquebot.relay.message import RelayRecipient
from paquebot.relay.outcome import Outcomes
from paquebot.relay.progress import AttemptProgress
from paquebot.relay.queue.hosts import HostShares
from paquebot.relay.routing.resolver import Resolver
from paquebot.relay.routing.routes import Routes
from paquebot.relay.settings import RelayLoadSettings, RetrySettings, RoutingSettings, SmtpClientSettings
from paquebot.relay.smtp_client.pool import SessionPool
from paquebot.runtime.settings import Listen, Seconds, Secret
from tests.support.dns_server import DnsServer
from tests.support.loopback import free_port
from tests.support.relay_fixtures import TIMEOUTS, authority, handshake, outgoing
from tests.support.remote_host import DROP, EXTENSIONS, SILENT, RemoteHost, then_drop

ZONE = "@ MX 10 first\n@ MX 20 second\nfirst A 127.0.0.2\nsecond A 127.0.0.3"
LOOPBACK = (ip_network("127.0.0.0/8"),)
RAW = b"Subject: x\r\n\r\nHello\r\n"


class Road:
    """A courier, and the deliveries that it reported."""

    def __init__(self, dns: DnsServer, client: SmtpClientSettings, routes: Sequence[str] = (), ca: str = "") -> None:
        self.pool = SessionPool(handshake(ca=ca), client)
        routing = RoutingSettings(
            dns=(Listen("127.0.0.1", dns.port),), dns_timeout=Seconds(2.0), ipv6=False, allow_networks=LOOPBACK
        )
        resolver = Resolver(routing, "relay.example.org", client.port, lambda exchangers: None)
        hosts = HostShares(RelayLoadSettings(), RetrySettings(), lambda: 0.0)
        self.courier = Courier(resolver, self.pool, hosts, client, TIMEOUTS)
        self.routes = Routes(routes)
        self.delivered: list[set[str]] = []
        self.in_doubt: list[bool] = []

    async def carry(self, *names: str, domain: str = "example.net") -> dict[str, str]:
        return summary((await self.carried(*names, domain=domain)).outcomes)

    async def carried(self, *names: str, domain: str = "example.net") -> CourierResult:
        progress = AttemptProgress()

        async def on_delivered(outcomes: Outcomes) -> None:
            self.delivered.append({path.split("@")[0] for path in outcomes})
            self.in_doubt.append(progress.in_doubt)

        recipients = [RelayRecipient(f"{name}@{domain}") for name in names]
        found = await self.courier.carry(
            outgoing(RAW, "s@example.org"), self.routes.route(domain), recipients, on_delivered, progress
        )
        assert not progress.in_doubt
        return found


def summary(outcomes: Outcomes) -> dict[str, str]:
    return {path.split("@")[0]: f"{r.result.value} {r.status} {r.host}".strip() for path, r in outcomes.items()}


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
async def road(port: int) -> AsyncIterator[Road]:
    async with travelling(SmtpClientSettings(port=port)) as found:
        yield found


@contextlib.asynccontextmanager
async def travelling(client: SmtpClientSettings, routes: Sequence[str] = (), ca: str = "") -> AsyncIterator[Road]:
    async with DnsServer({"example.net": ZONE}) as dns:
        found = Road(dns, client, routes, ca)
        yield found
        found.pool.close()


def first(port: int, on: dict[str, object] | None = None, **options: object) -> RemoteHost:
    return RemoteHost(on, address="127.0.0.2", port=port, **options)  # type: ignore[arg-type]


def second(port: int, on: dict[str, object] | None = None, **options: object) -> RemoteHost:
    return RemoteHost(on, address="127.0.0.3", port=port, **options)  # type: ignore[arg-type]


async def test_the_preferred_host_gets_the_message(road: Road, port: int) -> None:
    async with first(port) as one, second(port) as two:
        assert await road.carry("a", "b") == {
            "a": "delivered 2.0.0 first.example.net",
            "b": "delivered 2.0.0 first.example.net",
        }
        assert len(one.messages) == 1, "recipients at one domain share a transaction"
        assert two.connections == []
        assert (road.delivered, road.in_doubt) == ([{"a", "b"}], [True])


@pytest.mark.parametrize(
    "trouble",
    [
        None,
        {"CONNECT": DROP},
        {"CONNECT": "421 4.3.2 Busy"},
        {"CONNECT": "554 No"},
        {"MAIL": "451 Later"},
        {"RCPT": DROP},
    ],
)
async def test_the_next_host_when_the_first_cannot(road: Road, port: int, trouble: dict[str, object] | None) -> None:
    async with contextlib.AsyncExitStack() as stack:
        if trouble is not None:
            await stack.enter_async_context(first(port, trouble))
        two = await stack.enter_async_context(second(port))
        assert await road.carry("a") == {"a": "delivered 2.0.0 second.example.net"}
        assert len(two.messages) == 1


async def test_only_deferred_recipients_are_sent_to_the_next_host(road: Road, port: int) -> None:
    def rcpt(line: str) -> str:
        return {"a": "250 Ok", "b": "450 4.2.0 Later", "c": "550 5.1.1 No"}[line[9]]

    async with first(port, {"RCPT": rcpt}), second(port) as two:
        assert await road.carry("a", "b", "c") == {
            "a": "delivered 2.0.0 first.example.net",
            "b": "delivered 2.0.0 second.example.net",
            "c": "failed 5.1.1 first.example.net",
        }
        assert two.messages[0].rcpt == ("RCPT TO:<b@example.net>",)
        assert road.delivered == [{"a"}, {"b"}]


@pytest.mark.parametrize("answer", [DROP, "451 4.3.0 Later", then_drop("421 4.3.2 Bye")])
async def test_no_other_host_gets_a_message_that_one_may_have(road: Road, port: int, answer: object) -> None:
    async with first(port, {"MESSAGE": answer}), second(port) as two:
        [(name, result)] = (await road.carry("a")).items()
        assert (name, result.split()[0]) == ("a", "deferred")
        assert two.connections == []


async def test_no_host_answers(road: Road) -> None:
    carried = await road.carried("a")
    assert summary(carried.outcomes) == {"a": "deferred 4.4.1 second.example.net"}
    assert carried.unreachable is not None


async def test_permanent_only_if_every_host_refuses(road: Road, port: int) -> None:  # RFC 7504 §4
    async with first(port, {"CONNECT": "554 No"}):
        carried = await road.carried("a")
        assert summary(carried.outcomes) == {"a": "deferred 4.4.1 second.example.net"}
        async with second(port, {"CONNECT": "521 Never"}):
            carried = await road.carried("a")
            assert summary(carried.outcomes) == {"a": "failed 5.0.0 second.example.net"}
            assert carried.unreachable is None


async def test_a_domain_that_does_not_exist(road: Road) -> None:
    carried = await road.carried("a", domain="nothere.example.net")
    assert summary(carried.outcomes) == {"a": "failed 5.1.2"}
    assert carried.unreachable is None


async def test_an_open_connection_is_reused(road: Road, port: int) -> None:
    async with first(port) as one:
        for name in ("a", "b", "c"):
            await road.carry(name)
        assert len(one.connections) == 1
        assert [line for line in one.commands() if line.startswith(("EHLO", "RSET"))] == ["EHLO relay.example.org"]


async def test_an_idle_connection_is_closed_with_quit(port: int) -> None:
    async with travelling(SmtpClientSettings(port=port, idle=Seconds(0.05))) as road, first(port) as one:
        await road.carry("a")
        await one.until(lambda: one.connections[0].closed)
        assert one.commands()[-1] == "QUIT"
        await road.carry("b")
        assert len(one.connections) == 2


async def test_a_connection_carries_a_bounded_number_of_messages(port: int) -> None:
    async with travelling(SmtpClientSettings(port=port, messages=2)) as road, first(port) as one:
        for name in ("a", "b", "c"):
            await road.carry(name)
        assert [message.connection for message in one.messages] == [0, 0, 1]


@pytest.mark.parametrize("end", [DROP, then_drop("421 4.4.2 Idle too long")])
async def test_a_connection_lost_while_idle_is_no_failure(road: Road, port: int, end: object) -> None:
    async with first(port) as one:
        await road.carry("a")
        one.on["MAIL"] = lambda line: end if len(one.connections) == 1 else "250 Ok"  # type: ignore[assignment,return-value]
        assert await road.carry("b") == {"b": "delivered 2.0.0 first.example.net"}
        assert len(one.connections) == 2


async def test_many_recipients_are_split_into_transactions(port: int) -> None:
    async with travelling(SmtpClientSettings(port=port, recipients=100)) as road, first(port) as one:
        outcomes = await road.carry(*(f"r{n}" for n in range(250)))
        assert {result.split()[0] for result in outcomes.values()} == {"delivered"}
        assert [len(message.rcpt) for message in one.messages] == [100, 100, 50]
        assert len(one.connections) == 1
        assert [len(names) for names in road.delivered] == [100, 100, 50], (
            "each transaction is recorded before the next begins"
        )


@pytest.mark.parametrize("refusal", ["452 4.5.3 Too many recipients", "452 Too many", "552 Too many"])
async def test_recipients_above_the_host_s_limit_go_in_another_transaction(road: Road, port: int, refusal: str) -> None:
    counts: list[int] = [0]

    def rcpt(line: str) -> str:
        counts[0] += 1
        return refusal if counts[0] % 4 == 3 or counts[0] % 4 == 0 else "250 Ok"

    async with first(port, {"RCPT": rcpt}) as one, second(port) as two:
        outcomes = await road.carry("a", "b", "c", "d")
        assert {result.split()[0] for result in outcomes.values()} == {"delivered"}
        assert [len(message.rcpt) for message in one.messages] == [2, 2]
        assert two.connections == []


async def test_a_host_that_accepts_no_recipient_is_not_retried_for_ever(road: Road, port: int) -> None:
    async with first(port, {"RCPT": "452 4.5.3 Too many"}) as one:
        outcomes = await road.carry("a", "b")
        assert {result.split()[0] for result in outcomes.values()} == {"deferred"}
        assert sum(line.startswith("MAIL") for line in one.all_commands) == 1


async def test_only_the_smart_host_gets_the_login(tmp_path: Path, port: int) -> None:
    certificates = authority(tmp_path, "first.example.net")
    client = SmtpClientSettings(port=port, user="us", password=Secret("secret"))
    routes = ["*=[first.example.net]", "direct.test=[second.example.net]"]
    offered = (*EXTENSIONS, "AUTH PLAIN")
    async with travelling(client, routes, certificates.ca) as road:
        async with (
            first(port, tls=certificates.good, extensions=offered) as one,
            second(port, extensions=offered) as two,
        ):
            await road.carry("a", domain="elsewhere.test")
            await road.carry("b", domain="direct.test")
            assert [(m.login, m.tls) for m in one.messages] == [("us", "TLSv1.3")]
            assert [m.login for m in two.messages] == [""]


async def test_a_host_without_a_valid_certificate_does_not_get_the_login(tmp_path: Path, port: int) -> None:
    certificates = authority(tmp_path, "first.example.net")
    client = SmtpClientSettings(port=port, user="us", password=Secret("secret"))
    async with travelling(client, ["*=[first.example.net]"]) as road:
        async with first(port, tls=certificates.self_signed, extensions=("AUTH PLAIN",)) as one:
            assert await road.carry("a") == {"a": "deferred 4.7.5 first.example.net"}
            assert not any(line.startswith("AUTH") for line in one.all_commands)


async def test_a_cancelled_transaction_leaves_no_open_connection(road: Road, port: int) -> None:
    async with first(port, {"RCPT": SILENT}) as one:
        carrying = asyncio.create_task(road.carried("a"))
        await one.until(lambda: any(line.startswith("MAIL") for line in one.all_commands))
        carrying.cancel()
        await asyncio.wait((carrying,))
        assert carrying.cancelled()
        await one.until(lambda: one.connections[0].closed)
        assert one.messages == []
