"""Runs a session for each connection that the listeners let in, and asks all of them to leave before the end."""

import asyncio
import functools
from dataclasses import dataclass, field

from paquebot.observability.log import ids
from paquebot.observability.metrics import tls_version
from paquebot.pop3 import metrics
from paquebot.pop3.connection import Pop3Connection
from paquebot.pop3.context import ServerContext
from paquebot.pop3.metrics import SessionEnd
from paquebot.pop3.session import Session
from paquebot.runtime.net.listeners import AcceptedConnection, Listeners, connect, dismiss, displaced
from paquebot.runtime.net.proxy import Proxies
from paquebot.runtime.net.slots import ConnectionSlot, ConnectionSlots
from paquebot.wire.pop3 import Code, err


@dataclass(slots=True)
class Pop3Server:
    """Open with `listen`, serve with `run`."""

    process: ServerContext
    _listeners: Listeners = field(init=False)
    _sessions: set[Session] = field(default_factory=set)

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
        self._listeners.listen("pop3", settings.pop3, tls=False)
        self._listeners.listen("pop3s", settings.pop3s, tls=True)

    def port(self, name: str) -> int:
        """The port of the first listener `pop3` or `pop3s`."""
        return self._listeners.port(name)

    async def run(self, draining: asyncio.Event) -> None:
        """Serve until `draining`, then end the sessions within the drain time."""
        await self._listeners.run(draining, lambda: dismiss(self._sessions, self.process.settings.process.drain))

    def close(self) -> None:
        """Stop listening; idempotent."""
        self._listeners.close()

    async def _serve(self, arrival: AcceptedConnection, slot: ConnectionSlot) -> None:
        ending = await self._session(arrival, slot)
        metrics.SESSIONS_ENDED.labels(ending.value).inc()

    async def _session(self, arrival: AcceptedConnection, slot: ConnectionSlot) -> SessionEnd:
        settings = self.process.settings.session
        connection = Pop3Connection(write_seconds=settings.write, write_rate=settings.write_rate)
        context = self.process.tls.context if arrival.tls and self.process.tls is not None else None
        if arrival.early:
            connection.data_received(arrival.early)
        if not await connect(arrival, connection, context):
            return SessionEnd.GONE
        if context is not None:
            metrics.TLS.labels(tls_version(connection.tls_version)).inc()
        session = Session(self.process, connection, arrival.client, slot)
        self._sessions.add(session)
        slot.offer(functools.partial(displaced, session, arrival.socket))
        try:
            with ids(session=session.id):
                return await session.run()
        finally:
            self._sessions.discard(session)


def _turn_away(arrival: AcceptedConnection) -> None:
    """One session too many: say so where it can be said without waiting."""
    metrics.SESSIONS_ENDED.labels(SessionEnd.REFUSED.value).inc()
    if not arrival.tls:
        arrival.socket.send(err("Too many connections, try again later", Code.SYS_TEMP))
