"""The relay's SMTP client against aiosmtpd, an independent server (decision 44)."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from paquebot.relay.message import RelayRecipient
from paquebot.relay.outcome import Host, HostUnusable, Outcomes, RelayResult
from paquebot.relay.settings import TlsPolicy
from paquebot.relay.smtp_client.form import FormRules
from paquebot.relay.smtp_client.session import ClientSession
from paquebot.relay.smtp_client.transaction import ClientTransaction
from paquebot.wire.sasl import Credentials
from tests.support.relay_fixtures import TIMEOUTS, authority, handshake, outgoing

CONTENT = "From: é@example.org\r\nSubject: x\r\n\r\n.\r\n..two dots\r\nßtraße\r\n".encode()


@dataclass
class Kept:
    """aiosmtpd's handler: it keeps each message and its session."""

    envelopes: list[Envelope] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address.startswith("unknown@"):
            return "550 5.1.1 No such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.envelopes.append(envelope)
        self.sessions.append(session)
        return "250 2.0.0 Kept"


@contextlib.asynccontextmanager
async def aiosmtpd_host(tls: ssl.SSLContext | None = None, **options: Any) -> AsyncIterator[tuple[Host, Kept]]:
    kept = Kept()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(kept, hostname="mx.example.net", enable_SMTPUTF8=True, tls_context=tls, loop=loop, **options),
        "127.0.0.1",
        0,
    )
    try:
        yield Host("mx.example.net", "127.0.0.1", server.sockets[0].getsockname()[1]), kept
    finally:
        server.close()


async def send(session: ClientSession, content: bytes, *recipients: str, smtputf8: bool = False) -> Outcomes:
    message = outgoing(content, "s@example.org", smtputf8=smtputf8)
    transaction = ClientTransaction(session, message, TIMEOUTS, FormRules(), lambda: None)
    return await transaction.run([RelayRecipient(address) for address in recipients])


async def test_a_message_arrives_byte_for_byte_and_one_recipient_is_refused() -> None:
    async with aiosmtpd_host() as (host, kept):
        session = await handshake().open(host, TlsPolicy.OPPORTUNISTIC)
        outcomes = await send(session, CONTENT, "élise@example.net", "unknown@example.net", smtputf8=True)
        session.leave()
    (envelope,) = kept.envelopes
    assert envelope.original_content == CONTENT
    assert (envelope.mail_from, envelope.rcpt_tos) == ("s@example.org", ["élise@example.net"])
    assert [outcomes[name].result for name in ("élise@example.net", "unknown@example.net")] == [
        RelayResult.DELIVERED,
        RelayResult.FAILED,
    ]


async def test_starttls_with_a_login(tmp_path: Path) -> None:
    certificates = authority(tmp_path)

    def log_in(
        _server: object, _session: object, _envelope: object, _mechanism: str, login: LoginPassword
    ) -> AuthResult:
        return AuthResult(success=login.password == b"secret")

    options: dict[str, Any] = {"authenticator": log_in, "require_starttls": True, "auth_required": True}
    async with aiosmtpd_host(certificates.good, **options) as (host, kept):
        shake = handshake(ca=certificates.ca)
        with pytest.raises(HostUnusable):
            await shake.open(host, TlsPolicy.VERIFY, Credentials("user", "wrong"))
        session = await shake.open(host, TlsPolicy.VERIFY, Credentials("user", "secret"))
        await send(session, b"Subject: x\r\n\r\nx\r\n", "a@example.net")
        session.leave()
    assert kept.envelopes[0].original_content == b"Subject: x\r\n\r\nx\r\n"
    assert kept.sessions[0].ssl is not None
