"""Open sessions that wait a few seconds for another message to the same host."""

import asyncio
from dataclasses import dataclass

from paquebot.relay import metrics
from paquebot.relay.outcome import Host
from paquebot.relay.settings import TlsPolicy
from paquebot.relay.smtp_client.session import ClientSession

_MOST_IDLE = 200


@dataclass(frozen=True, slots=True)
class SessionKey:
    """Sessions are shared only between messages that would open them in the same way."""

    host: Host
    policy: TlsPolicy
    login: bool


class SessionPool:
    """`idle` seconds a session waits, `messages` at most go over it. Close with `close`."""

    def __init__(self, idle: float, messages: int) -> None:
        self._idle = idle
        self._messages = messages
        self._sessions: dict[SessionKey, list[tuple[ClientSession, asyncio.TimerHandle]]] = {}
        self._count = 0

    def has(self, purpose: SessionKey) -> bool:
        return any(session.usable for session, _ in self._sessions.get(purpose, ()))

    def take(self, purpose: SessionKey) -> ClientSession | None:
        """The session that was used last, if one still can be used."""
        while found := self._sessions.get(purpose):
            session, timer = found[-1]
            self._drop(purpose, session)
            timer.cancel()
            if session.usable:
                metrics.REUSED.inc()
                return session
            session.leave()
        return None

    def put(self, purpose: SessionKey, session: ClientSession) -> None:
        """Keep the session for a while, or let it go."""
        worn = session.messages >= self._messages or not self._idle or self._count >= _MOST_IDLE
        if worn or not session.usable:
            session.leave()
            return
        timer = asyncio.get_running_loop().call_later(self._idle, self._expire, purpose, session)
        self._sessions.setdefault(purpose, []).append((session, timer))
        self._count += 1
        metrics.IDLE.set(self._count)

    def _expire(self, purpose: SessionKey, session: ClientSession) -> None:
        self._drop(purpose, session)
        session.leave()

    def _drop(self, purpose: SessionKey, session: ClientSession) -> None:
        kept = [entry for entry in self._sessions[purpose] if entry[0] is not session]
        if kept:
            self._sessions[purpose] = kept
        else:
            del self._sessions[purpose]
        self._count -= 1
        metrics.IDLE.set(self._count)

    def close(self) -> None:
        """Let every waiting session go."""
        for purpose in list(self._sessions):
            for session, timer in list(self._sessions[purpose]):
                timer.cancel()
                self._expire(purpose, session)
