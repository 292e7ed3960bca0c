"""Clients behind a proxy that speaks the PROXY protocol, and beside it, on the same ports of SMTP, IMAP and POP3."""

from __future__ import annotations

import asyncio
import contextlib
import imaplib
import poplib
import smtplib
import socket
import ssl
from typing import Any

import pytest

from paquebot.smtp_ingress.state import Role
from tests.dialogues.dialogue import client_tls
from tests.support.counted import value
from tests.support.imap_world import PASSWORD as READER_PASSWORD
from tests.support.imap_world import ImapStack
from tests.support.pop3_world import Pop3Stack
from tests.support.proxy_client import Tlv, v1, v2, v2_local, with_crc32c
from tests.support.smtp_world import PASSWORD, SmtpStack

CLIENT = "203.0.113.7"
HEADERS = [
    v1(CLIENT, "198.51.100.1", 56324, 25),
    with_crc32c(CLIENT, "198.51.100.1", 56324, 25, Tlv(0xEA, b"\x01vpce-1")),
]
TRUSTED = {"PAQUEBOT_TRUSTED_PROXIES": "127.0.0.0/8", "PAQUEBOT_PROXY_WAIT": "5s"}
AT_ONCE = {**TRUSTED, "PAQUEBOT_PROXY_WAIT": "1ms"}


def _behind(port: int, header: bytes) -> socket.socket:
    """Connect as the proxy does."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=20)
    sock.sendall(header)
    return sock


def _behind_tls(port: int, header: bytes) -> ssl.SSLSocket:
    """Send the header in clear, then do the client's handshake."""
    return client_tls().wrap_socket(_behind(port, header), server_hostname="localhost")


class ProxiedSmtp(smtplib.SMTP):
    """smtplib behind a proxy."""

    def __init__(self, port: int, header: bytes, *, tls: bool = False) -> None:
        self._dial = _behind_tls if tls else _behind
        self._header = header
        super().__init__("127.0.0.1", port, timeout=20)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return self._dial(port, self._header)


class ProxiedImap(imaplib.IMAP4):
    """imaplib behind a proxy."""

    def __init__(self, port: int, header: bytes, *, tls: bool = False) -> None:
        self._dial = _behind_tls if tls else _behind
        self._header = header
        super().__init__("127.0.0.1", port, timeout=20)

    def _create_socket(self, timeout: float | None) -> socket.socket:
        return self._dial(self.port, self._header)


class ProxiedPop3(poplib.POP3):
    """poplib behind a proxy."""

    def __init__(self, port: int, header: bytes, *, tls: bool = False) -> None:
        self._dial = _behind_tls if tls else _behind
        self._header = header
        super().__init__("127.0.0.1", port, timeout=20)

    def _create_socket(self, timeout: float) -> socket.socket:
        return self._dial(self.port, self._header)


def _greeting(port: int, header: bytes, *, tls: bool) -> bytes:
    """Return the server's first bytes; none when it closes before or within the handshake."""
    try:
        with (_behind_tls if tls else _behind)(port, header) as sock:
            return sock.recv(200)
    except OSError:  # ssl.SSLError, a reset
        return b""


