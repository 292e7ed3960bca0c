"""Fills mailboxes over SMTP as mail arrives in life: several sessions at once, one message after another in each, the
recipients interleaved, so that an account's messages lie among those of others.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence

from tests.bench import imap_mail
from tests.bench.imap_client import ImapClient, Login, ServerFault, log_in
from tests.bench.imap_idle import Deliver

_REPLY_SECONDS = 120.0
_POLL_SECONDS = 0.05
_ARRIVAL_SECONDS = 300.0


class SmtpSender:
    """One SMTP session; `send` as often as you like, `close` in the end (RFC 5321, RFC 2920, RFC 6152)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def hello(self) -> None:
        """Greeting and EHLO. Raises ServerFault."""
        await self._reply(b"220")
        self._writer.write(b"EHLO client.example.org\r\n")
        await self._reply(b"250")

    async def send(self, recipient: str, message: bytes) -> float:
        """One message, which has no line that begins with a dot; the time.perf_counter() at which all of it was sent.
        Raises ServerFault."""
        envelope = f"MAIL FROM:<sender@example.org> BODY=8BITMIME\r\nRCPT TO:<{recipient}>\r\nDATA\r\n"
        self._writer.write(envelope.encode("ascii"))
        for code in (b"250", b"250", b"354"):
            await self._reply(code)
        self._writer.write(message + b".\r\n")
        sent = time.perf_counter()
        await self._reply(b"250")
        return sent

    async def _reply(self, code: bytes) -> None:
        line = b"---"
        while line[3:4] != b" ":
            try:
                async with asyncio.timeout(_REPLY_SECONDS):
                    line = await self._reader.readline()
            except (OSError, TimeoutError) as error:
                raise ServerFault(f"SMTP: no reply where {code!r} was due: {error!r}") from error
            if not line.startswith(code):
                raise ServerFault(f"SMTP: {line[:200]!r} where {code!r} was due")

    async def close(self) -> None:
        """End the session; idempotent."""
        with contextlib.suppress(OSError):
            self._writer.write(b"QUIT\r\n")
            self._writer.close()
            await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def smtp_session(host: str, port: int) -> AsyncIterator[SmtpSender]:
    """Raises ServerFault."""
    try:
        sender = SmtpSender(*await asyncio.open_connection(host, port))
    except OSError as error:
        raise ServerFault(f"SMTP: no connection: {error}") from error
    try:
        await sender.hello()
        yield sender
    finally:
        await sender.close()


@contextlib.asynccontextmanager
async def delivering(host: str, port: int) -> AsyncIterator[Deliver]:
    """Delivers by SMTP, over one connection. Raises ServerFault."""
    async with smtp_session(host, port) as sender:

        async def deliver(login: Login, message: bytes) -> float:
            return await sender.send(login.user, message)

        yield deliver


async def fill(host: str, port: int, accounts: Sequence[Login], each: int, *, sessions: int, label: str) -> float:
    """Send each account `each` messages, named by `message_name`, message by message to the next account. Returns when
    all are in their mailboxes; how long that took in seconds. Raises ServerFault."""
    begin = time.perf_counter()
    before = [await messages(login) for login in accounts]
    turns = ((login.user, message_name(label, number)) for number in range(each) for login in accounts)
    async with asyncio.TaskGroup() as group:
        for _ in range(sessions):
            group.create_task(_session(host, port, turns))
    async with asyncio.timeout(_ARRIVAL_SECONDS):
        for login, count in zip(accounts, before, strict=True):
            await _arrived(login, count + each)
    return time.perf_counter() - begin


async def _arrived(login: Login, count: int) -> None:
    client = await log_in(login)
    try:
        while await _status(client) < count:
            await asyncio.sleep(_POLL_SECONDS)
    finally:
        client.close()


def message_name(label: str, number: int) -> str:
    """Of the message with that number, from 0, in each account that was filled under that label."""
    return f"{label}-{number}"


async def _session(host: str, port: int, turns: Iterator[tuple[str, str]]) -> None:
    async with smtp_session(host, port) as sender:
        for recipient, name in turns:
            await sender.send(recipient, imap_mail.message(name))


async def messages(login: Login) -> int:
    """In the account's INBOX. Raises ServerFault."""
    client = await log_in(login)
    try:
        return await _status(client)
    finally:
        client.close()


async def _status(client: ImapClient) -> int:
    answer = await client.ask(b"STATUS INBOX (MESSAGES)")
    return int(answer.untagged[-1].text.rpartition(b"MESSAGES ")[2].rstrip(b")"))
