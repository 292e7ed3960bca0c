"""A hostile SMTP client against the limits and against the rule that strangers cannot relay."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import smtplib
import socket
import struct

import pytest

from paquebot.runtime.shares.in_flight import IN_FLIGHT
from paquebot.smtp_ingress.connection import SmtpConnection
from paquebot.smtp_ingress.state import Role
from tests.dialogues.dialogue import client_tls
from tests.support.smtp_world import PASSWORD, SmtpStack


def _offer(port: int, forward_paths: list[str], content: bytes = b"") -> list[int]:
    """Return the codes of RCPT for each forward-path, and of DATA when there is content."""
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.ehlo("client.example")
        codes = []
        for path in forward_paths:
            client.docmd("RSET")
            assert client.docmd("MAIL FROM:<smith@bar.example>")[0] == 250
            codes.append(client.docmd(f"RCPT TO:<{path}>")[0])
        return [*codes, client.data(content)[0]] if content else codes


@pytest.mark.parametrize(
    "fields",
    [
        b"X-A: b\r\n" * 25_001,
        b" folded\r\n" * 25_001,
        (b"X-B:" + 500 * b" b" + b"\r\n") * 2100,
        b"X-C:" + 2**21 * b"c" + b"\r\n",
    ],
    ids=["fields", "folded", "bytes", "one line"],
)
async def test_a_header_bomb_is_refused(smtp_stack: SmtpStack, fields: bytes) -> None:
    header = b"Subject: x\r\n" + fields
    after = await smtp_stack.last_sequence()
    async with smtp_stack.serving() as running:
        (port,) = running.ports(Role.MX)
        codes = await asyncio.to_thread(_offer, port, ["bob@paquebot.test"], header + b"\r\nHello\r\n")
    assert codes == [250, 552]
    assert await smtp_stack.last_sequence() == after


async def test_a_long_header_is_accepted(smtp_stack: SmtpStack) -> None:
    """With very many recipients, and with one line of the maximum length."""
    people = b",\r\n ".join(b"person-%d@department.example.org" % number for number in range(20_000))
    header = b"To: " + people + b"\r\nReferences:" + b" <a@example.org>" * 60_000 + b"\r\nSubject: x\r\n"
    after = await smtp_stack.last_sequence()
    async with smtp_stack.serving() as running:
        (port,) = running.ports(Role.MX)
        codes = await asyncio.to_thread(_offer, port, ["bob@paquebot.test"], header + b"\r\nHello\r\n")
    assert codes == [250, 250]
    (message,) = await smtp_stack.queued(after)
    assert message.content.endswith(header + b"\r\nHello\r\n")


async def test_no_spelling_of_a_foreign_address_is_relayed(smtp_stack: SmtpStack) -> None:
    paths = [
        "x@elsewhere.example",
        "X@ELSEWHERE.EXAMPLE",
        "x@elsewhere.example.",
        "x@[192.0.2.1]",
        "x@[IPv6:2001:db8::1]",
        "@paquebot.test:x@elsewhere.example",
        "@paquebot.test,@other.example:x@elsewhere.example",
        "x%elsewhere.example@paquebot.test",
        '"x@elsewhere.example"@paquebot.test',
        "elsewhere.example!x@paquebot.test",
        "x@elsewhere.example@paquebot.test",
        "x@paquebot.test@elsewhere.example",
        "bob@paquebot.test.elsewhere.example",
        "bob@[127.0.0.1]",
        "x@localhost",
    ]
    async with smtp_stack.serving() as running:
        (port,) = running.ports(Role.MX)
        codes = await asyncio.to_thread(_offer, port, paths)
    wrong = {path: code for path, code in zip(paths, codes, strict=True) if not 500 <= code < 560}
    assert wrong == {}


_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
_BROKEN = (b"", b"EHLO client.example\r\n", b"\x16", _HELLO, _HELLO + bytes(508), b"\x15\x03\x01\x00\x02\x02\x28")


def _break_handshakes(port: int, count: int) -> None:
    """Begin `count` handshakes and break each one: with a reset, a close, or random bytes."""
    for number in range(count):
        with socket.create_connection(("127.0.0.1", port), 20, (f"127.0.{number % 7}.2", 0)) as client:
            if number % 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                client.sendall(_BROKEN[number % len(_BROKEN)])


def _log_in(port: int) -> int:
    with smtplib.SMTP_SSL("127.0.0.1", port, timeout=20, context=client_tls()) as client:
        return client.login("alice@paquebot.test", PASSWORD)[0]


async def test_600_broken_handshakes_take_no_slot_for_long(smtp_stack: SmtpStack) -> None:
    async with smtp_stack.serving(PAQUEBOT_SMTP_CONNECTIONS="20") as running:
        (port,) = running.ports(Role.SUBMISSIONS)
        await asyncio.to_thread(_break_handshakes, port, 600)
        assert await asyncio.to_thread(_log_in, port) == 235
        async with asyncio.timeout(30):
            while running.slots.used:
                await asyncio.sleep(0)


async def test_connections_that_are_reset_at_once_keep_no_slot(
    smtp_stack: SmtpStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may no longer know the peer of such a connection (uvloop: no peer name)."""
    limits = {"PAQUEBOT_SMTP_CONNECTIONS": "4", "PAQUEBOT_SMTP_RELAY_CLIENTS": "192.0.2.0/24"}
    async with smtp_stack.serving(**limits) as running:
        (port,) = running.ports(Role.MX)
        with monkeypatch.context() as patch:
            patch.setattr(SmtpConnection, "peer", property(lambda _: ("", 0)))
            for _ in range(6):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                async with asyncio.timeout(20):
                    assert await reader.read() == b""
                writer.close()
        assert not running.sessions
        assert await asyncio.to_thread(_offer, port, ["bob@paquebot.test"]) == [250]


async def test_a_client_that_leaves_while_it_logs_in_keeps_no_bytes(smtp_stack: SmtpStack) -> None:
    """The commands behind AUTH wait in the session's memory when the login succeeds, and are never read."""
    login = base64.b64encode(f"\0alice@paquebot.test\0{PASSWORD}".encode())
    async with smtp_stack.serving() as running:
        (port,) = running.ports(Role.SUBMISSIONS)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_tls())
        await reader.readline()
        writer.write(b"EHLO client.example\r\n")
        while not (await reader.readline()).startswith(b"250 "):
            pass
        writer.write(b"AUTH PLAIN " + login + b"\r\n")
        await writer.drain()
        writer.write(b"NOOP\r\n" * 20_000)
        writer.transport.abort()
        async with asyncio.timeout(20):
            while running.sessions:
                await asyncio.sleep(0)
        assert IN_FLIGHT._value.get() == 0


async def test_a_line_above_what_is_read_ahead_is_passed_over(smtp_stack: SmtpStack) -> None:
    """Reading stops while so much waits, and begins again when the line is discarded."""
    async with smtp_stack.serving() as running:
        (port,) = running.ports(Role.MX)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(20):
            await reader.readline()
            writer.write(b"z" * 1_000_000)
            await writer.drain()
            writer.write(b"\r\nNOOP\r\n")
            assert [(await reader.readline())[:3] for _ in range(2)] == [b"500", b"250"]
        writer.close()
