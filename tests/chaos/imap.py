"""An IMAP client for one purpose: to see UIDs, MODSEQs and bytes as they are, and to notice when it was cut off."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from paquebot.cli.demo.accounts import DEMO_PASSWORD
from paquebot.cli.engines.ports import LOOPBACK
from tests.chaos.smtp import Cut

REPLY_SECONDS = 60.0
_LITERAL = re.compile(rb"\{(\d+)\}\r\n\Z")
_LEFT_OUT = re.compile(rb"\* NO \[[A-Z]+\] Message ")
_UID = re.compile(rb"\bUID (\d+)")
_MOD_SEQ = re.compile(rb"\bMODSEQ \((\d+)\)")
_FLAGS = re.compile(rb"\bFLAGS \(([^)]*)\)")


class No(Exception):
    """The command was refused; the connection goes on."""

    @property
    def temporary(self) -> bool:
        return "[UNAVAILABLE]" in str(self)


class Bad(Exception):
    """The server did not understand us, or we it: a finding."""


@dataclass(frozen=True, slots=True)
class Selected:
    """What SELECT announced."""

    uid_validity: int
    uid_next: int
    highest_mod_seq: int
    exists: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """One FETCH response. `bytes`: the literal in it; None: there was none."""

    uid: int
    mod_seq: int
    flags: frozenset[str]
    content: bytes | None


class Imap:
    """One connection, logged in. Commands raise No, Bad, Cut."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._tag = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def session(cls, port: int, tls: ssl.SSLContext, user: str) -> AsyncIterator[Imap]:
        """Ends with its connection cut: no client here waits for a BYE."""
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                pair = await asyncio.open_connection(LOOPBACK, port, ssl=tls, server_hostname="localhost", limit=2**20)
        except (OSError, TimeoutError, EOFError) as error:
            raise Cut(f"connect: {error!r}") from error
        client = cls(*pair)
        try:
            greeting = await client._line()
            if greeting.startswith(b"* BYE"):
                raise Cut(greeting.decode("utf-8", "replace"))
            await client.command(f"LOGIN {user} {DEMO_PASSWORD}", shown="LOGIN")
            yield client
        finally:
            with contextlib.suppress(OSError, RuntimeError):
                client._writer.transport.abort()

    async def command(self, text: str, *, literal: bytes | None = None, shown: str = "") -> list[bytes]:
        """The untagged responses; the last one is the text of the tagged OK."""
        self._tag += 1
        tag = b"a%d " % self._tag
        line = tag + text.encode()
        if literal is not None:
            line += b" {%d+}\r\n" % len(literal) + literal
        await self._write(line + b"\r\n")
        return await self._completion(tag, shown or text)

    async def select(self, mailbox: str) -> Selected:
        lines = b"\n".join(await self.command(f"SELECT {mailbox} (CONDSTORE)"))
        exists = re.search(rb"^\* (\d+) EXISTS", lines, re.MULTILINE)
        numbers = [re.search(rb"\[%s (\d+)\]" % word, lines) for word in (b"UIDVALIDITY", b"UIDNEXT", b"HIGHESTMODSEQ")]
        if exists is None or not all(numbers):
            raise Bad(f"SELECT {mailbox} announced too little: {lines!r}")
        validity, uid_next, highest = (int(found[1]) for found in numbers if found)
        return Selected(validity, uid_next, highest, int(exists[1]))

    async def fetch(self, uids: str, items: str) -> list[Fetched]:
        """UID FETCH; `items` has UID, MODSEQ and FLAGS. What is left out because it cannot be read is a refusal."""
        lines = await self.command(f"UID FETCH {uids} ({items})")
        for line in lines:
            if _LEFT_OUT.match(line):
                raise No(f"UID FETCH {uids}: {line.decode('utf-8', 'replace').strip()}")
        return list(_fetched(lines))

    async def idle(self, seconds: float) -> None:
        """IDLE until the server announces something, or so long."""
        self._tag += 1
        tag = b"a%d " % self._tag
        await self._write(tag + b"IDLE\r\n")
        line = await self._line()
        if not line.startswith(b"+"):
            await self._completion(tag, "IDLE", [line])
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._told(b"EXISTS")
        await self._write(b"DONE\r\n")
        await self._completion(tag, "IDLE")

    async def _told(self, word: bytes) -> None:
        try:
            await self._reader.readuntil(word)
        except (OSError, EOFError) as error:
            raise Cut(f"{error!r}") from error

    async def _completion(self, tag: bytes, text: str, lines: list[bytes] | None = None) -> list[bytes]:
        lines = lines or []
        while not (lines and lines[-1].startswith(tag)):
            lines.append(await self._line())
            if lines[-1].startswith(b"* BYE"):
                raise Cut(lines[-1].decode("utf-8", "replace"))
        lines[-1] = lines[-1].removeprefix(tag)
        answer = f"{text}: {lines[-1].decode('utf-8', 'replace').strip()}"
        if lines[-1].startswith(b"NO"):
            raise No(answer)
        if not lines[-1].startswith(b"OK"):
            raise Bad(answer)
        return lines

    async def _line(self) -> bytes:
        """One response with its literals."""
        whole = b""
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                while True:
                    line = await self._reader.readuntil(b"\r\n")
                    whole += line
                    found = _LITERAL.search(line)
                    if found is None:
                        return whole
                    whole += await self._reader.readexactly(int(found[1]))
        except (OSError, EOFError, TimeoutError) as error:
            raise Cut(f"{error!r}") from error

    async def _write(self, content: bytes) -> None:
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                self._writer.write(content)
                await self._writer.drain()
        except (OSError, TimeoutError) as error:
            raise Cut(f"{error!r}") from error


def _fetched(lines: list[bytes]) -> Iterator[Fetched]:
    for line in lines:
        if not line.startswith(b"* ") or b" FETCH (" not in line[:24]:
            continue
        found = re.search(rb"\{(\d+)\}\r\n", line)
        content = line[found.end() : found.end() + int(found[1])] if found else None
        rest = line[: found.start()] + line[found.end() + int(found[1]) :] if found else line
        uid, mod_seq, flags = _UID.search(rest), _MOD_SEQ.search(rest), _FLAGS.search(rest)
        if uid is not None:  # else another client's change, announced meanwhile
            words = frozenset(flags[1].decode().split()) if flags else frozenset()
            yield Fetched(int(uid[1]), int(mod_seq[1]) if mod_seq else 0, words, content)