async def _conversation(port: int, data: bytes) -> bytes:
    """Send the data; return all that the server sends until it closes."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()


def _counted(result: str) -> float:
    return value("paquebot_proxy_connections_total", result=result) or 0.0


# --- SMTP ---


def _submit(role: Role, port: int, header: bytes) -> None:
    with ProxiedSmtp(port, header, tls=role is Role.SUBMISSIONS) as client:
        if role is Role.SUBMISSION:
            client.starttls(context=client_tls())
        if role is not Role.MX:
            client.login("alice@paquebot.test", PASSWORD)
        sender = "smith@bar.example" if role is Role.MX else "alice@paquebot.test"
        assert client.sendmail(sender, ["bob@paquebot.test"], f"From: {sender}\r\n\r\nhello\r\n") == {}


@pytest.mark.parametrize("header", HEADERS, ids=["v1", "v2"])
@pytest.mark.parametrize("role", list(Role))
async def test_received_has_the_address_of_the_client(smtp_stack: SmtpStack, role: Role, header: bytes) -> None:
    after, before = await smtp_stack.last_sequence(), _counted("header")
    async with smtp_stack.serving(**TRUSTED) as running:
        await asyncio.to_thread(_submit, role, running.ports(role)[0], header)
    (message,) = await smtp_stack.queued(after)
    assert message.envelope.client.address == CLIENT
    assert b"[203.0.113.7]" in message.content.partition(b" by ")[0]
    assert _counted("header") == before + 1


@pytest.mark.parametrize("role", list(Role))
async def test_client_of_a_trusted_network_without_header(smtp_stack: SmtpStack, role: Role) -> None:
    after, before = await smtp_stack.last_sequence(), _counted("direct")
    async with smtp_stack.serving(**AT_ONCE) as running:
        await asyncio.to_thread(_submit, role, running.ports(role)[0], b"")
    (message,) = await smtp_stack.queued(after)
    assert message.envelope.client.address == "127.0.0.1"
    assert _counted("direct") == before + 1


async def test_relay_clients_are_those_behind_the_proxy(smtp_stack: SmtpStack) -> None:
    def offer(port: int, header: bytes) -> int:
        with ProxiedSmtp(port, header) as client:
            client.helo("client.example")
            client.mail("smith@bar.example")
            return client.rcpt("x@elsewhere.example")[0]

    async with smtp_stack.serving(**TRUSTED, PAQUEBOT_SMTP_RELAY_CLIENTS="203.0.113.0/24") as running:
        (port,) = running.ports(Role.MX)
        assert await asyncio.to_thread(offer, port, HEADERS[0]) == 250
        assert await asyncio.to_thread(offer, port, v2("203.0.114.7", "198.51.100.1", 1, 25)) == 550
    async with smtp_stack.serving(**TRUSTED, PAQUEBOT_SMTP_RELAY_CLIENTS="127.0.0.0/8") as running:
        (port,) = running.ports(Role.MX)
        assert await asyncio.to_thread(offer, port, HEADERS[1]) == 550
        assert await asyncio.to_thread(offer, port, v2_local()) == 250


async def test_connections_are_counted_for_the_client(smtp_stack: SmtpStack) -> None:
    def greeted(port: int, header: bytes) -> tuple[bytes, socket.socket]:
        sock = _behind(port, header)
        return sock.recv(100), sock

    async with smtp_stack.serving(**TRUSTED, PAQUEBOT_SMTP_CONNECTIONS_PER_CLIENT="1") as running:
        (port,) = running.ports(Role.MX)
        answers = []
        for address in (CLIENT, "203.0.113.8", CLIENT):
            answer, sock = await asyncio.to_thread(greeted, port, v1(address, "198.51.100.1", 1, 25))
            answers.append((answer[:3], sock))
        assert [code for code, _ in answers] == [b"220", b"220", b"421"]
        for _, sock in answers:
            sock.close()


@pytest.mark.parametrize("header", HEADERS, ids=["v1", "v2"])
async def test_header_from_elsewhere_is_refused(smtp_stack: SmtpStack, header: bytes) -> None:
    after = await smtp_stack.last_sequence()
    mail = b"MAIL FROM:<a@bar.example>\r\nRCPT TO:<bob@paquebot.test>\r\nDATA\r\n.\r\nQUIT\r\n"
    async with smtp_stack.serving(PAQUEBOT_TRUSTED_PROXIES="203.0.113.0/24") as running:
        answer = await _conversation(running.ports(Role.MX)[0], header + b"EHLO client.example\r\n" + mail)
    assert answer.splitlines()[-1][:3] == b"554"
    assert b"250" not in answer
    assert await smtp_stack.queued(after) == []


@pytest.mark.parametrize("header", HEADERS, ids=["v1", "v2"])
async def test_header_after_the_greeting_is_refused(smtp_stack: SmtpStack, header: bytes) -> None:
    before = _counted("untrusted")
    async with smtp_stack.serving(**AT_ONCE) as running:
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.ports(Role.MX)[0])
            assert (await reader.readline()).startswith(b"220 ")
            writer.write(header + b"NOOP\r\n")
            answer = await reader.read()
            writer.close()
    assert answer.endswith(b"554 5.7.0 No PROXY header is accepted from here, closing\r\n")
    assert _counted("untrusted") == before + 1


@pytest.mark.parametrize("header", HEADERS, ids=["v1", "v2"])
async def test_header_before_the_greeting_is_refused_as_a_header(smtp_stack: SmtpStack, header: bytes) -> None:
    """An early header gets this reply too, which shows the proxy's operator what is wrong."""
    before = _counted("untrusted")
    async with smtp_stack.serving(PAQUEBOT_SMTP_GREET_PAUSE="10s") as running:
        answer = await _conversation(running.ports(Role.MX)[0], header)
    assert answer.startswith(b"220 ")
    assert answer.endswith(b"554 5.7.0 No PROXY header is accepted from here, closing\r\n")
    assert _counted("untrusted") == before + 1


