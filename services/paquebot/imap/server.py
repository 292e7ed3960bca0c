"""The IMAP server: its listeners, its sessions, and its response to a client that gets no session."""

import enum

from paquebot.imap import metrics
from paquebot.imap.connection import ImapConnection
from paquebot.imap.context import ServerContext
from paquebot.imap.metrics import SessionEnd
from paquebot.imap.session import Session
from paquebot.observability.metrics import tls_version
from paquebot.runtime.net.connection import LongAhead
from paquebot.runtime.net.proxy import Proxies
from paquebot.runtime.net.server import ClientServer, ConnectedClient
from paquebot.runtime.net.slots import ConnectionSlots
from paquebot.wire.imap import response_codes, responses

# RFC 2971 §3.3: an ID, which comes before the login, has up to 30 values of 1,024 bytes. Clients send far less.
_LONG_AHEAD, _LONG_AHEAD_CLIENTS = 40 * 1024, 64


class ImapServer(ClientServer[ImapConnection, Session]):
    """One for a process."""

    def __init__(self, context: ServerContext) -> None:
        settings = context.settings
        super().__init__(
            ConnectionSlots.of_logins(settings.session.slots),
            Proxies(settings.proxy),
            tls=context.tls.context if context.tls is not None else None,
            shared=settings.process.workers > 1,
            drain=settings.process.drain,
        )
        self.context = context
        self._long_ahead = LongAhead(_LONG_AHEAD, _LONG_AHEAD_CLIENTS)

    def listen(self) -> None:
        """Bind every listener of the settings. Raises OSError."""
        settings = self.context.settings.listen
        self.add_listener("imap", settings.imap)
        self.add_listener("imaps", settings.imaps, tls=True)

    def make_connection(self) -> ImapConnection:
        settings = self.context.settings.session
        return ImapConnection(write_timeout=settings.write, write_rate=settings.write_rate, long_ahead=self._long_ahead)

    def make_session(self, connection: ImapConnection, client: ConnectedClient) -> Session:
        if (version := connection.tls_version) is not None:
            metrics.TLS.labels(tls_version(version)).inc()
        return Session(self.context, connection, client)

    def refuse(self, listener: str, *, draining: bool) -> bytes:
        metrics.ENDED.labels(SessionEnd.REFUSED.value).inc()
        return responses.bye("Too many connections, try again later", response_codes.UNAVAILABLE)

    def connecting_failed(self, listener: str) -> None:
        metrics.ENDED.labels(SessionEnd.DISCONNECTED.value).inc()

    def session_ended(self, client: ConnectedClient, end: enum.Enum | None) -> None:
        metrics.ENDED.labels((end or SessionEnd.DISCONNECTED).value).inc()
