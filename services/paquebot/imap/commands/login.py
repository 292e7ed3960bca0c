"""Commands before login (RFC 3501 §6.2): STARTTLS, AUTHENTICATE PLAIN, LOGIN. None of them logs a credential."""

import asyncio
from typing import TYPE_CHECKING

from paquebot.imap import metrics
from paquebot.imap.capabilities import after_login
from paquebot.imap.connection import LineTooLong
from paquebot.imap.metrics import LoginResult
from paquebot.imap.reply import Reply, ReplySent, ReplyStatus, Stream, bad, no, ok
from paquebot.imap.states import Authenticated, LoggedInAccount, LoggedOut, NotAuthenticated
from paquebot.observability.log import Log
from paquebot.observability.metrics import tls_version
from paquebot.rpc import AccountDisabled, Identity, InvalidCredentials, LoginRefusal, RateLimited
from paquebot.wire.imap import BadSyntax, ast, parse_authenticate_line, response_codes, responses
from paquebot.wire.sasl import MAX_RESPONSE, BadSasl, Credentials, parse_login, parse_plain

if TYPE_CHECKING:
    from paquebot.imap.session import Session

_log = Log("paquebot.imap.login")
_LONGEST = 5  # times the delay of the first failure


async def start_tls(session: "Session", state: NotAuthenticated, command: ast.StartTls) -> Reply | Stream:
    """RFC 3501 §6.2.1. What a client pipelines behind STARTTLS was sent in the clear, perhaps by someone else:
    it must not run as part of the protected session, so the connection ends."""
    if session.tls:
        return bad("TLS is active already")
    if session.process.tls is None:
        return bad("TLS is not available")
    session.connection.pause()
    if session.connection.buffered:
        return Reply(
            ReplyStatus.BAD,
            "Nothing may follow STARTTLS before the handshake",
            untagged=responses.bye("Commands were sent in the clear behind STARTTLS"),
            state=LoggedOut(),
        )
    return _handshake(session, command)


async def _handshake(session: "Session", command: ast.StartTls) -> Stream:
    assert session.process.tls is not None
    yield responses.ok(command.tag, "Begin TLS negotiation now")
    await session.connection.start_tls(session.process.tls.context, max(0.1, session.reader.command_timeout))
    metrics.TLS.labels(tls_version(session.connection.tls_version)).inc()
    yield ReplySent()


async def authenticate(session: "Session", state: NotAuthenticated, command: ast.Authenticate) -> Reply | Stream:
    """RFC 3501 §6.2.2, RFC 4959 (initial response), RFC 4616 (PLAIN)."""
    if not session.tls:
        return no("Authenticate under TLS only", response_codes.PRIVACYREQUIRED)
    if command.mechanism != "PLAIN":
        return no("The mechanism is not supported", response_codes.CANNOT)
    return _plain(session, command.initial_response)


async def _plain(session: "Session", message: bytes | None) -> Stream:
    if message is None:
        yield responses.challenge(b"")
        line = await session.reader.answer(MAX_RESPONSE)
        try:
            message = None if isinstance(line, LineTooLong) else parse_authenticate_line(line)
        except BadSyntax as fault:
            yield bad(fault.message)
            return
    if message is None:
        yield bad("Authentication was cancelled")
        return
    try:
        credentials = parse_plain(message)
    except BadSasl as error:
        yield bad(str(error))
        return
    yield await _log_in(session, credentials)


async def login(session: "Session", state: NotAuthenticated, command: ast.Login) -> Reply:
    """RFC 3501 §6.2.3"""
    if not session.tls:
        return no("LOGIN is disabled without TLS", response_codes.PRIVACYREQUIRED)
    try:
        credentials = parse_login(command.userid, command.password)
    except BadSasl:
        return await _refused(session, InvalidCredentials())
    return await _log_in(session, credentials)


async def _log_in(session: "Session", credentials: Credentials) -> Reply:
    process = session.process
    if not credentials.acts_as_itself:
        return no("Nobody may act for another here", response_codes.AUTHORIZATIONFAILED)
    answer = await process.authentication.authenticate(credentials.login, credentials.password, session.client, "imap")
    if not isinstance(answer, Identity):
        return await _refused(session, answer)
    most = process.settings.session.per_account
    if process.feed.sessions(answer.account_id) >= most or not session.slot.log_in(answer.account_id):
        metrics.LOGIN[LoginResult.TOO_MANY].inc()
        return no("Too many sessions of this account", response_codes.LIMIT)
    await process.mailstore.ensure_account(answer.account_id)
    session.watch = await process.feed.watch(answer.account_id, session.connection.ring)
    session.logged_in(answer)
    session.turns.belongs_to(answer.account_id)
    session.failures = 0
    metrics.LOGIN[LoginResult.OK].inc()
    _log.info("logged_in", account_id=answer.account_id, client=session.client)
    account = LoggedInAccount(answer.account_id, answer.address, answer.quota_bytes)
    return ok("Logged in", response_codes.capability(after_login(process.limits.append)), state=Authenticated(account))


async def _refused(session: "Session", refusal: LoginRefusal) -> Reply:
    """Guessing is slow: each failure of a session waits a little longer (RFC 3501 §11.2)."""
    session.failures += 1
    await asyncio.sleep(min(session.failures, _LONGEST) * session.process.settings.session.login_delay)
    match refusal:
        case RateLimited(retry_after):
            metrics.LOGIN[LoginResult.RATE_LIMITED].inc()
            return no(f"Too many failures, try again in {retry_after} s", response_codes.UNAVAILABLE)
        case AccountDisabled():
            metrics.LOGIN[LoginResult.DISABLED].inc()
            return no("The account is disabled", response_codes.CONTACTADMIN)
        case InvalidCredentials():
            metrics.LOGIN[LoginResult.INVALID].inc()
            _log.info("login_failed", client=session.client)  # not the login: it may be a password
            return no("Login or password is wrong", response_codes.AUTHENTICATIONFAILED)
