"""Accepts connections within the limits, runs a session for each, and asks all of them to leave before the end.

Limits are applied before a TLS handshake begins. On drain, a command under way is finished first, and sessions are
asked to end one after another, so that their clients do not all come to the next pod in the same moment.
"""

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from dataclasses import dataclass, field

from paquebot.observability.log import Log, ids
from paquebot.pop3 import metrics
from paquebot.pop3.connection import Connection
from paquebot.pop3.metrics import Ending
from paquebot.pop3.process import Process
from paquebot.pop3.session import Session
from paquebot.runtime.limits import ConnectionLimit
from paquebot.runtime.settings import Listen
from paquebot.wire.pop3 import Code, err

_log = Log("paquebot.pop3.server")
_BACKLOG = 1024
_HANDSHAKE_SECONDS = 15.0
_ACCEPT_PAUSE = 0.1  # when the process is out of file descriptors
_STAGGER = 0.5  # of the drain time
_LONGEST_STEP = 0.05


@dataclass(frozen=True, slots=True)
class _Listener:
    name: str
    socket: socket.socket
    tls: bool


@dataclass(slots=True)
class Pop3Server:
    """Open with `listen`, serve with `run`."""

    process: Process
    _listeners: list[_Listener] = field(default_factory=list)
    _sessions: set[Session] = field(default_factory=set)

    def listen(self) -> None:
        """Bind every listener of the settings. Raises OSError."""
        settings = self.process.settings.listen
        for name, places, tls in (("pop3", settings.pop3, False), ("pop3s", settings.pop3s, True)):
            for where in places:
                listener = _Listener(name, _bound(where), tls)
                self._listeners.append(listener)
                _log.info("listening", listener=name, port=_port(listener))

    def port(self, name: str) -> int:
        """The port of the first listener `pop3` or `pop3s`."""
        return next(_port(listener) for listener in self._listeners if listener.name == name)

    async def run(self, draining: asyncio.Event) -> None:
        """Serve until `draining`, then end the sessions within the drain time."""
        session = self.process.settings.session
        limit = ConnectionLimit(session.total, session.per_client)
        async with asyncio.TaskGroup() as group:
            accepting = [group.create_task(self._accept(listener, limit, group)) for listener in self._listeners]
            await draining.wait()
            for task in accepting:
                task.cancel()
            await asyncio.wait(accepting)
            self.close()
            await self._dismiss()

    def close(self) -> None:
        """Stop listening; idempotent."""
        for listener in self._listeners:
            listener.socket.close()

    async def _dismiss(self) -> None:
        """Ask the sessions to leave, spread over a part of the drain time."""
        waiting = list(self._sessions)
        step = min(_LONGEST_STEP, _STAGGER * self.process.settings.process.drain / max(1, len(waiting)))
        for session in waiting:
            session.leave()
            await asyncio.sleep(step)
        for session in self._sessions:  # whose handshake ended while we asked
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
            if limit.enter(client):
                group.create_task(self._serve(sock, client, limit, tls=listener.tls))
            else:
                _turn_away(sock, tls=listener.tls)

    async def _serve(self, sock: socket.socket, client: str, limit: ConnectionLimit, *, tls: bool) -> None:
        try:
            ending = await self._session(sock, client, tls=tls)
            metrics.SESSIONS_ENDED.labels(ending.value).inc()
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
        session = Session(self.process, connection, client)
        self._sessions.add(session)
        try:
            with ids(session=session.id):
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


def _port(listener: _Listener) -> int:
    return int(listener.socket.getsockname()[1])


def _client(host: str) -> str:
    """The peer's address in one spelling, so that limits count it once."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _turn_away(sock: socket.socket, *, tls: bool) -> None:
    """One session too many: say so where it can be said without waiting."""
    metrics.SESSIONS_ENDED.labels(Ending.REFUSED.value).inc()
    with contextlib.closing(sock), contextlib.suppress(OSError):
        sock.setblocking(False)
        if not tls:
            sock.send(err("Too many connections, try again later", Code.SYS_TEMP))
