"""Checks of logins: sessions end with what they logged in with, and guesses neither go on nor keep the owner out."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from paquebot.rpc import AuthenticationClient, InvalidCredentials, open_channel
from paquebot.runtime.engine_settings import DirectoryClientSettings
from paquebot.runtime.settings import load
from paquebot.v1.directory_pb2 import CreateAppPasswordRequest, DeleteAppPasswordRequest, UpdateAccountRequest
from tests.attack.clients import Conversation, plain
from tests.attack.field import ALIAS_DOMAIN, SECRET, Field, add_alias_domain, administration, connected, enrol
from tests.attack.finding import Finding
from tests.attack.insiders import session

_ANOTHER = "quite another password"
_BOUND_MS, _PATIENCE = 1000.0, 5.0
_GUESSES = 15  # more than an account may have from one address
Change = Callable[[], Awaitable[object]]


async def sessions_end(place: Field) -> list[Finding]:
    """One account for each way to lose a login, with a session of each protocol."""
    names = ("disabled", "changed", "revoked")
    addresses = [f"{name}@{place.victim.domain}" for name in names]
    await enrol(place.platform.plan, *addresses)
    async with administration(place.platform.plan) as admin:

        def update(address: str, **fields: Any) -> Change:
            return lambda: admin.ask(admin.stub.UpdateAccount, UpdateAccountRequest(address=address, **fields))

        made = await admin.ask(admin.stub.CreateAppPassword, CreateAppPasswordRequest(address=addresses[2], name="x"))
        revoke = DeleteAppPasswordRequest(address=addresses[2], app_password_id=made.app_password.app_password_id)
        return [
            *await _ended(place, "account disabled", addresses[0], SECRET, update(addresses[0], enabled=False)),
            *await _ended(place, "password changed", addresses[1], SECRET, update(addresses[1], password=_ANOTHER)),
            *await _ended(
                place,
                "app password revoked",
                addresses[2],
                made.password,
                lambda: admin.ask(admin.stub.DeleteAppPassword, revoke),
            ),
        ]


async def _ended(place: Field, what: str, address: str, password: str, change: Change) -> list[Finding]:
    """A waiting session shows its end by the closed connection; others speak at once."""
    async with contextlib.AsyncExitStack() as stack:
        waiting = [await stack.enter_async_context(one(place, address, password)) for one in (smtp, imap, pop3)]
        sender = await stack.enter_async_context(smtp(place, address, password))
        appender = await stack.enter_async_context(imap(place, address, password))
        began = time.perf_counter()
        await change()
        ends = asyncio.gather(*(_milliseconds(reader, began) for reader, _ in waiting))
        sent = await _answer(*sender, f"MAIL FROM:<{address}>\r\n".encode())
        slowest = max(await ends)
        appended = await _answer(*appender, b"x APPEND INBOX {5+}\r\nA: b\n\r\n")
    ended = slowest < _PATIENCE * 1000
    taken = [name for name, said in (("MAIL", sent), ("APPEND", appended)) if said.startswith((b"250", b"x OK"))]
    return [
        Finding(
            f"{what}: until its SMTP, IMAP and POP3 sessions have ended",
            f"{slowest:.0f} ms" if ended else f"not in {_PATIENCE:.0f} s",
            "" if ended else "sessions go on",
            _slow(slowest),
        ),
        Finding(f"{what}: MAIL and APPEND taken after it", str(len(taken)), ", ".join(taken)),
    ]


async def _milliseconds(reader: asyncio.StreamReader, began: float) -> float:
    """Until the server ends the connection, at most _PATIENCE."""
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(_PATIENCE):
            while await reader.read(65536):
                pass
    return (time.perf_counter() - began) * 1000


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> bytes:
    """Empty when the connection has ended. Lines without a tag are left out, but for replies of SMTP."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            writer.write(data)
            while line := await reader.readline():
                if not line.startswith((b"* ", b"+ ")):
                    return line
    return b""


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def _open(port: int, place: Field) -> AsyncIterator[Streams]:
    reader, writer = await connected(port, place.tls)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def smtp(place: Field, address: str, password: str) -> AsyncIterator[Streams]:
    """Logged in."""
    async with _open(place.ports.submissions, place) as streams:
        it = Conversation(*streams)
        await it.expect(b"220")
        await it.say(b"EHLO ordinary.test\r\n", b"250 ", until=b"250 ")
        await it.say(b"AUTH PLAIN " + plain(address, password) + b"\r\n", b"235")
        yield streams


@contextlib.asynccontextmanager
async def imap(place: Field, address: str, password: str) -> AsyncIterator[Streams]:
    async with session(place.victim, address, password) as it:
        yield it.reader, it.writer


@contextlib.asynccontextmanager
async def pop3(place: Field, address: str, password: str) -> AsyncIterator[Streams]:
    async with _open(place.ports.pop3s, place) as streams:
        it = Conversation(*streams)
        await it.expect(b"+OK")
        await it.say(f"USER {address}\r\n".encode(), b"+OK")
        await it.say(f"PASS {password}\r\n".encode(), b"+OK")
        yield streams


async def guesses(place: Field) -> list[Finding]:
    """One address guesses until it is refused, and goes on through a domain that is another name for the same
    accounts; then the owner comes from an address where he was before, and with a new app password."""
    owner = f"guessed@{place.victim.domain}"
    await enrol(place.platform.plan, owner)
    await add_alias_domain(place.platform.plan)
    async with imap(place, owner, SECRET):
        pass
    alias = f"guessed@{ALIAS_DOMAIN}"
    settings = load(DirectoryClientSettings, place.platform.plan.client_environment())
    channel = open_channel(settings)
    try:
        client = AuthenticationClient(channel, settings)
        for _ in range(_GUESSES):
            await client.authenticate(owner, "a wrong guess", "192.0.2.1", "imap")
        after = [await client.authenticate(alias, "a wrong guess", "192.0.2.1", "imap") for _ in range(5)]
    finally:
        await channel.close()
    tried = sum(isinstance(answer, InvalidCredentials) for answer in after)
    return [
        Finding("guesses that an alias domain adds to the limit", str(tried), "they were tried" if tried else ""),
        await _owner(place, owner),
    ]


async def _owner(place: Field, owner: str) -> Finding:
    what = f"login of an owner at a known address after {_GUESSES} wrong guesses of a stranger"
    began = time.perf_counter()
    try:
        async with imap(place, owner, SECRET):
            took = (time.perf_counter() - began) * 1000
    except (OSError, EOFError) as error:
        return Finding(what, "refused", str(error))
    return Finding(what, f"{took:.0f} ms", slow=_slow(took))


def _slow(milliseconds: float) -> str:
    return "" if milliseconds <= _BOUND_MS else f"over {_BOUND_MS:.0f} ms"
