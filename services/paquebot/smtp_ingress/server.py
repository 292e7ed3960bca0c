"""The SMTP server: its listeners, its sessions, and what it says to a client that gets no session."""

import enum
import ipaddress
from collections.abc import Sequence
from typing import cast

from paquebot.runtime.net.proxy import Proxies
from paquebot.runtime.net.server import ClientServer, ConnectedClient
from paquebot.runtime.net.slots import LOGIN, MAIL, ConnectionSlots
from paquebot.runtime.settings import Network
from paquebot.smtp_ingress import metrics
from paquebot.smtp_ingress.commands import COMMANDS
from paquebot.smtp_ingress.connection import SmtpConnection
from paquebot.smtp_ingress.context import ServerContext
from paquebot.smtp_ingress.metrics import SessionEnd
from paquebot.smtp_ingress.session import Session
from paquebot.smtp_ingress.settings import ListenSettings, SmtpIngressSettings
from paquebot.smtp_ingress.state import Role, SessionState
from paquebot.wire.smtp import replies


class SmtpServer(ClientServer[SmtpConnection, Session]):
    """One for a process. The name of a listener is its role."""

    def __init__(self, context: ServerContext, settings: SmtpIngressSettings) -> None:
        super().__init__(
            ConnectionSlots.of_mail_and_logins(context.sessions.slots),
            Proxies(settings.proxy),
            tls=context.tls,
            shared=settings.process.workers > 1,
            drain=settings.process.drain,
            handshake_timeout=settings.timeouts.handshake,
        )
        self.context = context
        self._places: ListenSettings = settings.listen
        self._relay_clients: Sequence[Network] = settings.policy.relay_clients

    def listen(self) -> None:
        """Bind every listener of the settings. Raises OSError."""
        for role, places in (
            (Role.MX, self._places.mx),
            (Role.SUBMISSION, self._places.submission),
            (Role.SUBMISSIONS, self._places.submissions),
        ):
            self.add_listener(
                role.value, places, tls=role is Role.SUBMISSIONS, kind=LOGIN if role.takes_logins else MAIL
            )

    def ports(self, role: Role) -> list[int]:
        """The ports of the listeners of a role."""
        return self._listeners.ports(role.value)

    def make_connection(self) -> SmtpConnection:
        return SmtpConnection(write_timeout=self.context.timeouts.write)

    def make_session(self, connection: SmtpConnection, client: ConnectedClient) -> Session:
        role = Role(client.listener)
        metrics.SESSIONS_BY_ROLE[role].inc()
        metrics.OPEN_SESSIONS_BY_ROLE[role].inc()
        is_relay_client = role is Role.MX and self._is_relay_client(client.address)
        state = SessionState(client.id, role, client.address, client.port, is_relay_client, client.slot)
        return Session(connection, state, self.context, COMMANDS)

    def refuse(self, listener: str, *, draining: bool) -> bytes:
        metrics.REFUSED.labels(listener).inc()
        reply = replies.SHUTTING_DOWN if draining else replies.TOO_MANY_CONNECTIONS
        if listener != Role.SUBMISSIONS.value:  # there it could only be sent after a handshake
            metrics.REPLIES_BY_CLASS[reply.code // 100].inc()
        return reply.encode()

    def connecting_failed(self, listener: str) -> None:
        if listener == Role.SUBMISSIONS.value:
            metrics.TLS.labels(listener, "failed").inc()

    def session_ended(self, client: ConnectedClient, end: enum.Enum | None) -> None:
        metrics.OPEN_SESSIONS_BY_ROLE[Role(client.listener)].dec()
        if end is not None:
            metrics.SESSIONS_ENDED_BY_REASON[cast(SessionEnd, end)].inc()

    def _is_relay_client(self, address: str) -> bool:
        if not self._relay_clients:
            return False
        ip = ipaddress.ip_address(address.partition("%")[0])
        return any(ip in network for network in self._relay_clients)
