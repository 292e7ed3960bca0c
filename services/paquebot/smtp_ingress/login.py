"""AUTH PLAIN and LOGIN (RFC 4954): only over TLS, only on the listeners for mail clients."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from paquebot.observability.log import Log, shown
from paquebot.rpc import (
    AccountDisabled,
    DirectoryUnavailable,
    Identity,
    InvalidCredentials,
    LoginRefusal,
    RateLimited,
    TranscriptRecorder,
)
from paquebot.smtp_ingress import metrics
from paquebot.smtp_ingress.metrics import MECHANISMS, LoginResult
from paquebot.smtp_ingress.session import Session
from paquebot.wire.sasl import BadSasl, Credentials, decode_response, parse_login, parse_plain
from paquebot.wire.smtp import replies
from paquebot.wire.smtp.commands import BadCommand, parse_auth
from paquebot.wire.smtp.replies import Reply
from paquebot.wire.transcript import SmtpTranscriptFilter

_log = Log("paquebot.smtp")

_RESULTS = {
    replies.AUTHENTICATED: LoginResult.OK,
    replies.AUTH_INVALID: LoginResult.INVALID,
    replies.AUTH_DISABLED: LoginResult.DISABLED,
    replies.AUTH_TOO_MANY: LoginResult.TOO_MANY,
    replies.AUTH_RATE_LIMITED: LoginResult.RATE_LIMITED,
    replies.AUTH_UNAVAILABLE: LoginResult.UNAVAILABLE,
}


class _ExchangeEnded(Exception):
    """The exchange ended before the credentials were complete; `reply` says why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


async def auth(session: Session, argument: str) -> Reply:
    if refusal := _refusal_before_login(session):
        return refusal
    try:
        mechanism, initial = parse_auth(argument)
    except BadCommand:
        return replies.BAD_SYNTAX.with_text("Syntax: AUTH mechanism [initial-response]")
    exchange = _EXCHANGES.get(mechanism)
    if exchange is None:
        return replies.AUTH_UNKNOWN_MECHANISM
    try:
        credentials = await exchange(session, initial)
    except BadSasl:
        reply = replies.AUTH_BAD_BASE64
    except _ExchangeEnded as ended:
        reply = ended.reply
    else:
        reply = await _log_in(session, credentials)
    metrics.LOGINS.labels(mechanism, _RESULTS.get(reply, LoginResult.BROKEN).value).inc()
    return reply


def _refusal_before_login(session: Session) -> Reply | None:
    state = session.state
    if not state.role.takes_logins:
        return replies.NOT_IMPLEMENTED
    if state.tls is None:
        return replies.AUTH_NEEDS_TLS
    if state.hello is None or not state.hello.extended:
        return replies.HELLO_FIRST
    if state.identity is not None:
        return replies.AUTH_AGAIN
    return replies.AUTH_IN_TRANSACTION if state.transaction is not None else None


async def _respond(session: Session, challenge: Reply) -> bytes:
    line = await session.challenge(challenge)
    if line is None:
        raise _ExchangeEnded(replies.AUTH_TOO_LONG)
    if line == b"*":  # RFC 4954 §4: the client cancels
        raise _ExchangeEnded(replies.AUTH_CANCELLED)
    return decode_response(line)


async def _plain(session: Session, initial: bytes | None) -> Credentials:
    """RFC 4616."""
    if initial is not None:
        return parse_plain(decode_response(initial))
    return parse_plain(await _respond(session, replies.CHALLENGE_EMPTY))


async def _login(session: Session, initial: bytes | None) -> Credentials:
    if initial is not None:
        username = decode_response(initial)
    else:
        username = await _respond(session, replies.CHALLENGE_USERNAME)
    return parse_login(username, await _respond(session, replies.CHALLENGE_PASSWORD))


_EXCHANGES: Final[Mapping[str, Callable[[Session, bytes | None], Awaitable[Credentials]]]] = {
    "PLAIN": _plain,
    "LOGIN": _login,
}
assert tuple(_EXCHANGES) == MECHANISMS  # the label values


async def _log_in(session: Session, credentials: Credentials) -> Reply:
    state = session.state
    if not credentials.acts_as_itself:
        return replies.AUTH_INVALID
    try:
        answer = await session.context.authentication.authenticate(
            credentials.login, credentials.password, state.address, "smtp"
        )
    except DirectoryUnavailable:
        return replies.AUTH_UNAVAILABLE
    if isinstance(answer, Identity):
        if not state.slot.log_in(answer.account_id):
            return replies.AUTH_TOO_MANY
        state.identity = answer
        state.login = session.context.logins.enter(answer, session.connection.stop)
        session.connection.recorder = TranscriptRecorder(
            session.context.recordings, answer.account_id, state.address, SmtpTranscriptFilter
        )
        session.logged_in()
        session.turns.belongs_to(answer.account_id)
        _log.info(
            "login_succeeded",
            session=state.id,
            client=state.address,
            account_id=answer.account_id,
            address=shown(answer.address),
        )
        return replies.AUTHENTICATED
    _log.info("login_failed", session=state.id, client=state.address, reason=type(answer).__name__)
    return _refusal(answer)


def _refusal(answer: LoginRefusal) -> Reply:
    match answer:
        case InvalidCredentials():
            return replies.AUTH_INVALID
        case AccountDisabled():
            return replies.AUTH_DISABLED
        case RateLimited():
            return replies.AUTH_RATE_LIMITED
