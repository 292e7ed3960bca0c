"""From an address to a session that takes mail: connect, greeting, EHLO or HELO, STARTTLS, AUTH.

RFC 5321 §3.1, §3.2 and §4.1.4; RFC 3207; RFC 7435 (opportunistic); RFC 4954 with PLAIN (RFC 4616) and LOGIN.
docs/decisions/0031: what relay accepts from hosts that break these.
"""

import os
import ssl
import time

from paquebot.observability.log import Log
from paquebot.observability.metrics import tls_version
from paquebot.relay import metrics
from paquebot.relay.metrics import ConnectionResult
from paquebot.relay.outcome import (
    LOGIN_FAILED,
    NO_ANSWER,
    NO_TLS,
    TLS_FAILED,
    Host,
    HostUnusable,
    deferred,
    outcome_of,
    reply_text,
)
from paquebot.relay.settings import SmtpTimeouts, TlsPolicy
from paquebot.relay.smtp_client.session import ClientSession, SessionBroken
from paquebot.relay.smtp_client.stream import PlaintextInjected, open_stream
from paquebot.relay.smtp_client.tls import TlsContexts, TlsMemory, TlsMode
from paquebot.wire.sasl import Credentials, print_login, print_plain
from paquebot.wire.smtp.extensions import parse_extensions
from paquebot.wire.smtp.replies import Reply

_log = Log("paquebot.relay")


