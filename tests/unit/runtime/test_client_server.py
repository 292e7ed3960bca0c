"""The server of runtime.net, which the three protocols share."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from paquebot.imap.server import ImapServer
from paquebot.observability import log
from paquebot.observability.log import Log
from paquebot.pop3.server import Pop3Server
from paquebot.runtime.net.connection import ClientConnection, PeerGone
from paquebot.runtime.net.proxy import Proxies, ProxySettings
from paquebot.runtime.net.server import ClientServer, ConnectedClient
from paquebot.runtime.net.slots import ConnectionSlots, SlotLimits
from paquebot.runtime.settings import Listen
from paquebot.runtime.ulid import is_ulid
from paquebot.smtp_ingress.server import SmtpServer

_log = Log("tests.server")


class End(enum.Enum):
    LEFT = "left"
    GONE = "gone"


class EchoSession:
    """Sends its id, then waits until it must leave."""

    def __init__(self, connection: ClientConnection, client: ConnectedClient) -> None:
        self.connection = connection
        self.client = client
        self._leaving = False

    async def run(self) -> End:
        try:
            await self.connection.send(self.client.id.encode() + b"\n")
            _log.warning("session_began")
            while not self._leaving:
                if self.connection.ended:
                    return End.GONE
                await self.connection._more(60.0)
        except PeerGone:
            return End.GONE
        finally:
            self.connection.close()
        return End.LEFT

    def leave(self) -> None:
        self._leaving = True
        self.connection.ring()

    displace = leave


class EchoServer(ClientServer[ClientConnection, EchoSession]):
    def __init__(self, slots: int = 10, *, drain: float = 10.0) -> None:
        limits = SlotLimits(slots, 0.0, slots, slots, slots)
        proxies = Proxies(ProxySettings())
        super().__init__(ConnectionSlots.of_logins(limits), proxies, tls=None, shared=False, drain=drain)
        self.ends: list[enum.Enum | None] = []
        self.failed: list[str] = []

    def make_connection(self) -> ClientConnection:
        return ClientConnection(write_timeout=5.0, read_high=1024)

    def make_session(self, connection: ClientConnection, client: ConnectedClient) -> EchoSession:
        return EchoSession(connection, client)

    def refuse(self, listener: str, *, draining: bool) -> bytes:
        return b"draining\n" if draining else b"full\n"

    def connecting_failed(self, listener: str) -> None:
        self.failed.append(listener)

    def session_ended(self, client: ConnectedClient, end: enum.Enum | None) -> None:
        self.ends.append(end)


@contextlib.asynccontextmanager
async def serving(slots: int = 10) -> AsyncIterator[EchoServer]:
    server = EchoServer(slots)
    server.add_listener("echo", [Listen("127.0.0.1", 0), Listen("127.0.0.1", 0)])
    await server.start()
    try:
        yield server
    finally:
        await server.close()


async def first_line(server: EchoServer) -> tuple[bytes, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port("echo"))
    return await asyncio.wait_for(reader.readline(), 10), writer


async def test_each_session_has_its_own_ulid_in_its_log_lines() -> None:
    """Ids of two processes differ, too, unlike those of a counter."""
    seen: list[str] = []

    class Reader(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(log._ids.get({})["session"])

    handler = Reader()
    logging.getLogger("tests.server").addHandler(handler)
    try:
        async with serving() as first, serving() as second:
            lines = [await first_line(server) for server in (first, first, second)]
            ids = [line.decode().strip() for line, _ in lines]
            assert len(set(ids)) == 3
            assert all(map(is_ulid, ids))
            assert seen == ids
            for _, writer in lines:
                writer.close()
    finally:
        logging.getLogger("tests.server").removeHandler(handler)


def test_the_three_protocols_have_this_server() -> None:
    for server in (ImapServer, Pop3Server, SmtpServer):
        assert issubclass(server, ClientServer)
        assert server._serve is ClientServer._serve, "it assigns the ids of sessions"


async def test_without_a_slot_a_client_is_refused() -> None:
    async with serving(slots=1) as server:
        _, writer = await first_line(server)
        line, refused = await first_line(server)
        assert line == b"full\n"
        refused.close()
        assert server.slots.used == 1
        writer.close()
        async with asyncio.timeout(10):
            while server.slots.used:
                await asyncio.sleep(0)
        assert server.ends == [End.GONE]


async def test_a_client_that_is_gone_before_its_session_is_counted() -> None:
    server = EchoServer()
    server.add_listener("echo", [Listen("127.0.0.1", 0)])
    with socket.create_connection(("127.0.0.1", server.port("echo"))) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # its end is a reset
    await server.start()
    try:
        async with asyncio.timeout(10):
            while not server.failed:
                await asyncio.sleep(0.01)
        assert server.failed == ["echo"]
        assert (server.slots.used, server.ends) == (0, [])
    finally:
        await server.close()


async def test_sessions_leave_at_the_drain_and_its_listeners_are_closed() -> None:
    async with serving() as server:
        port = server.port("echo")
        writers = [(await first_line(server))[1] for _ in range(3)]
        await server.drain(5.0)
        assert server.ends == [End.LEFT] * 3
        assert not server.sessions
        with pytest.raises(OSError, match=r".*"):
            await asyncio.open_connection("127.0.0.1", port)
        for writer in writers:
            writer.close()


async def test_a_session_that_does_not_leave_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EchoSession, "leave", lambda _: None)
    async with serving() as server:
        _, writer = await first_line(server)
        await server.drain(0.1)
        assert server.ends == [None]
        assert server.slots.used == 0
        writer.close()


async def test_one_listener_has_many_addresses() -> None:
    async with serving() as server:
        assert len(set(server._listeners.ports("echo"))) == 2
