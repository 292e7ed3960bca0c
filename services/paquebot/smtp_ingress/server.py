"""The listeners and their sessions: connection limits, start, drain."""

import asyncio
import ipaddress
import os
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


class SmtpServer:
    """Every listener of the process. `start`, then `drain` at the end."""

    def __init__(self, services: Services, relay_clients: Sequence[Network]) -> None:
        self._services = services
        self._relay_clients = relay_clients
        self._limit = ConnectionLimit(services.sessions.connections, services.sessions.per_client)
        self._listeners: list[tuple[Role, asyncio.Server]] = []
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
        write_seconds = self._services.timeouts.write

        def accept() -> Connection:
            return Connection(lambda connection: self._serve(connection, role), loop, write_seconds=write_seconds)

        server = await loop.create_server(accept, address.host, address.port, backlog=_BACKLOG)
        self._listeners.append((role, server))
        _log.info("listening", listener=role.value, address=str(address), port=_port(server))

    def ports(self, role: Role) -> list[int]:
        """Where the listeners of a role are."""
        return [_port(server) for found, server in self._listeners if found is role]

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    async def _serve(self, connection: Connection, role: Role) -> None:
        if connection.transport is None:  # it ended before its task began
            return
        # A PROXY header (its reading belongs here, before anything else) would replace this address.
        address, port = connection.peer
        if self._draining or not self._limit.enter(address):
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
            self._limit.leave(address)
            del self._sessions[connection]

    async def _turn_away(self, connection: Connection, role: Role) -> None:
        metrics.REFUSED.labels(role.value).inc()
        if role is not Role.SUBMISSIONS:  # there, nothing can be said before a handshake, which costs too much
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
        for _, server in self._listeners:
            server.close()
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


def _port(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])
