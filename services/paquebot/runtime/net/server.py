"""A server of one mail protocol: connections from its listeners become sessions, within limits, until it drains.

A connection gets its slot before a TLS handshake begins and before its session does; without one it is turned away. On
drain the sessions are asked to leave one after another, so that their clients do not all come to the next pod in the
same moment; what is under way is finished first. Each session has a ULID, which is in all of its log lines: no two
sessions of all pods have the same one.
"""

import abc
import asyncio
import contextlib
import enum
import functools
import socket
import ssl
from collections.abc import Collection
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from paquebot.observability.log import Log, bind_ids
from paquebot.runtime.net.connection import ClientConnection
from paquebot.runtime.net.listeners import Listener, Listeners
from paquebot.runtime.net.proxy import ClientAddress, Proxies, close_if_cancelled
from paquebot.runtime.net.slots import LOGIN, ConnectionSlot, ConnectionSlots
from paquebot.runtime.process.tasks import report_failure
from paquebot.runtime.settings import Listen
from paquebot.runtime.ulid import new_ulid

_log = Log("paquebot.server")
_HANDSHAKE_SECONDS = 15.0
_CLOSING_SECONDS = 3.0  # of the drain time, to close everything else after the sessions
_LEAVING_PART = 0.5  # of the drain time, over which the sessions are asked to leave
_LONGEST_STEP = 0.05  # seconds from one session that is asked to the next


class ServedSession(Protocol):
    """A session as its server knows it."""

    async def run(self) -> enum.Enum:
        """Serve the client to the end; return why it ended."""

    def leave(self) -> None:
        """End before the next command."""

    def displace(self) -> None:
        """The same, as another client needs the slot."""


C = TypeVar("C", bound=ClientConnection)
S = TypeVar("S", bound=ServedSession)


@dataclass(frozen=True, slots=True)
class ConnectedClient:
    """The client of a session. `id`: the session's. `address`, `port`: its own, where a trusted proxy gave them."""

    id: str
    address: str
    port: int
    listener: str
    slot: ConnectionSlot


