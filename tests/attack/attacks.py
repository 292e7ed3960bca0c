"""What hostile clients do, each from loopback addresses of its own: slow ones, many, oversize, deep and pointless ones.

An attack runs until it is cancelled. It must not end by itself when it is refused: attackers do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

HOST = "127.0.0.1"
_addresses = (f"127.9.{high}.{low}" for high, low in itertools.cycle(itertools.product(range(1, 250), range(1, 250))))
_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class Ports:
    smtp: int
    imap: int
    pop3: int


@dataclass(frozen=True, slots=True)
class Attack:
    """`clients` of it at once, each `run(ports)` again and again."""

    name: str
    service: str
    clients: int
    run: Callable[[Ports], Awaitable[None]]


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """From a new address: the limits for one client do not hold it back."""
    sock = socket.socket()
    sock.setblocking(False)
    try:
        sock.bind((next(_addresses), 0))
        await asyncio.get_running_loop().sock_connect(sock, (HOST, port))
        return await asyncio.open_connection(sock=sock)
    except BaseException:
        sock.close()
        raise


async def _say(port: int, octets: bytes, *, repeat: int = 1, pause: float = 0.0, wait: bytes = b"") -> None:
    reader, writer = await connected(port)
    try:
        await reader.readline()
        if wait:
            writer.write(wait)
            await reader.readline()
        for _ in range(repeat):
            writer.write(octets)
            await writer.drain()
            if pause:
                await asyncio.sleep(pause)
        writer.write_eof()
        while await reader.read(65536):
            pass
    finally:
        writer.close()


def _slow(port: Callable[[Ports], int], begin: bytes) -> Callable[[Ports], Awaitable[None]]:
    """One octet now and then, of a line that never ends."""

    async def run(ports: Ports) -> None:
        await _say(port(ports), b"x", wait=begin, repeat=10_000, pause=0.5)

    return run


async def _connects(ports: Ports) -> None:
    _, writer = await connected(ports.smtp)
    writer.close()


async def _pipelined(ports: Ports) -> None:
    await _say(ports.smtp, b"NOOP\r\n" * 2000, wait=b"EHLO x\r\n")


async def _endless_line(ports: Ports) -> None:
    await _say(ports.smtp, b"x" * 65536, repeat=64)


async def _header_bomb(ports: Ports) -> None:
    fields = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 60) for number in range(14_000))
    await _mail(ports, fields + b"\r\nx\r\n")


async def _deep_mime(ports: Ports) -> None:
    nested = b"".join(
        b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (depth, depth) for depth in range(5000)
    )
    await _mail(ports, b"MIME-Version: 1.0\r\n" + nested + b"\r\nx\r\n")


async def _many_parts(ports: Ports) -> None:
    head = b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'
    await _mail(ports, head + b"--b\r\n\r\nx\r\n" * 100_000 + b"--b--\r\n")


async def _mail(ports: Ports, content: bytes) -> None:
    envelope = b"MAIL FROM:<a@attacker.test>\r\nRCPT TO:<alice@paquebot.test>\r\nDATA\r\n"
    reader, writer = await connected(ports.smtp)
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


async def _oversize_literal(ports: Ports) -> None:
    await _say(ports.imap, b"x" * 65536, wait=b"a LOGIN {4294967295+}\r\n", repeat=64)


async def _deep_search(ports: Ports) -> None:
    await _say(ports.imap, b"a SEARCH " + b"(" * 7000 + b"\r\n", repeat=20)


async def _guesses(ports: Ports) -> None:
    await _say(ports.imap, b'a LOGIN alice@paquebot.test "wrong"\r\n', repeat=3)


ATTACKS = (
    Attack("slow lines, SMTP", "smtp_ingress", 400, _slow(lambda ports: ports.smtp, b"EHLO x\r\n")),
    Attack("slow lines, IMAP", "imap", 400, _slow(lambda ports: ports.imap, b"a CAPABILITY\r\n")),
    Attack("slow lines, POP3", "pop3", 400, _slow(lambda ports: ports.pop3, b"CAPA\r\n")),
    Attack("connections without a word", "smtp_ingress", 20, _connects),
    Attack("pipelined NOOPs", "smtp_ingress", 20, _pipelined),
    Attack("lines without end", "smtp_ingress", 20, _endless_line),
    Attack("header bombs", "smtp_ingress", 4, _header_bomb),
    Attack("deep MIME", "smtp_ingress", 4, _deep_mime),
    Attack("100,000 parts", "smtp_ingress", 4, _many_parts),
    Attack("oversize literals", "imap", 20, _oversize_literal),
    Attack("deep SEARCH", "imap", 20, _deep_search),
    Attack("guessed passwords", "imap", 20, _guesses),
)


@contextlib.asynccontextmanager
async def under(attack: Attack, ports: Ports):  # type: ignore[no-untyped-def]
    """The attack goes on for the time of the block; gives the count of its rounds, as a list of one."""
    rounds = [0]

    async def client() -> None:
        while True:
            with contextlib.suppress(OSError, EOFError):
                await attack.run(ports)
            rounds[0] += 1
            await asyncio.sleep(_PAUSE)

    clients = [asyncio.create_task(client()) for _ in range(attack.clients)]
    try:
        yield rounds
    finally:
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
