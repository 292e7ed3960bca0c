"""The POP3 server: its listeners, its sessions, and what it says to a client that gets no session."""

import enum

from paquebot.observability.metrics import tls_version
from paquebot.pop3 import metrics
from paquebot.pop3.connection import Pop3Connection
from paquebot.pop3.context import ServerContext
from paquebot.pop3.metrics import SessionEnd
from paquebot.pop3.session import Session
from paquebot.runtime.net.proxy import Proxies
from paquebot.runtime.net.server import ClientServer, ConnectedClient
from paquebot.runtime.net.slots import ConnectionSlots
from paquebot.wire.pop3 import Code, err


class Pop3Server(ClientServer[Pop3Connection, Session]):
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

    def listen(self) -> None:
        """Bind every listener of the settings. Raises OSError."""
        settings = self.context.settings.listen
        self.add_listener("pop3", settings.pop3)
        self.add_listener("pop3s", settings.pop3s, tls=True)

    def make_connection(self) -> Pop3Connection:
        settings = self.context.settings.session
        return Pop3Connection(write_timeout=settings.write, write_rate=settings.write_rate)

    def make_session(self, connection: Pop3Connection, client: ConnectedClient) -> Session:
        if (version := connection.tls_version) is not None:
            metrics.TLS.labels(tls_version(version)).inc()
        return Session(self.context, connection, client)

    def refuse(self, listener: str, *, draining: bool) -> bytes:
        metrics.SESSIONS_ENDED.labels(SessionEnd.REFUSED.value).inc()
        return err("Too many connections, try again later", Code.SYS_TEMP)

    def connecting_failed(self, listener: str) -> None:
        metrics.SESSIONS_ENDED.labels(SessionEnd.DISCONNECTED.value).inc()

    def session_ended(self, client: ConnectedClient, end: enum.Enum | None) -> None:
        metrics.SESSIONS_ENDED.labels((end or SessionEnd.DISCONNECTED).value).inc()
