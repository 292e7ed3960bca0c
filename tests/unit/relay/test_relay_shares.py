"""The limits of one address, one destination and one attempt: attempts, bytes, time."""

from __future__ import annotations

import asyncio
import contextlib
import email
from collections.abc import AsyncIterator, Iterable, Iterator
from ipaddress import ip_network
from typing import Any

import pytest

from paquebot.relay.byte_shares import ByteShares
from paquebot.relay.courier import Courier, CourierResult
from paquebot.relay.message import KEPT_BYTES, OutgoingEnvelope, OutgoingMessage, RelayRecipient
from paquebot.relay.outcome import BAD_CONNECTION, NO_ANSWER, Host, HostUnusable, Outcomes, RelayResult, deferred
from paquebot.relay.progress import AttemptProgress
from paquebot.relay.queue.hosts import HostBusy, HostShares
from paquebot.relay.routing.resolver import Resolver
from paquebot.relay.routing.routes import Routes
from paquebot.relay.settings import (
    RelayLoadSettings,
    RetrySettings,
    RoutingSettings,
    SmtpClientSettings,
    SmtpTimeouts,
    TlsPolicy,
)
from paquebot.relay.smtp_client.form import FormRules
from paquebot.relay.smtp_client.pool import SessionPool
from paquebot.relay.smtp_client.session import MAX_REPLY, MAX_REPLY_LINES, MAX_REPLY_TEXT, ClientSession, SessionBroken
from paquebot.relay.smtp_client.stream import MAX_LINE, Stream
from paquebot.relay.smtp_client.transaction import ClientTransaction
from paquebot.runtime.settings import ByteSize, Listen, Seconds
from paquebot.runtime.shares.budget import OverBudget
from paquebot.runtime.shares.gate import ByteGate
from tests.support.dns_server import DnsServer
from tests.support.loopback import free_port
from tests.support.relay_fixtures import TIMEOUTS, handshake, outgoing, session_with
from tests.support.remote_host import SILENT, RemoteHost

pytestmark = pytest.mark.slow

HOST = Host("mx.example.net", "192.0.2.1", 25)
WHY = deferred(NO_ANSWER, "connection timed out", HOST)


# --- an address ---


class Addresses:
    def __init__(self, **load: Any) -> None:
        self.now = 0.0
        self.all = HostShares(RelayLoadSettings(**load), RetrySettings(back_off=Seconds(30.0)), lambda: self.now)

    def enter(self, stack: contextlib.ExitStack, name: str = "a", address: str = "192.0.2.1") -> None:
        stack.enter_context(self.all.attempt(Host(name, address, 25)))


def test_an_address_has_a_maximum_of_attempts_for_all_its_domains() -> None:
    addresses = Addresses(per_host=3, per_new_host=2)
    with contextlib.ExitStack() as stack:
        addresses.enter(stack, "a.test")
        addresses.enter(stack, "b.test")
        with pytest.raises(HostBusy):
            addresses.enter(stack, "c.test")
        addresses.enter(stack, "d.test", "192.0.2.2")
        addresses.all.answered(HOST)
        addresses.enter(stack, "c.test")
        with pytest.raises(HostBusy):
            addresses.enter(stack, "e.test")
    with contextlib.ExitStack() as stack:
        addresses.enter(stack)


def test_an_address_whose_attempts_time_out_rests() -> None:
    addresses = Addresses(per_new_host=2)
    with contextlib.ExitStack() as stack:
        addresses.enter(stack)
        addresses.enter(stack)
        for _ in range(2):  # together: one failure
            addresses.all.hung(HOST, WHY)
        with pytest.raises(HostUnusable) as caught:
            addresses.enter(stack)
        assert caught.value.outcome is WHY
    for rest in (30.0, 60.0):
        with contextlib.ExitStack() as stack:
            with pytest.raises(HostUnusable):
                addresses.enter(stack)
            addresses.now += rest
            addresses.enter(stack)
            with pytest.raises(HostBusy):
                addresses.enter(stack)  # one attempt
            addresses.all.hung(HOST, WHY)
    addresses.now += 1000.0
    with contextlib.ExitStack() as stack:
        addresses.enter(stack)
        addresses.all.answered(HOST)
        addresses.enter(stack)