class ClientServer(abc.ABC, Generic[C, S]):
    """`listen`, then `run`. What a protocol says itself is in the abstract methods; none of them may wait."""

    def __init__(
        self,
        slots: ConnectionSlots,
        proxies: Proxies,
        *,
        tls: ssl.SSLContext | None,
        shared: bool,
        drain: float,
        handshake_timeout: float = _HANDSHAKE_SECONDS,
    ) -> None:
        """`shared`: other workers listen on the same ports. `drain`: seconds for the end of the process."""
        self._drain_timeout = max(1.0, drain - _CLOSING_SECONDS)
        self.slots = slots
        self.proxies = proxies
        self._tls = tls
        self._handshake_timeout = handshake_timeout
        self._listeners = Listeners(self._new_connection, self._on_accepted, shared=shared, proxied=bool(proxies))
        self._draining = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        """Those of them that have no session yet: they read a PROXY header, or are in a handshake."""
        self._sessions: set[S] = set()

    # --- the protocol ---

    @abc.abstractmethod
    def make_connection(self) -> C:
        """A connection, which gets its transport later."""

    @abc.abstractmethod
    def make_session(self, connection: C, client: ConnectedClient) -> S:
        """The session of a client that is connected and has a slot."""

    @abc.abstractmethod
    def refuse(self, listener: str, *, draining: bool) -> bytes:
        """Count a client that gets no slot. Returns what to say to it."""

    @abc.abstractmethod
    def connecting_failed(self, listener: str) -> None:
        """Count a client that was lost before it had a session: at once, or in its handshake."""

    @abc.abstractmethod
    def session_ended(self, client: ConnectedClient, end: enum.Enum | None) -> None:
        """Count the end of a session; None: it was cut off."""

    # --- listeners ---

    def add_listener(self, name: str, places: Collection[Listen], *, tls: bool = False, kind: str = LOGIN) -> None:
        """Bind listeners. Raises OSError."""
        self._listeners.listen(name, places, tls=tls, kind=kind)

    def port(self, name: str) -> int:
        """The port of the first listener of that name."""
        return self._listeners.ports(name)[0]

    @property
    def sessions(self) -> Collection[S]:
        """The sessions now."""
        return self._sessions

    async def start(self) -> None:
        """Accept connections; idempotent."""
        await self._listeners.start()

    async def run(self, draining: asyncio.Event) -> None:
        """Serve until `draining`, then end the sessions."""
        await self.start()
        await draining.wait()
        await self.drain(self._drain_timeout)

    async def drain(self, timeout: float) -> None:
        """Accept no more, and let the sessions end what is under way; cut off the rest after `timeout` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        self._draining = True
        await self._listeners.stop()
        await self._ask_to_leave(timeout)
        for task in self._connecting:
            task.cancel()
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=max(0.0, deadline - loop.time()))
        for task in late:
            task.cancel()
        if late:
            _log.warning("sessions_aborted", sessions=len(late))
            await asyncio.wait(late)

    async def close(self) -> None:
        """Cut off all sessions; idempotent."""
        await self.drain(0.0)

    async def _ask_to_leave(self, timeout: float) -> None:
        waiting = list(self._sessions)
        step = min(_LONGEST_STEP, _LEAVING_PART * timeout / max(1, len(waiting)))
        for session in waiting:
            session.leave()
            await asyncio.sleep(step)

    # --- connections ---

    def _new_connection(self, listener: Listener) -> C:
        """For a connection in the clear that the event loop has accepted."""
        connection = self.make_connection()
        connection.on_connected = functools.partial(self._on_connected, listener, connection)
        return connection

    def _on_connected(self, listener: Listener, connection: C) -> None:
        address, port = connection.peer
        if not address:  # it was reset meanwhile
            connection.abort()
            self.connecting_failed(listener.name)
            return
        slot = self._acquire(listener, address)
        if slot is None:
            connection.close_with(self.refuse(listener.name, draining=self._draining))
            return
        self._begin(self._serve(listener, connection, ClientAddress(address, port), slot))

    def _on_accepted(self, listener: Listener, sock: socket.socket, peer: ClientAddress) -> None:
        task = self._begin(self._connect(listener, sock, peer))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        task.add_done_callback(functools.partial(close_if_cancelled, sock))

    def _begin(self, work: "asyncio._CoroutineLike[None]") -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            report_failure("session", error)

    def _acquire(self, listener: Listener, address: str) -> ConnectionSlot | None:
        return None if self._draining else self.slots.acquire(address, listener.kind)

    async def _connect(self, listener: Listener, sock: socket.socket, peer: ClientAddress) -> None:
        """The PROXY header, if there is one to read; then the slot, the handshake and the session."""
        client: ClientAddress | None = peer
        slot: ConnectionSlot | None = None
        connection: C | None = None
        try:
            if self.proxies.trusts(peer.address):
                client = await self.proxies.origin(sock, peer.address, peer.port, tls=listener.tls)
            if client is None:
                return
            slot = self._acquire(listener, client.address)
            if slot is None:
                self._turn_away(listener, sock)
                return
            slot.offer(functools.partial(cut_off, sock))  # until the session can say it
            connection = await self._connected(listener, sock, client)
        finally:
            if connection is None:
                sock.close()
                if slot is not None:
                    slot.release()
        if connection is not None:
            await self._serve(listener, connection, client, slot)

    def _turn_away(self, listener: Listener, sock: socket.socket) -> None:
        line = self.refuse(listener.name, draining=self._draining)
        if not listener.tls:  # else it could only be said after a handshake
            with contextlib.suppress(OSError):
                sock.send(line)

    async def _connected(self, listener: Listener, sock: socket.socket, client: ClientAddress) -> C | None:
        """The connection after its handshake, if it has one; None: that failed."""
        connection = self.make_connection()
        if client.early:
            connection.data_received(client.early)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=self._tls if listener.tls else None,
                ssl_handshake_timeout=self._handshake_timeout if listener.tls else None,
            )
        except (OSError, EOFError) as error:  # ssl.SSLError, a reset, a timeout
            _log.debug("connecting_failed", client=client.address, reason=type(error).__name__)
            self.connecting_failed(listener.name)
            return None
        return connection

    # --- sessions ---

    async def _serve(self, listener: Listener, connection: C, address: ClientAddress, slot: ConnectionSlot) -> None:
        client = ConnectedClient(new_ulid(), address.address, address.port, listener.name, slot)
        self._connecting.discard(asyncio.current_task())
        end: enum.Enum | None = None
        session: S | None = None
        try:
            session = self.make_session(connection, client)
            self._sessions.add(session)
            slot.offer(functools.partial(_displace, session, connection))
            if self._draining:
                session.leave()
            bind_ids(session=client.id)
            end = await session.run()
            _log.debug("session_ended", client=client.address, listener=client.listener, reason=end.value)
        finally:
            slot.release()
            if session is not None:
                self._sessions.discard(session)
                self.session_ended(client, end)


def _displace(session: ServedSession, connection: ClientConnection) -> None:
    """The session lost its slot: it says so, but has little time for it."""
    session.displace()
    connection.abort_after()


def cut_off(sock: socket.socket) -> None:
    """End the connection now, whatever reads and writes it."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
