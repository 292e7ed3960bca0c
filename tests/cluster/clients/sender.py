"""A mail sender outside the cluster that behaves as RFC 5321 §4.5.4 asks: what fails temporarily is tried again.

Run as a program: it sends until SIGTERM, then ends what it began, and exits. Each line of its log is one attempt:
{"mail", "attempt", "recipient", "outcome", "reply", "seconds"}. The outcome says what may be in the mailbox:

  accepted   250 to the message: exactly one
  temporary  4xx, or the connection was lost before the message's end was sent: none, and it is tried again
  permanent  5xx: none; a conforming sender gives up
  unknown    the connection was lost between the message's end and its reply: none or one (RFC 1047), and tried again

Every attempt has an id of its own in the message (X-Attempt), so the mailbox shows which attempts arrived.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import signal
import ssl
import time
import uuid
from dataclasses import dataclass, field
from typing import TextIO

REPLY_SECONDS = 60.0
RETRY_SECONDS = 0.5
GIVE_UP_SECONDS = 180.0


class Refused(Exception):
    """A reply other than the wanted one."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class Ended(Exception):
    """The connection broke, or no reply came."""


@dataclass(slots=True)
class Target:
    host: str
    port: int
    sender: str
    login: tuple[str, str] | None
    context: ssl.SSLContext | None
    proxy_header: bytes = b""


@dataclass(slots=True)
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def reply(self) -> tuple[int, str]:
        """RFC 5321 §4.2: the last line has a space after the code."""
        lines = []
        while True:
            try:
                async with asyncio.timeout(REPLY_SECONDS):
                    line = await self.reader.readline()
            except (OSError, TimeoutError) as error:
                raise Ended(f"{type(error).__name__}: {error}") from error
            if not line.endswith(b"\n"):
                raise Ended("closed")
            lines.append(line.decode().strip())
            if line[3:4] != b"-":
                return int(line[:3]), " / ".join(lines)

    async def ask(self, line: bytes, wanted: int) -> str:
        try:
            self.writer.write(line)
            await self.writer.drain()
        except OSError as error:
            raise Ended(f"{type(error).__name__}: {error}") from error
        code, text = await self.reply()
        if code // 100 != wanted:
            raise Refused(code, text)
        return text


async def connect(target: Target) -> Connection:
    try:
        async with asyncio.timeout(REPLY_SECONDS):
            reader, writer = await asyncio.open_connection(target.host, target.port)
    except (OSError, TimeoutError) as error:
        raise Ended(f"connect: {error}") from error
    connection = Connection(reader, writer)
    try:
        connection.writer.write(target.proxy_header)
        code, text = await connection.reply()
        if code != 220:
            raise Refused(code, text)
        await connection.ask(b"EHLO outside.example\r\n", 2)
        if target.context:
            await connection.ask(b"STARTTLS\r\n", 2)
            async with asyncio.timeout(REPLY_SECONDS):
                await writer.start_tls(target.context, server_hostname="mail.paquebot.test")
            await connection.ask(b"EHLO outside.example\r\n", 2)
        if target.login:
            token = base64.b64encode(f"\0{target.login[0]}\0{target.login[1]}".encode())
            await connection.ask(b"AUTH PLAIN " + token + b"\r\n", 2)
    except (OSError, TimeoutError) as error:
        writer.close()
        raise Ended(f"{type(error).__name__}: {error}") from error
    except BaseException:
        writer.close()
        raise
    return connection


@dataclass(slots=True)
class Sender:
    """Connections that each send one mail after the other."""

    target: Target
    recipients: list[str]
    mark: str
    size: int
    pause: float
    log: TextIO
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    limit: int = 0
    number: int = 0

    async def run(self, connections: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(self._connection())

    async def _connection(self) -> None:
        connection: Connection | None = None
        while not self.stop.is_set() and (not self.limit or self.number < self.limit):
            self.number += 1
            mail = f"{self.mark}-{self.number}"
            recipient = self.recipients[self.number % len(self.recipients)]
            connection = await self._until_settled(connection, mail, recipient)
            if self.pause:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.stop.wait(), self.pause)
        if connection:
            with contextlib.suppress(Refused, Ended):
                await connection.ask(b"QUIT\r\n", 2)
            connection.writer.close()

    async def _until_settled(self, connection: Connection | None, mail: str, recipient: str) -> Connection | None:
        """Try one mail until it is accepted or refused for good."""
        began = time.monotonic()
        while True:
            attempt = uuid.uuid4().hex
            outcome, reply, connection = await self._attempt(connection, mail, attempt, recipient)
            spent = time.monotonic() - began
            if outcome in ("temporary", "unknown") and spent > GIVE_UP_SECONDS:
                reply, outcome = f"gave up; last: {reply}", "permanent"
            row = {"mail": mail, "attempt": attempt, "recipient": recipient, "outcome": outcome}
            self.log.write(json.dumps({**row, "reply": reply, "seconds": round(spent, 3), "at": time.time()}) + "\n")
            self.log.flush()
            if outcome in ("accepted", "permanent"):
                return connection
            await asyncio.sleep(RETRY_SECONDS)

    async def _attempt(
        self, connection: Connection | None, mail: str, attempt: str, recipient: str
    ) -> tuple[str, str, Connection | None]:
        """One transaction: its outcome, the deciding reply, and the connection if it can be used again."""
        sent = False
        try:
            connection = connection or await connect(self.target)
            await connection.ask(f"MAIL FROM:<{self.target.sender}>\r\n".encode(), 2)
            await connection.ask(f"RCPT TO:<{recipient}>\r\n".encode(), 2)
            await connection.ask(b"DATA\r\n", 3)
            sent = True
            return "accepted", await connection.ask(self._message(mail, attempt, recipient), 2), connection
        except Refused as refused:
            if connection:
                connection.writer.close()
            return ("permanent" if refused.code >= 500 else "temporary"), refused.text, None
        except Ended as ended:
            if connection:
                connection.writer.close()
            return ("unknown" if sent else "temporary"), str(ended), None

    def _message(self, mail: str, attempt: str, recipient: str) -> bytes:
        head = (
            f"From: <{self.target.sender}>\r\nTo: <{recipient}>\r\nSubject: {mail}\r\n"
            f"Message-ID: <{mail}@outside.example>\r\nX-Attempt: {attempt}\r\n\r\n"
        )
        line = "The packet boat leaves on the hour, whatever the weather may be.\r\n"
        return (head + line * max(1, self.size // len(line)) + ".\r\n").encode()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--sender", default="someone@outside.example")
    parser.add_argument("--login", default="", help="ADDRESS:PASSWORD")
    parser.add_argument("--authority", default="", help="CA certificates: use STARTTLS")
    parser.add_argument("--recipient", action="append", required=True)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two mails of a connection")
    parser.add_argument("--count", type=int, default=0, help="end after so many mails; 0: at SIGTERM")
    parser.add_argument("--size", type=int, default=2000)
    parser.add_argument("--mark", required=True)
    parser.add_argument("--log", required=True)
    arguments = parser.parse_args()

    name, _, password = arguments.login.partition(":")
    context = ssl.create_default_context(cafile=arguments.authority) if arguments.authority else None
    target = Target(arguments.host, arguments.port, arguments.sender, (name, password) if name else None, context)
    with open(arguments.log, "a", encoding="utf-8") as log:  # noqa: ASYNC230 - nothing else runs yet
        sender = Sender(target, arguments.recipient, arguments.mark, arguments.size, arguments.pause, log)
        sender.limit = arguments.count
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, sender.stop.set)
        await sender.run(arguments.connections)


if __name__ == "__main__":
    asyncio.run(main())