def test_the_number_of_remembered_addresses_is_bounded() -> None:
    addresses = Addresses()
    for number in range(21_000):
        with addresses.all.attempt(Host("a", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 25)):
            pass
    assert len(addresses.all._known) == 20_000


# --- bytes ---


def test_a_destination_reserves_up_to_its_share() -> None:
    budget = ByteGate(100)
    shares = ByteShares(budget, 100, 40)
    shares.reserve("a", 30)
    with pytest.raises(OverBudget):
        shares.reserve("a", 20)
    shares.reserve("b", 70)  # the only destination may exceed its share
    assert budget.used == 100
    with pytest.raises(OverBudget):
        shares.reserve("c", 1)
    shares.release("a", 30)
    shares.release("b", 70)
    shares.reserve("a", 500)  # the only one may exceed the whole budget
    assert budget.used == 100
    shares.release("a", 500)
    assert budget.used == 0
    shares.reserve("a", 100)
    assert budget.used == 100


def test_edits_do_not_prevent_a_message_from_being_sent() -> None:
    shares = ByteShares(ByteGate(100), 100, 40)
    shares.reserve("a", 500)
    assert shares.reserve_edits(10, 500) == 0, "alone, with the whole budget"
    shares.release_edits(0)
    shares.release("a", 500)
    shares.reserve("a", 40)
    assert shares.reserve_edits(10, 40) == 10, "over the share of its destination"
    shares.reserve("b", 50)
    with pytest.raises(OverBudget):
        shares.reserve_edits(10, 40)
    shares.release_edits(10)
    assert shares.reserve_edits(10, 40) == 10


class Counted:
    """A message that counts its reads and the bytes reserved for it."""

    def __init__(self, content: bytes) -> None:
        self.raw = content
        self.reads = 0
        self.budget = ByteGate(10**9)
        shares = ByteShares(self.budget, 10**9, 10**9)
        envelope = OutgoingEnvelope("s@example.org")
        self.message = OutgoingMessage(self._read, len(content), shares, "example.net", envelope)

    async def _read(self) -> bytes:
        self.reads += 1
        return self.raw

    async def send(self, session: ClientSession, timeouts: SmtpTimeouts = TIMEOUTS) -> Outcomes:
        transaction = ClientTransaction(session, self.message, timeouts, FormRules(), lambda: None)
        return await transaction.run([RelayRecipient("a@example.net")])


async def test_a_small_message_is_read_once_and_charged_until_the_end() -> None:
    small = Counted(b"Subject: x\r\n\r\n.\r\n")
    async with RemoteHost() as remote:
        session = await session_with(remote)
        await small.send(session)
        await small.send(session)
    assert [message.content for message in remote.messages] == [small.raw] * 2
    assert (small.reads, small.budget.used) == (1, len(small.raw))
    small.message.close()
    assert small.budget.used == 0


