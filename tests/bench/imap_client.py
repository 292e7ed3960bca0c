"""A small IMAP client made for load: one connection, one command at a time, every response kept for checking.

It believes nothing: a response outside a command, a tag that was not sent, a BYE that was not asked for, are faults
of the server and raise. Bytes are cut into responses as they come; values are parsed only when they are read.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import cast

from tests.bench.imap_response import Fetched, Response, ResponseStream, fetched, numbered

COMMAND_SECONDS = 60.0


class ServerFault(Exception):
    """The server broke the protocol or the connection, or did not answer in time."""


class Refused(ServerFault):
    """NO or BAD where OK was due."""


@dataclass(frozen=True, slots=True)
class Login:
    """The server and the login. `tls` None: in the clear."""

    host: str
    port: int
    user: str
    password: str
    tls: ssl.SSLContext | None


@dataclass(slots=True)
class Answer:
    """All that came for one command."""

    status: bytes
    """OK, NO or BAD."""
    text: bytes
    untagged: list[Response]

    def fetched(self) -> list[Fetched]:
        """Its FETCH responses, in order."""
        return [one for one in map(fetched, self.untagged) if one is not None]

    def numbers(self, name: bytes) -> list[int]:
        """The numbers of its EXISTS, RECENT or EXPUNGE responses, in order."""
        found = map(numbered, self.untagged)
        return [one[0] for one in found if one is not None and one[1] == name]

    def code(self, name: bytes) -> list[bytes] | None:
        """The words after a response code's name in the tagged or an untagged OK, such as `[APPENDUID 1 5]`."""
        for text in (self.text, *(one.text for one in self.untagged)):
            begin = text.find(b"[" + name)
            if begin >= 0:
                return text[begin + 1 : text.find(b"]", begin)].split()[1:]
        return None


class ImapClient(asyncio.Protocol):
    """Make with `connect`; `command`; `close` it whatever happened."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._stream = ResponseStream()
        self._untagged: list[Response] = []
        self._count = 0
        self._tag = b"*"  # the greeting answers the connection itself
        self._waiter: asyncio.Future[Answer] | None = asyncio.get_running_loop().create_future()
        self._fault: ServerFault | None = None
        self._arrived: Callable[[Response], None] | None = None

    # --- asyncio.Protocol --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for response in self._stream.feed(data):
            self._take(response)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(ServerFault(f"the connection ended: {exc}" if exc else "the connection ended"))

    def _take(self, response: Response) -> None:
        text = response.text
        waits = self._waiter is not None and not self._waiter.done()
        if waits and text.startswith((self._tag + b" ", b"+")):
            assert self._waiter is not None
            self._waiter.set_result(self._answer(text))
        elif not text.startswith(b"* "):
            self._fail(ServerFault(f"neither untagged nor tagged {self._tag!r}: {text[:200]!r}"))
        elif self._arrived is not None:
            self._arrived(response)
        elif not waits and text.endswith(b" EXPUNGE"):  # RFC 3501 §7.4.1
            self._fail(ServerFault(f"EXPUNGE while no command was in progress: {text!r}"))
        else:
            self._untagged.append(response)

    def _answer(self, text: bytes) -> Answer:
        status, _, rest = text.removeprefix(self._tag + b" ").partition(b" ")
        untagged, self._untagged = self._untagged, []
        return Answer(status, rest, untagged)

    def _fail(self, fault: ServerFault) -> None:
        self._fault = self._fault or fault
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(self._fault)

    async def _answered(self, seconds: float) -> Answer:
        assert self._waiter is not None
        try:
            async with asyncio.timeout(seconds):
                return await self._waiter
        except TimeoutError:
            raise ServerFault(f"no answer within {seconds:g} s") from None
        finally:
            self._waiter = None

    # --- commands ----------------------------------------------------------------------------------------

    async def greeting(self) -> None:
        """RFC 3501 §7.1.5; right after the connection. Raises ServerFault."""
        answer = await self._answered(COMMAND_SECONDS)
        if answer.status != b"OK":
            raise ServerFault(f"no greeting but {answer.status!r} {answer.text[:200]!r}")

    async def command(self, line: bytes, literal: bytes | None = None, *, seconds: float = COMMAND_SECONDS) -> Answer:
        """Send a command, with a literal after its line if one is given (RFC 7888, not synchronizing); all that came
        until its tagged response. Raises ServerFault."""
        self._begin()
        if literal is None:
            self._send(b"%s %s\r\n" % (self._tag, line))
        else:
            self._send(b"%s %s {%d+}\r\n%s\r\n" % (self._tag, line, len(literal), literal))
        answer = await self._answered(seconds)
        if answer.status == b"+":
            raise ServerFault(f"a continuation that no command asked for: {answer.text[:200]!r}")
        return answer

    async def ask(self, line: bytes, literal: bytes | None = None, *, seconds: float = COMMAND_SECONDS) -> Answer:
        """As `command`. Raises Refused when it is not OK."""
        return _accepted(line, await self.command(line, literal, seconds=seconds))

    @contextlib.asynccontextmanager
    async def idling(self, arrived: Callable[[Response], None]) -> AsyncIterator[None]:
        """IDLE for the time of the block (RFC 2177); `arrived` gets each untagged response. Raises ServerFault."""
        self._begin()
        self._arrived = arrived
        try:
            self._send(b"%s IDLE\r\n" % self._tag)
            if (await self._answered(COMMAND_SECONDS)).status != b"+":
                raise ServerFault("IDLE was not accepted")
            yield
            self._waiter = asyncio.get_running_loop().create_future()
            self._send(b"DONE\r\n")
            _accepted(b"IDLE", await self._answered(COMMAND_SECONDS))
        finally:
            self._arrived = None

    def _begin(self) -> None:
        self._count += 1
        self._tag = b"a%d" % self._count
        self._waiter = asyncio.get_running_loop().create_future()

    def _send(self, data: bytes) -> None:
        if self._fault is not None:
            raise self._fault
        assert self._transport is not None
        self._transport.write(data)

    def close(self) -> None:
        """End the connection now; idempotent."""
        if self._transport is not None:
            self._transport.abort()


def _accepted(line: bytes, answer: Answer) -> Answer:
    if answer.status != b"OK":
        said = f"{answer.status.decode('ascii', 'replace')} {answer.text[:200].decode('ascii', 'replace')}"
        raise Refused(f"{line.split()[0].decode()}: {said}")
    return answer


async def connect(login: Login) -> ImapClient:
    """A client that has read the greeting. Raises ServerFault."""
    name = login.host if login.tls is not None else None
    try:
        _, client = await asyncio.get_running_loop().create_connection(
            ImapClient, login.host, login.port, ssl=login.tls, server_hostname=name
        )
    except OSError as error:
        raise ServerFault(f"no connection: {error}") from error
    try:
        await client.greeting()
    except BaseException:
        client.close()
        raise
    return client


async def log_in(login: Login) -> ImapClient:
    """A client that is logged in. Raises ServerFault."""
    client = await connect(login)
    try:
        await client.ask(b'LOGIN "%s" "%s"' % (login.user.encode(), login.password.encode()))
    except BaseException:
        client.close()
        raise
    return client
