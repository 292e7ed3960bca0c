"""The listeners, the logins and the TLS of the clients of a round trip."""

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paquebot.cli.demo.accounts import DEMO_PASSWORD, DEMO_READER, DEMO_SENDER
from paquebot.cli.engines.ports import LOOPBACK
from paquebot.cli.up.environment import PlatformPlan


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """A listener. `implicit`: TLS from the first byte; otherwise STARTTLS."""

    host: str
    port: int
    implicit: bool = False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RoundTripLogin:
    """An account with its password."""

    address: str
    password: str

    @property
    def name(self) -> str:
        return self.address.partition("@")[0]


@dataclass(frozen=True, slots=True)
class RoundTripRoute:
    """Where the message is submitted and read. `client`: our addresses, of which Received must show one; empty: any.
    `connect_timeout`: seconds to wait for each listener."""

    submission: ServiceAddress
    imap: ServiceAddress
    pop3: ServiceAddress
    tls: ssl.SSLContext
    sender: RoundTripLogin
    reader: RoundTripLogin
    client: str = ""
    connect_timeout: float = 0.0


class NamedContext(ssl.SSLContext):
    """Expects one name in certificates, not the host name or address that the client connected to."""

    name: str | None = None

    def wrap_socket(self, sock: socket.socket, **options: Any) -> ssl.SSLSocket:  # type: ignore[override]
        return super().wrap_socket(sock, **{**options, "server_hostname": self.name or options.get("server_hostname")})


def _served_context(certificate: Path) -> ssl.SSLContext:
    """TLS of a client that trusts a certificate that the user supplied, or its issuers in the same file, for any
    address. Raises OSError, ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cafile=str(certificate))
    return context


def client_context(*, name: str = "", ca: Path | None = None, verify: bool = True) -> ssl.SSLContext:
    """TLS of a client that trusts `ca`, or the system's authorities where that file is missing or empty, and expects
    `name`. Raises OSError, ssl.SSLError."""
    context = NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.name = name or None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca is not None and ca.is_file() and ca.stat().st_size:
        context.load_verify_locations(cafile=str(ca))
    else:
        context.load_default_certs()
    return context


def local_route(plan: PlatformPlan) -> RoundTripRoute:
    """From alice to bob on a local platform."""
    ports = plan.ports.services
    return RoundTripRoute(
        submission=ServiceAddress(LOOPBACK, ports.submissions, implicit=True),
        imap=ServiceAddress(LOOPBACK, ports.imaps, implicit=True),
        pop3=ServiceAddress(LOOPBACK, ports.pop3s, implicit=True),
        tls=client_context(ca=plan.authority) if plan.authority else _served_context(plan.certificate),
        sender=RoundTripLogin(f"{DEMO_SENDER}@{plan.domain}", DEMO_PASSWORD),
        reader=RoundTripLogin(f"{DEMO_READER}@{plan.domain}", DEMO_PASSWORD),
    )