@pytest.mark.parametrize("phase", ["MAIL", "RCPT", "DATA"])
async def test_a_large_message_is_not_in_memory_while_a_host_delays(phase: str) -> None:
    large = Counted(b"Subject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * 1000)
    assert len(large.raw) > KEPT_BYTES
    async with RemoteHost() as remote:
        remote.hold[phase] = release = asyncio.Event()
        session = await session_with(remote)
        sending = asyncio.create_task(large.send(session))
        await remote.until(lambda: any(line.startswith(phase) for line in remote.all_commands))
        assert large.budget.used == 0
        release.set()
        await sending
    assert [message.content for message in remote.messages] == [large.raw]
    assert (large.reads, large.budget.used) == (2, 0)


async def test_a_large_message_is_rewritten_without_a_second_copy() -> None:
    large = Counted(b"Subject: x\r\n\r\n" + ("ä" * 35 + "\r\n").encode() * 5000)
    pieces: list[int] = []

    def sent(content: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        for piece in content:
            pieces.append(len(piece))
            assert large.budget.used < len(large.raw) + 2000, "the message itself, and a list of the edits"
            yield piece

    async with RemoteHost(extensions=()) as remote:
        session = await session_with(remote)
        send_content = session.send_content
        session.send_content = lambda content, *limits: send_content(sent(content), *limits)  # type: ignore[method-assign]
        await large.send(session)
    assert (
        email.message_from_bytes(remote.messages[0].content).get_payload(decode=True)
        == large.raw.partition(b"\r\n\r\n")[2]
    )
    assert (large.reads, max(pieces) < 4 * KEPT_BYTES) == (2, True)
    assert 0 < large.budget.used < 2000
    large.message.close()
    assert large.budget.used == 0


# --- time ---


async def test_a_reply_has_one_deadline_for_all_its_lines() -> None:
    stream = Stream()
    session = ClientSession(HOST, stream)
    loop = asyncio.get_running_loop()

    def drip() -> None:
        stream.data_received(b"250-and so on\r\n")
        timers.append(loop.call_later(0.05, drip))

    timers: list[asyncio.TimerHandle] = []
    drip()
    with pytest.raises(SessionBroken) as broken:
        await session.reply(0.4, "EHLO")
    timers[-1].cancel()
    assert broken.value.status == BAD_CONNECTION, "not the limit of bytes, many deadlines later"


async def test_a_reply_has_a_maximum_of_bytes() -> None:
    stream = Stream()
    stream.data_received(b"250-" + b"x" * (MAX_LINE - 10) + b"\r\n")
    line = b"250-" + b"x" * (MAX_LINE - 10) + b"\r\n"
    for _ in range(MAX_REPLY // MAX_LINE + 2):
        stream.data_received(line)
    with pytest.raises(SessionBroken) as broken:
        await ClientSession(HOST, stream).reply(5.0, "EHLO")
    assert "is not SMTP" in broken.value.text


async def test_the_kept_text_of_a_reply_is_bounded() -> None:
    stream = Stream()
    stream.data_received((b"250-" + b"x" * 4000 + b"\r\n") * 100 + b"250-y\r\n" * 1000 + b"250 last\r\n")
    reply = await ClientSession(HOST, stream).reply(5.0, "EHLO")
    assert reply.text.endswith("\nlast")
    assert len(reply.text) < MAX_REPLY_TEXT + 2 * MAX_REPLY_LINES
    assert reply.text.count("\n") < MAX_REPLY_LINES
    assert stream.taken == 100 * 4006 + 7000 + 10


async def test_a_message_has_a_minimum_rate() -> None:
    """The relay leaves a host that takes each block in time but the whole message too slowly."""

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            writer.write(b"220 a\r\n")
            for answer in (b"250 a\r\n", b"250 a\r\n", b"250 a\r\n", b"354 a\r\n"):
                await reader.readuntil(b"\r\n")
                writer.write(answer)
            while await reader.read(4096):
                await asyncio.sleep(0.01)
        writer.transport.abort()
        left.set()

    left = asyncio.Event()
    server = await asyncio.start_server(trickle, "127.0.0.1", 0, limit=8192)
    async with server:
        host = Host("mx.example.net", "127.0.0.1", server.sockets[0].getsockname()[1])
        timeouts = SmtpTimeouts(*(Seconds(5.0),) * 5, block=Seconds(0.5), rate=ByteSize(2**40))
        large = Counted(b"Subject: x\r\n\r\n" + (b"x" * 78 + b"\r\n") * 500_000)
        outcomes = await large.send(await handshake().open(host, TlsPolicy.OFF), timeouts)
        await left.wait()
    assert outcomes["a@example.net"].text == "timed out sending the message"
    assert large.budget.used == 0


class Road:
    """A courier whose attempts are short."""

    def __init__(self, dns: DnsServer, port: int, **load: Any) -> None:
        routing = RoutingSettings(
            dns=(Listen("127.0.0.1", dns.port),), ipv6=False, allow_networks=(ip_network("127.0.0.0/8"),)
        )
        client = SmtpClientSettings(port=port, attempt=Seconds(1.0), slow=Seconds(0.1), idle=Seconds(0.0))
        resolver = Resolver(routing, "relay.example.org", port, lambda exchangers: None)
        self.hosts = HostShares(RelayLoadSettings(**load), RetrySettings(), lambda: 0.0)
        self.courier = Courier(resolver, SessionPool(handshake(), client), self.hosts, client, TIMEOUTS)
        self.progress = AttemptProgress()

    async def carry(self) -> CourierResult:
        self.progress = AttemptProgress()

        async def on_delivered(outcomes: Outcomes) -> None:
            await asyncio.sleep(0)

        route = Routes([]).route("example.net")
        recipients = [RelayRecipient("a@example.net"), RelayRecipient("b@example.net")]
        return await self.courier.carry(
            outgoing(b"x\r\n", "s@example.org"), route, recipients, on_delivered, self.progress
        )


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer({"example.net": "@ MX 10 one\n@ MX 20 two\none A 127.0.0.2\ntwo A 127.0.0.3"}) as server:
        yield server


@pytest.mark.parametrize("phase", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA"])
async def test_an_attempt_ends_at_any_phase_where_a_host_stops_answering(dns: DnsServer, phase: str) -> None:
    port = free_port()
    async with RemoteHost({phase: SILENT}, address="127.0.0.2", port=port, extensions=()) as one:
        road = Road(dns, port)
        carried = await road.carry()
        assert {result.result for result in carried.outcomes.values()} == {RelayResult.DEFERRED}
        assert carried.outcomes.keys() == {"a@example.net", "b@example.net"}
        await one.until(lambda: one.connections[0].closed)
        if phase not in ("RCPT", "DATA"):
            assert carried.unreachable is not None
        assert any(found.failures for found in road.hosts._known.values()), "the address rests"


async def test_an_attempt_is_not_cancelled_while_a_host_may_have_the_message(dns: DnsServer) -> None:
    port = free_port()
    async with RemoteHost(address="127.0.0.2", port=port) as one:
        one.hold["MESSAGE"] = release = asyncio.Event()
        road = Road(dns, port)
        carrying = asyncio.create_task(road.carry())
        await one.until(lambda: "DATA" in one.all_commands)
        async with asyncio.timeout(5):
            while not road.progress.in_doubt:
                await asyncio.sleep(0)
        assert not road.progress.cut()
        done, _ = await asyncio.wait((carrying,), timeout=0.6)  # twice the timeout of an attempt
        assert not done
        release.set()
        assert {result.result for result in (await carrying).outcomes.values()} == {RelayResult.DELIVERED}


async def test_a_slow_attempt_can_be_cancelled(dns: DnsServer) -> None:
    port = free_port()
    async with RemoteHost({"MAIL": SILENT}, address="127.0.0.2", port=port) as one:
        road = Road(dns, port)
        carrying = asyncio.create_task(road.carry())
        await one.until(lambda: any(line.startswith("MAIL") for line in one.all_commands))
        assert road.progress.cut()
        assert {result.result for result in (await carrying).outcomes.values()} == {RelayResult.DEFERRED}


async def test_busy_hosts_are_tried_later(dns: DnsServer) -> None:
    port = free_port()
    async with RemoteHost(address="127.0.0.2", port=port) as one, RemoteHost(address="127.0.0.3", port=port) as two:
        road = Road(dns, port, per_new_host=1)
        with road.hosts.attempt(Host("one", "127.0.0.2", port)):
            carried = await road.carry()
            assert {result.host for result in carried.outcomes.values()} == {"two.example.net"}
            with road.hosts.attempt(Host("two", "127.0.0.3", port)), contextlib.ExitStack() as stack:
                for _ in range(19):  # the host has answered, so it gets more attempts
                    stack.enter_context(road.hosts.attempt(Host("two", "127.0.0.3", port)))
                assert (await road.carry()).busy
        assert (len(one.messages), len(two.messages)) == (0, 1)
