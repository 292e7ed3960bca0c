"""The listeners and their sessions: connection limits, start, drain."""

import asyncio
import ipaddress
import os
import socket
from collections.abc import Sequence

from paquebot.observability.log import Log
from paquebot.runtime.limits import ConnectionLimit
from paquebot.runtime.settings import Listen, Network
from paquebot.smtp_ingress import metrics
from paquebot.smtp_ingress.commands import COMMANDS
from paquebot.smtp_ingress.connection import Connection
from paquebot.smtp_ingress.conversation import Conversation, Services
from paquebot.smtp_ingress.session import Role, Session
from paquebot.smtp_ingress.settings import ListenSettings
from paquebot.wire.smtp import replies

_log = Log("paquebot.smtp")
_BACKLOG = 512
_ACCEPT_AGAIN_SECONDS = 0.1


class _Seat:
    """A connection's place among the connections; given back once, whoever is first to do it."""

    __slots__ = ("_address", "_limit")

    def __init__(self, limit: ConnectionLimit, address: str) -> None:
        self._limit: ConnectionLimit | None = limit
        self._address = address

    def leave(self) -> None:
        if self._limit is not None:
            self._limit.leave(self._address)
            self._limit = None


class SmtpServer:
    """Every listener of the process. `start`, then `drain` at the end."""

    def __init__(self, services: Services, relay_clients: Sequence[Network]) -> None:
        self._services = services
        self._relay_clients = relay_clients
        self._limit = ConnectionLimit(services.sessions.connections, services.sessions.per_client)
        self._listeners: list[tuple[Role, socket.socket]] = []
        self._servers: list[asyncio.Server] = []
        self._acceptors: list[asyncio.Future[None]] = []
        self._handshakes: set[asyncio.Future[None]] = set()
        self._sessions: dict[Connection, asyncio.Task[None]] = {}
        self._draining = False

    async def start(self, listen: ListenSettings) -> None:
        """Open every listener. Raises OSError."""
        for role, addresses in (
            (Role.MX, listen.mx),
            (Role.SUBMISSION, listen.submission),
            (Role.SUBMISSIONS, listen.submissions),
        ):
            for address in addresses:
                await self._open(role, address)

    async def _open(self, role: Role, address: Listen) -> None:
        loop = asyncio.get_running_loop()
        listener = _listening(address)
        self._listeners.append((role, listener))
        if role is Role.SUBMISSIONS:
            self._acceptors.append(asyncio.ensure_future(self._accept_tls(role, listener)))
        else:
            server = await loop.create_server(lambda: self._connection(role, None), sock=listener, backlog=_BACKLOG)
            self._servers.append(server)
        _log.info("listening", listener=role.value, address=str(address), port=_port(listener))

    def _connection(self, role: Role, seat: _Seat | None) -> Connection:
        loop = asyncio.get_running_loop()
        return Connection(lambda it: self._serve(it, role, seat), loop, write_seconds=self._services.timeouts.write)

    # --- implicit TLS (RFC 8314 §3) ---

    async def _accept_tls(self, role: Role, listener: socket.socket) -> None:
        """Accept by hand: the limits hold before a handshake, which costs more than all the rest."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, address = await loop.sock_accept(listener)
            except OSError as error:  # no file descriptors, or a client that went away at once
                _log.warning("not_accepted", listener=role.value, reason=str(error.strerror))
                await asyncio.sleep(_ACCEPT_AGAIN_SECONDS)
                continue
            seat = self._seat(address[0])
            if seat is None:
                metrics.REFUSED.labels(role.value).inc()
                client.close()
                continue
            task = asyncio.ensure_future(self._shake_hands(role, client, seat))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, role: Role, client: socket.socket, seat: _Seat) -> None:
        """The handshake; after it the session has the seat. A PROXY header would be read before."""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._connection(role, seat),
                client,
                ssl=self._services.tls,
                ssl_handshake_timeout=self._services.timeouts.handshake,
            )
        except (OSError, EOFError):  # ssl.SSLError, a reset, a timeout
            metrics.TLS.labels(role.value, "failed").inc()
            seat.leave()
            client.close()
        except asyncio.CancelledError:
            seat.leave()
            client.close()
            raise

    # --- sessions ---

    def ports(self, role: Role) -> list[int]:
        """Where the listeners of a role are."""
        return [_port(listener) for found, listener in self._listeners if found is role]

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    def _seat(self, address: str) -> _Seat | None:
        """A place among the connections, if there is one."""
        return _Seat(self._limit, address) if not self._draining and self._limit.enter(address) else None

    async def _serve(self, connection: Connection, role: Role, seat: _Seat | None) -> None:
        """`seat` is None unless the connection has one already."""
        if connection.transport is None:  # it ended before its task began
            if seat is not None:
                seat.leave()
            return
        # A PROXY header (its reading belongs here, before anything else) would replace this address.
        address, port = connection.peer
        seat = seat or self._seat(address)
        if seat is None:
            await self._turn_away(connection, role)
            return
        task = asyncio.current_task()
        assert task is not None
        self._sessions[connection] = task
        session = Session(os.urandom(6).hex(), role, address, port, self._is_relay_client(role, address))
        metrics.SESSIONS.labels(role.value).inc()
        metrics.OPEN_SESSIONS.labels(role.value).inc()
        try:
            end = await Conversation(connection, session, self._services, COMMANDS).run()
            metrics.ENDS.labels(end.value).inc()
            _log.debug("session_ended", session=session.id, client=address, listener=role.value, reason=end.value)
        finally:
            metrics.OPEN_SESSIONS.labels(role.value).dec()
            seat.leave()
            del self._sessions[connection]

    async def _turn_away(self, connection: Connection, role: Role) -> None:
        metrics.REFUSED.labels(role.value).inc()
        connection.reply(replies.SHUTTING_DOWN if self._draining else replies.TOO_MANY_CONNECTIONS)
        await connection.close()

    def _is_relay_client(self, role: Role, address: str) -> bool:
        if role is not Role.MX or not self._relay_clients:
            return False
        ip = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return any(ip in network for network in self._relay_clients)

    async def drain(self, seconds: float) -> None:
        """Take no more connections, let transactions finish, end idle sessions with 421; after `seconds`, all."""
        self._draining = True
        for acceptor in (*self._acceptors, *self._handshakes):
            acceptor.cancel()
        await asyncio.gather(*self._acceptors, *self._handshakes, return_exceptions=True)
        for server in self._servers:
            server.close()
        for _, listener in self._listeners:
            listener.close()
        for connection in list(self._sessions):
            connection.begin_drain()
        left = list(self._sessions.values())
        if left:
            _, late = await asyncio.wait(left, timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                _log.warning("sessions_cut_off", sessions=len(late))
                await asyncio.wait(late)


def _listening(address: Listen) -> socket.socket:
    """Raises OSError."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)
    listener.setblocking(False)
    return listener


def _port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])
