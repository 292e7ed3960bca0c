"""Attacks of the owner of an account. Each runs until it is cancelled or cut off, and then begins again."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

from tests.attack.field import SECRET, Victim, connected

_LARGE = 20 * 2**20
_SEARCHED, _SEARCHED_EACH = 25, 8 * 2**20  # 200 MiB


class Session:
    """An IMAP session."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._number = 0

    async def ask(self, command: bytes) -> bytes:
        """The tagged answer, whatever it says. Raises EOFError."""
        self._number += 1
        tag = b"x%d " % self._number
        self.writer.write(tag + command + b"\r\n")
        await self.writer.drain()
        return await self.answer(tag)

    async def answer(self, tag: bytes) -> bytes:
        while line := await self.reader.readline():
            if line.startswith(tag):
                return line
        raise EOFError

    async def append(self, mailbox: bytes, message: bytes) -> bytes:
        return await self.ask(b"APPEND %s {%d+}\r\n" % (mailbox, len(message)) + message)


@contextlib.asynccontextmanager
async def session(victim: Victim, address: str = "", password: str = SECRET) -> AsyncIterator[Session]:
    """Of the attacker, or of another account. Raises EOFError: no login."""
    reader, writer = await connected(victim.ports.imaps, victim.tls)
    try:
        await reader.readline()
        it = Session(reader, writer)
        answer = await it.ask(f'LOGIN {address or victim.mallory} "{password}"'.encode())
        if b" OK " not in answer:
            raise EOFError(answer.decode("utf-8", "replace").strip())
        yield it
    finally:
        writer.transport.abort()


def text(size: int) -> bytes:
    """A message of so many bytes, unlike any other."""
    line = random.randbytes(36).hex().encode() + b"\r\n"
    return b"Subject: large\r\n\r\n" + line * (size // len(line))


# --- what must be there before ---


async def long_names(victim: Victim) -> None:
    async with session(victim) as it:
        for number in range(990):
            await it.ask(b"CREATE %s%03d" % (b"a" * 200, number))


async def mailbox_of_large_messages(victim: Victim) -> None:
    async with session(victim) as it:
        await it.ask(b"CREATE large")
        for _ in range(3):
            await it.append(b"large", text(_LARGE))


async def mailbox_of_many_addresses(victim: Victim) -> None:
    async with session(victim) as it:
        await it.ask(b"CREATE addresses")
        for _ in range(5):  # more than are kept
            await it.append(b"addresses", b"Subject: many\r\nTo: " + b"a@b, " * 1_000_000 + b"\r\n\r\nx\r\n")


async def mailbox_of_many_fields(victim: Victim) -> None:
    async with session(victim) as it:
        await it.ask(b"CREATE fields")
        await it.append(b"fields", b"a:\r\n" * 65_000 + b"\r\nx\r\n")


async def many_addresses(victim: Victim) -> None:
    """Envelopes that no stored summary has room for, one after another."""
    async with session(victim) as it:
        await it.ask(b"SELECT addresses")
        while True:
            it.writer.write(b"f FETCH 1:* (ENVELOPE BODYSTRUCTURE BODY.PEEK[HEADER.FIELDS (X-NONE)])\r\n")
            tail = b""
            while b"\r\nf OK" not in tail:  # the lines are too long to be read as lines
                if not (data := await it.reader.read(2**16)):
                    return
                tail = tail[-16:] + data


async def mailbox_to_search(victim: Victim) -> None:
    async with session(victim) as it:
        await it.ask(b"CREATE much")
        for _ in range(_SEARCHED):
            await it.append(b"much", text(_SEARCHED_EACH))


async def mailbox_to_copy(victim: Victim) -> None:
    async with session(victim) as it:
        await it.ask(b"CREATE copies")
        await it.append(b"copies", text(1000))


# --- attacks ---


def again_and_again(*commands: bytes) -> Callable[[Victim], Awaitable[None]]:
    """The same commands, as fast as they are answered."""

    async def run(victim: Victim) -> None:
        async with session(victim) as it:
            while True:
                for command in commands:
                    await it.ask(command)

    return run


list_many_patterns = again_and_again(
    b'LIST (SUBSCRIBED) "" (' + b" ".join(b'"' + b"*a" * 20 + b'%d*"' % number for number in range(64)) + b")",
    b'LIST "" (' + b" ".join(b'"' + b"*a" * 20 + b'%d*"' % number for number in range(64)) + b")",
)
search_many_times = again_and_again(
    b"SELECT INBOX", b"SEARCH " + b" ".join(b"NOT BODY n%d" % number for number in range(505))
)
search_much = again_and_again(b"SELECT much", b'SEARCH BODY "nowhere to be found"')
many_partials = again_and_again(
    b"SELECT large",
    b"FETCH 1 (" + b" ".join(b"BODY.PEEK[]<%d.%d>" % (number, _LARGE) for number in range(40)) + b")",
)
many_field_lists = again_and_again(
    b"SELECT fields",
    b"FETCH 1 (" + b" ".join(b"BODY.PEEK[HEADER.FIELDS (q%d)]" % number for number in range(200)) + b")",
)
copies = again_and_again(b"SELECT copies", b"COPY 1:* copies", b"COPY 1:* copies", b"COPY 1:* copies")


async def never_read(victim: Victim) -> None:
    """Large messages are asked for, and no byte of them is taken."""
    async with session(victim) as it:
        await it.ask(b"SELECT large")
        cast(asyncio.Transport, it.writer.transport).pause_reading()
        it.writer.write(b"f FETCH 1:3 BODY.PEEK[]\r\n")
        await asyncio.sleep(30)


async def declared_literal(victim: Victim) -> None:
    """An APPEND as large as may be, of which a byte comes now and then."""
    async with session(victim) as it:
        it.writer.write(b"f APPEND INBOX {50000000+}\r\n")
        while not it.writer.transport.is_closing():
            it.writer.write(b"x")
            await asyncio.sleep(0.5)