class _TlsBroken(Exception):
    """TLS failed, between STARTTLS and the EHLO after it; `certificate`: only because the certificate is not
    trusted."""

    def __init__(self, reason: str, *, certificate: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.certificate = certificate


class Handshake:
    """Opens sessions. `hostname`: our name in EHLO; `source`: a local address to connect from, or empty."""

    def __init__(
        self, hostname: str, timeouts: SmtpTimeouts, contexts: TlsContexts, memory: TlsMemory, *, source: str = ""
    ) -> None:
        self._hostname = hostname
        self._timeouts = timeouts
        self._contexts = contexts
        self._memory = memory
        self._source = source

    async def open(self, host: Host, policy: TlsPolicy, credentials: Credentials | None = None) -> ClientSession:
        """A session ready for MAIL. Raises HostUnusable."""
        start = time.perf_counter()
        modes = list(self._memory.modes(host, policy))
        first = modes[0]
        while True:
            mode = modes.pop(0)
            try:
                session = await self._open(host, policy, mode, credentials)
            except _TlsBroken as broken:
                metrics.TLS_FALLBACKS.labels(mode.value).inc()
                _log.info("tls_failed", host=str(host), mode=mode.value, reason=broken.reason)
                if not broken.certificate:  # another certificate check would not help
                    modes = [other for other in modes if other is TlsMode.CLEAR]
                if not modes:
                    metrics.CONNECTION[ConnectionResult.TLS].inc()
                    text = f"TLS is required and failed: {broken.reason}"
                    raise HostUnusable(host, deferred(TLS_FAILED, text, host, elsewhere=True)) from None
                continue
            if (
                mode is not first
            ):  # a better mode failed and this one works; an unreachable host proves nothing about its TLS
                self._memory.remember(host, mode)
            metrics.CONNECTION[ConnectionResult.OK].inc()
            metrics.CONNECT_SECONDS.observe(time.perf_counter() - start)
            return session

    async def _open(
        self, host: Host, policy: TlsPolicy, mode: TlsMode, credentials: Credentials | None
    ) -> ClientSession:
        """One connection in one mode. Raises HostUnusable, _TlsBroken."""
        session = await self._connect(host)
        try:
            await self._greet(session)
            await self._secure(session, policy, mode)
            if credentials is not None:
                await self._log_in(session, credentials)
        except SessionBroken as broken:
            metrics.CONNECTION[ConnectionResult.BROKEN].inc()
            raise HostUnusable(host, broken.outcome(host, elsewhere=True)) from None
        except HostUnusable:
            session.leave()
            raise
        except BaseException:
            session.stream.abort()
            raise
        return session

    async def _connect(self, host: Host) -> ClientSession:
        try:
            stream = await open_stream(host.address, host.port, self._timeouts.connect, self._source)
        except TimeoutError:
            metrics.CONNECTION[ConnectionResult.TIMEOUT].inc()
            raise HostUnusable(host, deferred(NO_ANSWER, "connection timed out", host, elsewhere=True)) from None
        except OSError as error:
            metrics.CONNECTION[ConnectionResult.REFUSED].inc()
            text = f"cannot connect: {_reason(error)}"
            raise HostUnusable(host, deferred(NO_ANSWER, text, host, elsewhere=True)) from None
        return ClientSession(host, stream)

    async def _greet(self, session: ClientSession) -> None:
        """RFC 5321 §4.3.2: 220, or 421, 521 (RFC 7504) and 554 for "no mail here"; then EHLO."""
        greeting = await session.reply(self._timeouts.greeting, "connection")
        if greeting.code != 220:
            raise self._refused(session, greeting)
        await self._hello(session)

    async def _hello(self, session: ClientSession) -> None:
        """RFC 5321 §3.2 and §4.1.1.1: EHLO, and HELO for a host without EHLO."""
        seconds = self._timeouts.greeting
        reply = await session.command(f"EHLO {self._hostname}", seconds, "EHLO")
        if reply.is_positive:
            session.extensions = parse_extensions(reply.text)
            return
        session.extensions = {}
        if reply.is_permanent:
            reply = await session.command(f"HELO {self._hostname}", seconds, "HELO")
        if not reply.is_positive:
            raise self._refused(session, reply)

    def _refused(self, session: ClientSession, reply: Reply) -> HostUnusable:
        metrics.CONNECTION[ConnectionResult.REJECTED].inc()
        return HostUnusable(session.host, outcome_of(reply, session.host, elsewhere=True))

    async def _secure(self, session: ClientSession, policy: TlsPolicy, mode: TlsMode) -> None:
        """RFC 3207 §4: STARTTLS; what the host offered before is forgotten. Raises _TlsBroken."""
        in_clear = policy in (TlsPolicy.OFF, TlsPolicy.OPPORTUNISTIC)
        if mode is not TlsMode.CLEAR and "STARTTLS" in session.extensions:
            try:
                reply = await session.command("STARTTLS", self._timeouts.starttls, "STARTTLS")
                if reply.code == 220:
                    await self._start_tls(session, mode)
                    return
                if in_clear:  # the host may close after its refusal: another connection in clear then
                    await session.command("NOOP", self._timeouts.starttls, "NOOP")
            except SessionBroken as broken:
                raise _TlsBroken(broken.text, certificate=False) from None
            if not in_clear:
                raise self._refused(session, reply)
            if not session.alive:
                raise _TlsBroken(reply_text(reply), certificate=False)
        elif not in_clear:
            text = "TLS is required and the host does not offer it"
            raise HostUnusable(session.host, deferred(NO_TLS, text, session.host, elsewhere=True))
        metrics.TLS.labels("none", "none").inc()

    async def _start_tls(self, session: ClientSession, mode: TlsMode) -> None:
        """Raises _TlsBroken; SessionBroken too, for with TLS 1.3 the host's alert comes only after our side of the
        handshake is done."""
        name = _certified_name(session.host)
        if name is None and mode is TlsMode.VERIFIED:
            raise _TlsBroken("no certificate can be for the host's name", certificate=True)
        try:
            session.tls = await session.stream.start_tls(self._contexts.of(mode), name, self._timeouts.starttls)
            session.extensions = {}
            await self._hello(session)
        except ssl.SSLCertVerificationError as error:
            raise _TlsBroken(error.verify_message, certificate=True) from None
        except PlaintextInjected:
            session.stream.abort()
            raise _TlsBroken("text in clear after STARTTLS", certificate=False) from None
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            raise _TlsBroken(_reason(error), certificate=False) from None
        metrics.TLS.labels(tls_version(session.tls), mode.value).inc()

    async def _log_in(self, session: ClientSession, credentials: Credentials) -> None:
        """Only after TLS. A refusal is temporary: it concerns our settings, not the mail."""
        host, seconds = session.host, self._timeouts.greeting
        if not session.tls:
            raise HostUnusable(host, deferred(NO_TLS, "no login without TLS", host))
        offered = session.extensions.get("AUTH", "").upper().split()
        if "PLAIN" in offered:
            reply = await session.command(f"AUTH PLAIN {print_plain(credentials).decode()}", seconds, "AUTH")
        elif "LOGIN" in offered:
            reply = await session.command("AUTH LOGIN", seconds, "AUTH")
            for response in print_login(credentials):
                if reply.code == 334:
                    reply = await session.command(response.decode(), seconds, "AUTH")
        else:
            raise HostUnusable(host, deferred(LOGIN_FAILED, "the host offers neither AUTH PLAIN nor LOGIN", host))
        if reply.code != 235:
            metrics.CONNECTION[ConnectionResult.LOGIN].inc()
            _log.error("login_refused", host=str(host), reply=reply_text(reply))
            text = f"login refused: {reply_text(reply)}"
            raise HostUnusable(host, deferred(LOGIN_FAILED, text, host, elsewhere=True))


def _certified_name(host: Host) -> str | None:
    """The name in a valid certificate: the host's, or the address of a literal. None: DNS gave a name that TLS cannot
    carry (RFC 6066 §3), such as one with other bytes than letters and digits."""
    if host.name.startswith("["):
        return host.address
    try:
        host.name.encode("idna")
    except UnicodeError:
        return None
    return host.name or None


def _reason(error: Exception) -> str:
    """One line about a network error, without addresses of ours."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "handshake failed").replace("_", " ").lower()
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return "connection closed" if isinstance(error, ConnectionError) else type(error).__name__
