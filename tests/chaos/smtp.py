"""An SMTP client that knows, when it breaks, whether the message's last byte had left it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl

from paquebot.cli.engines.ports import LOOPBACK

REPLY_SECONDS = 60.0
_LIMIT = 2**16


class Cut(Exception):
    """The connection broke, or no reply came; of no more use."""


class Refused(Exception):
    """A reply other than the wanted one; the connection goes on."""

    def __init__(self, command: str, code: int, text: str) -> None:
        super().__init__(f"{command}: {code} {text}")
        self.code = code
        self.text = text


class Smtp:
    """One connection: `await Smtp.open(port)`, then in the order of the protocol. Everything raises Cut."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Smtp:
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                client = cls(*await asyncio.open_connection(LOOPBACK, port, limit=_LIMIT))
        except (OSError, TimeoutError) as error:
            raise Cut(f"connect: {error!r}") from error
        try:
            await client._want("greeting", await client.reply())
            await client.command("EHLO chaos.test")
        except BaseException:
            client.close()
            raise
        return client

    async def log_in(self, tls: ssl.SSLContext, user: str, password: str) -> None:
        """STARTTLS and AUTH PLAIN. Raises Refused, Cut."""
        await self.command("STARTTLS")
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                await self._writer.start_tls(tls, server_hostname="localhost")
        except (OSError, TimeoutError, EOFError) as error:
            raise Cut(f"STARTTLS: {error!r}") from error
        await self.command("EHLO chaos.test")
        secret = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        await self.command(f"AUTH PLAIN {secret}", shown="AUTH")

    async def command(self, line: str, *, shown: str = "") -> str:
        """Send a command; the text of its positive reply. Raises Refused, Cut."""
        await self._write(line.encode() + b"\r\n")
        return await self._want(shown or line, await self.reply())

    async def data(self, content: bytes) -> None:
        """DATA and all of the message but its end. `bytes` ends with CRLF."""
        await self.command("DATA")
        stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
        await self._write(stuffed)

    async def chunk(self, content: bytes) -> None:
        """RFC 3030: all of the message as a first chunk; `end_chunks` is its end."""
        await self._write(b"BDAT %d\r\n" % len(content) + content)
        await self._want("BDAT", await self.reply())

    async def end(self, last: bytes) -> None:
        """The bytes that hand the message over; from here on its end is ambiguous until the reply."""
        await self._write(last)

    async def reply(self) -> tuple[int, str]:
        """Code and text of the next reply."""
        lines: list[str] = []
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                while not lines or lines[-1][3:4] == "-":
                    line = await self._reader.readuntil(b"\r\n")
                    lines.append(line.decode("utf-8", "replace").rstrip())
            return int(lines[-1][:3]), lines[-1][4:]
        except (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError) as error:
            raise Cut(f"{error!r}") from error

    async def _want(self, command: str, reply: tuple[int, str]) -> str:
        code, text = reply
        if code == 421:  # RFC 5321 §4.2.3: it closes
            raise Cut(f"{command}: 421 {text}")
        if not 200 <= code < 400:
            raise Refused(command, code, text)
        return text

    async def _write(self, content: bytes) -> None:
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                self._writer.write(content)
                await self._writer.drain()
        except (OSError, TimeoutError) as error:
            raise Cut(f"{error!r}") from error

    def close(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.close()

    async def quit(self) -> None:
        with contextlib.suppress(Cut, Refused):
            await self.command("QUIT")
        self.close()
