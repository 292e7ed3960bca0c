"""Listening sockets of a process: accept within the limits, hand over, and ask all sessions to leave at the end.

Limits are applied before a TLS handshake begins. On drain, sessions are asked to end one after another, so that
their clients do not all come to the next pod in the same moment; what is under way is finished first.
"""

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol

from paquebot.observability.log import Log
from paquebot.runtime.net.proxy import ClientAddress, Proxies, close_if_cancelled, one_spelling
from paquebot.runtime.net.slots import ConnectionSlot, ConnectionSlots
from paquebot.runtime.net.sockets import bound, port_of
from paquebot.runtime.settings import Listen

_log = Log("paquebot.listeners")
_HANDSHAKE_SECONDS = 15.0
_ACCEPT_PAUSE = 0.1  # when the process is out of file descriptors
_FAREWELL_SECONDS = 2.0
_STAGGER = 0.5  # of the drain time
_LONGEST_STEP = 0.05


@dataclass(frozen=True, slots=True)
class AcceptedConnection:
    """An accepted socket. `client` is the peer's address, or the one that a trusted proxy told; `tls`: a handshake
    comes first (RFC 8314). `early`: the client's first bytes, where they were taken already."""

    socket: socket.socket
    client: str
    tls: bool
    early: bytes = b""


class Leaver(Protocol):
    """A session, as far as its end is concerned."""

    def leave(self) -> None:
        """End before the next command."""

    def displace(self) -> None:
        """The same, for another client needs the slot."""


@dataclass(frozen=True, slots=True)
class _Listener:
    name: str
    socket: socket.socket
    tls: bool


@dataclass(slots=True)
class Listeners:
    """`serve` has the arrival and its slot for their whole life; `turn_away` must not wait, and its arrival is closed
    after it."""

    slots: ConnectionSlots
    serve: Callable[[AcceptedConnection, ConnectionSlot], Awaitable[None]]
    turn_away: Callable[[AcceptedConnection], None]
    proxies: Proxies
    shared: bool = False
    """Other workers of this service listen on the same ports."""
    _proxied: set[asyncio.Task[None]] = field(default_factory=set)
    """Connections from trusted networks of which it is not known yet whose they are."""
    _open: list[_Listener] = field(default_factory=list)

    def listen(self, name: str, places: Collection[Listen], *, tls: bool) -> None:
        """Bind listeners. Raises OSError."""
        for place in places:
            listener = bound(place, shared=self.shared, beside=places)
            self._open.append(_Listener(name, listener, tls))
            _log.info("listening", listener=name, port=port_of(listener))

    def port(self, name: str) -> int:
        """The port of the first listener of that name."""
        return next(port_of(listener.socket) for listener in self._open if listener.name == name)

    def close(self) -> None:
        """Stop listening; idempotent."""
        for listener in self._open:
            listener.socket.close()

    async def run(self, draining: asyncio.Event, dismiss: Callable[[], Awaitable[None]]) -> None:
        """Accept until `draining`, then `dismiss` the sessions and wait for the last of them."""
        async with asyncio.TaskGroup() as group:
            accepting = [group.create_task(self._accept(listener, group)) for listener in self._open]
            await draining.wait()
            for task in accepting:
                task.cancel()
            if accepting:
                await asyncio.wait(accepting)
            for task in self._proxied:
                task.cancel()
            self.close()
            await dismiss()

    async def _accept(self, listener: _Listener, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(listener.socket)
            except OSError as error:
                _log.warning("accept_failed", reason=str(error))
                await asyncio.sleep(_ACCEPT_PAUSE)
                continue
            if self.proxies.trusts(address[0]):
                task = group.create_task(self._ask_proxy(listener, sock, address[:2], group))
                self._proxied.add(task)
                task.add_done_callback(self._proxied.discard)
                task.add_done_callback(functools.partial(close_if_cancelled, sock))
            else:
                self._admit(AcceptedConnection(sock, one_spelling(address[0]), listener.tls), group)

    async def _ask_proxy(
        self, listener: _Listener, sock: socket.socket, peer: tuple[str, int], group: asyncio.TaskGroup
    ) -> None:
        """The limits are the client's, so they wait for its address."""
        origin: ClientAddress | None = None
        try:
            origin = await self.proxies.origin(sock, one_spelling(peer[0]), peer[1], tls=listener.tls)
        finally:
            if origin is None:
                sock.close()
        if origin is not None:
            self._admit(AcceptedConnection(sock, origin.address, listener.tls, origin.early), group)

    def _admit(self, arrival: AcceptedConnection, group: asyncio.TaskGroup) -> None:
        slot = self.slots.acquire(arrival.client)
        if slot is None:
            self._refuse(arrival)
            return
        slot.offer(functools.partial(cut_off, arrival.socket))  # until a session can say it better
        group.create_task(self._serve(arrival, slot))

    async def _serve(self, arrival: AcceptedConnection, slot: ConnectionSlot) -> None:
        try:
            await self.serve(arrival, slot)
        finally:
            slot.release()

    def _refuse(self, arrival: AcceptedConnection) -> None:
        with contextlib.closing(arrival.socket), contextlib.suppress(OSError):
            arrival.socket.setblocking(False)
            self.turn_away(arrival)


async def connect(arrival: AcceptedConnection, protocol: asyncio.Protocol, context: ssl.SSLContext | None) -> bool:
    """Give the socket to `protocol`, after the handshake when `context` is given. False: that failed, all is closed."""
    sock = arrival.socket
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: protocol, sock, ssl=context, ssl_handshake_timeout=_HANDSHAKE_SECONDS if context else None
        )
    except (OSError, ssl.SSLError) as error:
        _log.debug("handshake_failed", client=arrival.client, reason=type(error).__name__)
        sock.close()
        return False
    return True


def cut_off(sock: socket.socket) -> None:
    """End the connection now, whoever reads and writes it."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def displaced(session: Leaver, sock: socket.socket) -> None:
    """The session has lost its slot: it says so, but has not long to do it."""
    session.displace()
    asyncio.get_running_loop().call_later(_FAREWELL_SECONDS, cut_off, sock)


async def dismiss(sessions: Collection[Leaver], drain: float) -> None:
    """Ask the sessions to leave, spread over a part of `drain` seconds. `sessions` may change meanwhile."""
    waiting = list(sessions)
    step = min(_LONGEST_STEP, _STAGGER * drain / max(1, len(waiting)))
    for session in waiting:
        session.leave()
        await asyncio.sleep(step)
    for session in list(sessions):  # whose handshake ended while we asked
        session.leave()
