"""The listeners and their sessions: connection limits, start, drain."""

import asyncio
import functools
import ipaddress
import random
import socket
from collections.abc import Sequence

from paquebot.observability.log import Log
from paquebot.runtime.net.listeners import cut_off
from paquebot.runtime.net.proxy import ClientAddress, Proxies, close_if_cancelled, one_spelling
from paquebot.runtime.net.slots import LOGIN, MAIL, ConnectionSlot, ConnectionSlots
from paquebot.runtime.net.sockets import BACKLOG, bound, port_of
from paquebot.runtime.settings import Network
from paquebot.smtp_ingress import metrics
from paquebot.smtp_ingress.commands import COMMANDS
from paquebot.smtp_ingress.connection import SmtpConnection
from paquebot.smtp_ingress.context import ServerContext
from paquebot.smtp_ingress.session import Session
from paquebot.smtp_ingress.settings import ListenSettings
from paquebot.smtp_ingress.state import Role, SessionState
from paquebot.wire.smtp import replies

_log = Log("paquebot.smtp")
_ACCEPT_AGAIN_SECONDS = 0.1


class SmtpServer:
    """Every listener of the process. `start`, then `drain` at the end."""

    def __init__(
        self, services: ServerContext, relay_clients: Sequence[Network], proxies: Proxies, *, shared: bool = False
    ) -> None:
        """`shared`: other workers listen on the same ports."""
        self._services = services
        self._relay_clients = relay_clients
        self._proxies = proxies
        self._shared = shared
        self._slots = ConnectionSlots.of_mail_and_logins(services.sessions.slots)
        self._listeners: list[tuple[Role, socket.socket]] = []
        self._servers: list[asyncio.Server] = []
        self._acceptors: list[asyncio.Future[None]] = []
        self._beginning: set[asyncio.Future[None]] = set()
        self._sessions: dict[SmtpConnection, asyncio.Task[None]] = {}
        self._draining = False

    async def start(self, listen: ListenSettings) -> None:
        """Open every listener. Raises OSError."""
        for role, addresses in (
            (Role.MX, listen.mx),
            (Role.SUBMISSION, listen.submission),
            (Role.SUBMISSIONS, listen.submissions),
        ):
            for address in addresses:
                await self._open(role, bound(address, shared=self._shared, beside=addresses))

    async def _open(self, role: Role, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._listeners.append((role, listener))
        if role is Role.SUBMISSIONS or self._proxies:
            self._acceptors.append(asyncio.ensure_future(self._accept(role, listener)))
        else:
            server = await loop.create_server(
                lambda: self._connection(role, None, None), sock=listener, backlog=BACKLOG
            )
            self._servers.append(server)
        _log.info("listening", listener=role.value, address=listener.getsockname()[0], port=port_of(listener))

    def _connection(self, role: Role, slot: ConnectionSlot | None, origin: ClientAddress | None) -> SmtpConnection:
        """`origin` is None where it is the peer."""
        loop = asyncio.get_running_loop()
        connection = SmtpConnection(
            lambda it: self._serve(it, role, slot, origin), loop, write_seconds=self._services.timeouts.write
        )
        if origin is not None and origin.early:
            connection.unread(origin.early)
        return connection

    # --- by hand: implicit TLS (RFC 8314 §3), and whatever a proxy passes on ---

    async def _accept(self, role: Role, listener: socket.socket) -> None:
        """The limits hold before a handshake, which costs more than all the rest, and for the client of a proxy."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, address = await loop.sock_accept(listener)
            except OSError as error:  # no file descriptors, or a client that went away at once
                _log.warning("not_accepted", listener=role.value, reason=str(error.strerror))
                await asyncio.sleep(_ACCEPT_AGAIN_SECONDS)
                continue
            task = asyncio.ensure_future(self._begin(role, client, ClientAddress(one_spelling(address[0]), address[1])))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)
            task.add_done_callback(functools.partial(close_if_cancelled, client))

    async def _begin(self, role: Role, client: socket.socket, origin: ClientAddress) -> None:
        """A PROXY header, if there is one to read; then the slot, the handshake, and the session has the slot."""
        slot: ConnectionSlot | None = None
        begun = False
        try:
            found = await self._origin(role, client, origin)
            if found is None:
                return
            slot = self._slot(role, found.address)
            if slot is not None:
                slot.offer(functools.partial(cut_off, client))  # until the session can say it better
            if role is Role.SUBMISSIONS and slot is None:
                metrics.REFUSED.labels(role.value).inc()
                return
            tls = self._services.tls if role is Role.SUBMISSIONS else None
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._connection(role, slot, found),
                client,
                ssl=tls,
                ssl_handshake_timeout=self._services.timeouts.handshake if tls is not None else None,
            )
            begun = True
        except (OSError, EOFError):  # ssl.SSLError, a reset, a timeout
            if role is Role.SUBMISSIONS:
                metrics.TLS.labels(role.value, "failed").inc()
        finally:
            if not begun:
                client.close()
                if slot is not None:
                    slot.release()

    async def _origin(self, role: Role, client: socket.socket, peer: ClientAddress) -> ClientAddress | None:
        if not self._proxies.trusts(peer.address):
            return peer
        return await self._proxies.origin(client, peer.address, peer.port, tls=role is Role.SUBMISSIONS)

    # --- sessions ---

    def ports(self, role: Role) -> list[int]:
        """Where the listeners of a role are."""
        return [port_of(listener) for found, listener in self._listeners if found is role]

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    def _slot(self, role: Role, address: str) -> ConnectionSlot | None:
        """A place among the connections, if there is one."""
        return None if self._draining else self._slots.acquire(address, LOGIN if role.takes_logins else MAIL)

    async def _serve(
        self, connection: SmtpConnection, role: Role, slot: ConnectionSlot | None, origin: ClientAddress | None
    ) -> None:
        """`slot` and `origin` are None unless the connection has them already."""
        if connection.transport is None:  # it ended before its task began
            if slot is not None:
                slot.release()
            return
        address, port = (origin.address, origin.port) if origin is not None else connection.peer
        if not address:  # reset before its task began, so that the system does not say any more whose it was
            await connection.close()
            return
        slot = slot or self._slot(role, address)
        if slot is None:
            await self._turn_away(connection, role)
            return
        try:
            await self._converse(connection, role, slot, ClientAddress(address, port))
        finally:
            slot.release()

    async def _converse(
        self, connection: SmtpConnection, role: Role, slot: ConnectionSlot, origin: ClientAddress
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        session_id, address = f"{random.getrandbits(48):012x}", origin.address
        session = SessionState(session_id, role, address, origin.port, self._is_relay_client(role, address), slot)
        slot.offer(connection.displace)
        self._sessions[connection] = task
        metrics.SESSIONS_BY_ROLE[role].inc()
        metrics.OPEN_SESSIONS_BY_ROLE[role].inc()
        try:
            end = await Session(connection, session, self._services, COMMANDS).run()
            metrics.SESSIONS_ENDED_BY_REASON[end].inc()
            _log.debug("session_ended", session=session.id, client=address, listener=role.value, reason=end.value)
        finally:
            metrics.OPEN_SESSIONS_BY_ROLE[role].dec()
            del self._sessions[connection]

    async def _turn_away(self, connection: SmtpConnection, role: Role) -> None:
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
        for acceptor in (*self._acceptors, *self._beginning):
            acceptor.cancel()
        await asyncio.gather(*self._acceptors, *self._beginning, return_exceptions=True)
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