async def test_second_header_is_the_clients_and_refused(smtp_stack: SmtpStack) -> None:
    async with smtp_stack.serving(**TRUSTED) as running:
        (port,) = running.ports(Role.SUBMISSION)
        answer = await _conversation(port, HEADERS[0] + v1("203.0.113.9", "198.51.100.1", 1, 25))
    assert [line[:3] for line in answer.splitlines()] == [b"220", b"554"]


@pytest.mark.parametrize("role", list(Role))
async def test_bad_header_closes_without_a_reply(smtp_stack: SmtpStack, role: Role) -> None:
    before = _counted("malformed")
    async with smtp_stack.serving(**TRUSTED) as running:
        assert await _conversation(running.ports(role)[0], b"PROXY TCP4 1.2.3 4.5.6.7 1 2\r\n") == b""
    assert _counted("malformed") == before + 1


async def test_drain_does_not_wait_for_headers(smtp_stack: SmtpStack) -> None:
    async with smtp_stack.serving(**TRUSTED) as running:
        async with asyncio.timeout(4):  # below PAQUEBOT_PROXY_WAIT
            connections = [await asyncio.open_connection("127.0.0.1", running.ports(role)[0]) for role in Role]
            for _, writer in connections:
                writer.write(b"PROXY TCP4 ")
            while running.proxies.waiting < len(connections):
                await asyncio.sleep(0)
            await running.drain(3)
            for reader, writer in connections:
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
                writer.close()


# --- IMAP and POP3 ---


@pytest.mark.parametrize("header", HEADERS, ids=["v1", "v2"])
@pytest.mark.parametrize("listener", ["imap", "imaps"])
async def test_imap_counts_the_client(
    imap_stack: ImapStack, caplog: pytest.LogCaptureFixture, listener: str, header: bytes
) -> None:
    reader = await imap_stack.reader()
    tls = listener == "imaps"

    def log_in(client: Any) -> None:
        if not tls:
            client.starttls(client_tls())
        client.login(reader.address, READER_PASSWORD)

    async with imap_stack.serving(**TRUSTED, PAQUEBOT_IMAP_SESSIONS_PER_CLIENT="1") as server:
        port = server.port(listener)
        client: Any = await asyncio.to_thread(ProxiedImap, port, header, tls=tls)
        assert [session._client for session in server._sessions] == [CLIENT]
        refusal = await asyncio.to_thread(_greeting, port, header, tls=tls)  # one connection too many of this client
        assert refusal.startswith(b"* BYE ") if not tls else refusal == b""
        await asyncio.to_thread(log_in, client)  # after login it counts for its account
        second = await asyncio.to_thread(ProxiedImap, port, header, tls=tls)
        await asyncio.to_thread(second.logout)
        other = await asyncio.to_thread(ProxiedImap, port, v1("2001:db8::7", "2001:db8::1", 1, 143), tls=tls)
        await asyncio.to_thread(other.logout)
        await asyncio.to_thread(client.logout)


