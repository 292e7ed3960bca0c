"""Sessions with hosts: opened when needed, and kept open for a few seconds for another message to the same host."""

import asyncio
from dataclasses import dataclass

from paquebot.relay import metrics
from paquebot.relay.outcome import Host
from paquebot.relay.routing.routes import Route
from paquebot.relay.settings import SmtpClientSettings, TlsPolicy
from paquebot.relay.smtp_client.handshake import Handshake
from paquebot.relay.smtp_client.session import ClientSession
from paquebot.wire.sasl import Credentials

_MAX_IDLE = 200


@dataclass(frozen=True, slots=True)
class SessionKey:
    """Messages share a session only if they would open it in the same way."""

    host: Host
    policy: TlsPolicy
    login: bool


class SessionPool:
    """One for a process. Close with `close`."""

    def __init__(self, handshake: Handshake, client: SmtpClientSettings) -> None:
        self._handshake = handshake
        self._client = client
        self._idle: dict[SessionKey, list[tuple[ClientSession, asyncio.TimerHandle]]] = {}
        self._count = 0

    def key(self, host: Host, route: Route) -> SessionKey:
        """RFC 4954: a login only at the smart host, and never without a verified certificate."""
        login = route.smart_host and bool(self._client.user)
        policy = TlsPolicy(self._client.route_tls if route.static else self._client.tls)
        if login and policy in (TlsPolicy.OFF, TlsPolicy.OPPORTUNISTIC):
            policy = TlsPolicy.VERIFY
        return SessionKey(host, policy, login)

    async def open(self, key: SessionKey) -> ClientSession:
        """A new session. Raises HostUnusable."""
        credentials = Credentials(self._client.user, self._client.password) if key.login else None
        return await self._handshake.open(key.host, key.policy, credentials)

    def has_idle(self, key: SessionKey) -> bool:
        return any(session.usable for session, _ in self._idle.get(key, ()))

    def take_idle(self, key: SessionKey) -> ClientSession | None:
        """The session that was used last, if one still can be used."""
        while found := self._idle.get(key):
            session, timer = found[-1]
            self._remove(key, session)
            timer.cancel()
            if session.usable:
                metrics.REUSED.inc()
                return session
            session.leave()
        return None

    def put_back(self, key: SessionKey, session: ClientSession) -> None:
        """Keep the session for a while, or end it."""
        full = not self._client.idle or self._count >= _MAX_IDLE
        if full or session.messages >= self._client.messages or not session.usable:
            session.leave()
            return
        timer = asyncio.get_running_loop().call_later(self._client.idle, self._expire, key, session)
        self._idle.setdefault(key, []).append((session, timer))
        self._count += 1
        metrics.IDLE.set(self._count)

    def _expire(self, key: SessionKey, session: ClientSession) -> None:
        self._remove(key, session)
        session.leave()

    def _remove(self, key: SessionKey, session: ClientSession) -> None:
        kept = [entry for entry in self._idle[key] if entry[0] is not session]
        if kept:
            self._idle[key] = kept
        else:
            del self._idle[key]
        self._count -= 1
        metrics.IDLE.set(self._count)

    def close(self) -> None:
        """End every idle session."""
        for key in list(self._idle):
            for session, timer in list(self._idle[key]):
                timer.cancel()
                self._expire(key, session)
