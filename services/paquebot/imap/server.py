"""Runs a session for each connection that the listeners let in, and says BYE to all of them before the end."""

import asyncio
import functools
from dataclasses import dataclass, field

from paquebot.imap import metrics
from paquebot.imap.connection import ImapConnection
from paquebot.imap.context import ServerContext
from paquebot.imap.metrics import SessionEnd
from paquebot.imap.session import Session
from paquebot.observability.log import ids
from paquebot.observability.metrics import tls_version
from paquebot.runtime.net.connection import LongAhead
from paquebot.runtime.net.listeners import AcceptedConnection, Listeners, connect, dismiss, displaced
from paquebot.runtime.net.proxy import Proxies
from paquebot.runtime.net.slots import ConnectionSlot, ConnectionSlots
from paquebot.wire.imap import response_codes, responses

# RFC 2971 §3.3: an ID, which comes before the login, has up to 30 values of 1,024 bytes. Clients send far less.
_LONG_AHEAD, _LONG_AHEAD_CLIENTS = 40 * 1024, 64


@dataclass(slots=True)
class ImapServer:
    """Open with `listen`, serve with `run`."""

    process: ServerContext
    _listeners: Listeners = field(init=False)
    _sessions: set[Session] = field(default_factory=set)
    _long_ahead: LongAhead = field(default_factory=lambda: LongAhead(_LONG_AHEAD, _LONG_AHEAD_CLIENTS))
    _numbers: int = 0

    def __post_init__(self) -> None:
        self._listeners = Listeners(
            ConnectionSlots.of_logins(self.process.settings.session.slots),
            self._serve,
            _turn_away,
            Proxies(self.process.settings.proxy),
            shared=self.process.settings.process.workers > 1,
        )

    def listen(self) -> None:
        """Bind every listener of the settings. Raises OSError."""
        settings = self.process.settings.listen
        self._listeners.listen("imap", settings.imap, tls=False)
        self._listeners.listen("imaps", settings.imaps, tls=True)

    def port(self, name: str) -> int:
        """The port of the listener `imap` or `imaps`."""
        return self._listeners.port(name)

    @property
    def sessions(self) -> int:
        """Sessions now."""
        return len(self._sessions)

    async def run(self, draining: asyncio.Event) -> None:
        """Serve until `draining`, then end the sessions within the drain time."""
        await self._listeners.run(draining, lambda: dismiss(self._sessions, self.process.settings.process.drain))

    def close(self) -> None:
        """Stop listening; idempotent."""
        self._listeners.close()

    async def _serve(self, arrival: AcceptedConnection, slot: ConnectionSlot) -> None:
        ending = await self._session(arrival, slot)
        metrics.ENDED.labels(ending.value).inc()

    async def _session(self, arrival: AcceptedConnection, slot: ConnectionSlot) -> SessionEnd:
        settings = self.process.settings.session
        connection = ImapConnection(
            write_seconds=settings.write, write_rate=settings.write_rate, long_ahead=self._long_ahead
        )
        context = self.process.tls.context if arrival.tls and self.process.tls is not None else None
        if arrival.early:
            connection.data_received(arrival.early)
        if not await connect(arrival, connection, context):
            return SessionEnd.GONE
        if context is not None:
            metrics.TLS.labels(tls_version(connection.tls_version)).inc()
        self._numbers += 1
        session = Session(self.process, connection, arrival.client, slot)
        self._sessions.add(session)
        slot.offer(functools.partial(displaced, session, arrival.socket))
        try:
            with ids(session=self._numbers):
                return await session.run()
        finally:
            self._sessions.discard(session)


def _turn_away(arrival: AcceptedConnection) -> None:
    """One session too many: say so where it can be said without waiting."""
    metrics.ENDED.labels(SessionEnd.REFUSED.value).inc()
    if not arrival.tls:
        arrival.socket.send(responses.bye("Too many connections, try again later", response_codes.UNAVAILABLE))
