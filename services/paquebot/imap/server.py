"""Accepts connections within the limits, runs a session for each, and says BYE to all of them before the end.

Limits are applied before a TLS handshake begins. On drain, sessions are asked to end one after another, so that
their clients do not all come to the next pod in the same moment; a command under way is finished first.
"""

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from dataclasses import dataclass, field

from paquebot.imap import metrics
from paquebot.imap.connection import Connection
from paquebot.imap.metrics import Ending
from paquebot.imap.process import Process
from paquebot.imap.session import Session
from paquebot.observability.log import Log, ids
from paquebot.runtime.limits import ConnectionLimit
from paquebot.runtime.settings import Listen
from paquebot.wire.imap import response_codes, responses

_log = Log("paquebot.imap.server")
_BACKLOG = 1024
_HANDSHAKE_SECONDS = 15.0
_ACCEPT_PAUSE = 0.1  # when the process is out of file descriptors
_STAGGER = 0.5  # of the drain time


@dataclass(slots=True)
class _Listener:
    socket: socket.socket
    tls: bool


@dataclass(slots=True)
class ImapServer:
    """Open with `listen`, serve with `run`."""

    process: Process
    _listeners: dict[str, _Listener] = field(default_factory=dict)
    _sessions: set[Session] = field(default_factory=set)
    _numbers: int = 0

    def listen(self) -> None:
        """Bind every listener of the settings. Raises OSError."""
        settings = self.process.settings.listen
        for name, where, tls in (("imap", settings.starttls, False), ("imaps", settings.tls, True)):
            if where is not None:
                self._listeners[name] = _Listener(_bound(where), tls)
                _log.info("listening", listener=name, port=self.port(name))

    def port(self, name: str) -> int:
        """The port of the listener `imap` or `imaps`."""
        return int(self._listeners[name].socket.getsockname()[1])

    @property
    def sessions(self) -> int:
        """Sessions now."""
        return len(self._sessions)

    async def run(self, draining: asyncio.Event) -> None:
        """Serve until `draining`, then end the sessions within the drain time."""
        session = self.process.settings.session
        limit = ConnectionLimit(session.total, session.per_client)
        async with asyncio.TaskGroup() as group:
            accepting = [
                group.create_task(self._accept(listener, limit, group)) for listener in self._listeners.values()
            ]
            await draining.wait()
            for task in accepting:
                task.cancel()
            for listener in self._listeners.values():
                listener.socket.close()
            await self._dismiss()

    async def _dismiss(self) -> None:
        """Ask the sessions to leave, spread over half of the drain time."""
        waiting = list(self._sessions)
        step = _STAGGER * self.process.settings.process.drain / max(1, len(waiting))
        for session in waiting:
            session.leave()
            await asyncio.sleep(min(step, 0.05))
        for session in self._sessions:  # who connected while we asked
            session.leave()

    async def _accept(self, listener: _Listener, limit: ConnectionLimit, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(listener.socket)
            except OSError as error:
                _log.warning("accept_failed", reason=str(error))
                await asyncio.sleep(_ACCEPT_PAUSE)
                continue
            client = _client(address[0])
            if not limit.enter(client):
                _turn_away(sock, tls=listener.tls)
                continue
            group.create_task(self._serve(sock, client, limit, tls=listener.tls))

    async def _serve(self, sock: socket.socket, client: str, limit: ConnectionLimit, *, tls: bool) -> None:
        try:
            ending = await self._session(sock, client, tls=tls)
            metrics.SESSIONS_TOTAL.labels(ending.value).inc()
        finally:
            limit.leave(client)

    async def _session(self, sock: socket.socket, client: str, *, tls: bool) -> Ending:
        connection = Connection(write_seconds=self.process.settings.session.write)
        try:
            await self._connect(connection, sock, tls=tls)
        except (OSError, ssl.SSLError) as error:
            _log.debug("handshake_failed", client=client, reason=type(error).__name__)
            sock.close()
            return Ending.GONE
        self._numbers += 1
        session = Session(self.process, connection, client)
        self._sessions.add(session)
        try:
            with ids(session=self._numbers):
                return await session.run()
        finally:
            self._sessions.discard(session)

    async def _connect(self, connection: Connection, sock: socket.socket, *, tls: bool) -> None:
        """Give the socket to the connection, after the handshake when it has implicit TLS (RFC 8314)."""
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        context = self.process.tls.context if tls and self.process.tls is not None else None
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: connection, sock, ssl=context, ssl_handshake_timeout=_HANDSHAKE_SECONDS if context else None
        )
        if context is not None:
            metrics.TLS.labels(connection.tls_version).inc()


def _bound(where: Listen) -> socket.socket:
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    listener = socket.create_server((where.host, where.port), family=family, backlog=_BACKLOG)
    listener.setblocking(False)
    return listener


def _client(host: str) -> str:
    """The peer's address in one spelling, so that limits count it once."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _turn_away(sock: socket.socket, *, tls: bool) -> None:
    """One session too many: say so where it can be said without waiting."""
    metrics.SESSIONS_TOTAL.labels(Ending.REFUSED.value).inc()
    with contextlib.closing(sock), contextlib.suppress(OSError):
        sock.setblocking(False)
        if not tls:
            sock.send(responses.bye("Too many connections, try again later", response_codes.UNAVAILABLE))