@pytest.mark.parametrize("header", HEADERS, ids=["v1", "v2"])
@pytest.mark.parametrize("listener", ["pop3", "pop3s"])
async def test_pop3_counts_the_client(pop3_stack: Pop3Stack, listener: str, header: bytes) -> None:
    reader = await pop3_stack.reader()
    tls = listener == "pop3s"

    def log_in(client: Any) -> None:
        if not tls:
            client.stls(client_tls())
        client.user(reader.address)
        client.pass_(READER_PASSWORD)

    async with pop3_stack.serving(**TRUSTED, PAQUEBOT_POP3_SESSIONS_PER_CLIENT="1") as server:
        port = server.port(listener)
        client: Any = await asyncio.to_thread(ProxiedPop3, port, header, tls=tls)
        assert [session.client for session in server._sessions] == [CLIENT]
        refusal = await asyncio.to_thread(_greeting, port, header, tls=tls)  # one connection too many of this client
        assert refusal.startswith(b"-ERR [SYS/TEMP]") if not tls else refusal == b""
        await asyncio.to_thread(log_in, client)  # after login it counts for its account
        second = await asyncio.to_thread(ProxiedPop3, port, header, tls=tls)
        await asyncio.to_thread(second.quit)
        other = await asyncio.to_thread(ProxiedPop3, port, v1("2001:db8::7", "2001:db8::1", 1, 110), tls=tls)
        await asyncio.to_thread(other.quit)
        await asyncio.to_thread(client.quit)


@pytest.mark.parametrize("header", HEADERS, ids=["v1", "v2"])
async def test_imap_and_pop3_refuse_a_header_from_elsewhere(
    imap_stack: ImapStack, pop3_stack: Pop3Stack, header: bytes
) -> None:
    before = _counted("untrusted")
    async with imap_stack.serving() as imap, pop3_stack.serving() as pop3:
        bye = await _conversation(imap.port("imap"), header + b"a1 NOOP\r\n")
        err = await _conversation(pop3.port("pop3"), header + b"NOOP\r\n")
    assert bye.endswith(b"* BYE No PROXY header is accepted from here\r\n")
    assert err.endswith(b"-ERR [SYS/PERM] No PROXY header is accepted from here\r\n")
    assert _counted("untrusted") == before + 2


async def test_imap_and_pop3_greet_a_client_of_a_trusted_network(imap_stack: ImapStack, pop3_stack: Pop3Stack) -> None:
    async with imap_stack.serving(**AT_ONCE) as imap, pop3_stack.serving(**AT_ONCE) as pop3:
        for listener, tls in (("imap", False), ("imaps", True)):
            client = await asyncio.to_thread(ProxiedImap, imap.port(listener), b"", tls=tls)
            assert [session._client for session in imap._sessions] == ["127.0.0.1"]
            await asyncio.to_thread(client.logout)
        for listener, tls in (("pop3", False), ("pop3s", True)):
            pop = await asyncio.to_thread(ProxiedPop3, pop3.port(listener), b"", tls=tls)
            assert [session.client for session in pop3._sessions] == ["127.0.0.1"]
            await asyncio.to_thread(pop.quit)


async def test_drain_of_imap_does_not_wait_for_headers(imap_stack: ImapStack) -> None:
    draining = asyncio.Event()
    async with asyncio.timeout(10):
        async with imap_stack.serving(draining, **TRUSTED) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port("imap"))
            writer.write(b"PROXY TCP4 ")
            while not server.proxies.waiting:
                await asyncio.sleep(0)
            other = await asyncio.to_thread(ProxiedImap, server.port("imap"), HEADERS[0])
            draining.set()
            async with asyncio.timeout(4):  # below PAQUEBOT_PROXY_WAIT
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
            writer.close()
            await asyncio.to_thread(other.shutdown)
