"""Commands before login (RFC 3501 §6.2): STARTTLS, AUTHENTICATE PLAIN, LOGIN. No log line has a credential."""

import asyncio

from paquebot.imap import metrics
from paquebot.imap.commands.context import CommandContext
from paquebot.imap.connection import TruncatedLine
from paquebot.imap.metrics import LoginResult
from paquebot.imap.reply import Reply, ReplySent, ReplyStatus, Stream, bad, no, ok
from paquebot.imap.states import Authenticated, LoggedInAccount, LoggedOut, NotAuthenticated
from paquebot.observability.log import Log
from paquebot.observability.metrics import tls_version
from paquebot.rpc import AccountDisabled, Identity, InvalidCredentials, LoginRefusal, RateLimited
from paquebot.wire.imap import BadSyntax, ast, parse_authenticate_line, response_codes, responses
from paquebot.wire.sasl import MAX_RESPONSE, BadSasl, Credentials, parse_login, parse_plain

_log = Log("paquebot.imap.login")
_MAX_DELAYS = 5  # the longest delay after a failure, in delays of the first


async def start_tls(context: CommandContext, state: NotAuthenticated, command: ast.StartTls) -> Reply | Stream:
    """RFC 3501 §6.2.1. Commands that follow STARTTLS before the handshake came in the clear, perhaps from an attacker.
    They must not run in the protected session, so the session ends."""
    if context.tls:
        return bad("TLS is active already")
    if context.server.tls is None:
        return bad("TLS is not available")
    context.connection.pause_reading()
    if context.connection.buffered:
        return Reply(
            ReplyStatus.BAD,
            "Nothing may follow STARTTLS before the handshake",
            untagged=responses.bye("Commands were sent in the clear after STARTTLS"),
            state=LoggedOut(),
        )
    return _handshake(context, command)


async def _handshake(context: CommandContext, command: ast.StartTls) -> Stream:
    assert context.server.tls is not None
    yield responses.ok(command.tag, "Begin TLS negotiation now")
    await context.connection.start_tls(context.server.tls.context, max(0.1, context.reader.command_timeout))
    metrics.TLS.labels(tls_version(context.connection.tls_version)).inc()
    yield ReplySent()


async def authenticate(context: CommandContext, state: NotAuthenticated, command: ast.Authenticate) -> Reply | Stream:
    """RFC 3501 §6.2.2, RFC 4959 (initial response), RFC 4616 (PLAIN)."""
    if not context.tls:
        return no("Authenticate under TLS only", response_codes.PRIVACYREQUIRED)
    if command.mechanism != "PLAIN":
        return no("The mechanism is not supported", response_codes.CANNOT)
    return _plain(context, command.initial_response)


async def _plain(context: CommandContext, message: bytes | None) -> Stream:
    if message is None:
        yield responses.challenge(b"")
        line = await context.reader.read_answer(MAX_RESPONSE)
        try:
            message = None if isinstance(line, TruncatedLine) else parse_authenticate_line(line)
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
    yield await _log_in(context, credentials)


async def login(context: CommandContext, state: NotAuthenticated, command: ast.Login) -> Reply:
    """RFC 3501 §6.2.3"""
    if not context.tls:
        return no("LOGIN is disabled without TLS", response_codes.PRIVACYREQUIRED)
    try:
        credentials = parse_login(command.userid, command.password)
    except BadSasl:
        return await _refused(context, InvalidCredentials())
    return await _log_in(context, credentials)


async def _log_in(context: CommandContext, credentials: Credentials) -> Reply:
    server = context.server
    if not credentials.acts_as_itself:
        return no("Acting for another login is not allowed", response_codes.AUTHORIZATIONFAILED)
    answer = await server.authentication.authenticate(credentials.login, credentials.password, context.client, "imap")
    if not isinstance(answer, Identity):
        return await _refused(context, answer)
    maximum = server.settings.session.per_account
    if server.feed.sessions(answer.account_id) >= maximum or not context.slot.log_in(answer.account_id):
        metrics.LOGINS_BY_RESULT[LoginResult.TOO_MANY].inc()
        return no("Too many sessions of this account", response_codes.LIMIT)
    await server.accounts.ensure(answer.account_id)
    context.watch = await server.feed.watch(answer.account_id, context.connection.ring)
    context.log_in(answer)
    metrics.LOGINS_BY_RESULT[LoginResult.OK].inc()
    _log.info("login_succeeded", account_id=answer.account_id, client=context.client)
    account = LoggedInAccount(answer.account_id, answer.address, answer.quota_bytes)
    state = Authenticated(account)
    return ok("Logged in", response_codes.capability(context.capabilities(state)), state=state)


async def _refused(context: CommandContext, refusal: LoginRefusal) -> Reply:
    """Slow down guessing: each failure of a session waits a little longer (RFC 3501 §11.2)."""
    context.failures += 1
    await asyncio.sleep(min(context.failures, _MAX_DELAYS) * context.server.settings.session.login_delay)
    match refusal:
        case RateLimited(retry_after):
            metrics.LOGINS_BY_RESULT[LoginResult.RATE_LIMITED].inc()
            return no(f"Too many failures, try again in {retry_after} s", response_codes.UNAVAILABLE)
        case AccountDisabled():
            metrics.LOGINS_BY_RESULT[LoginResult.DISABLED].inc()
            return no("The account is disabled", response_codes.CONTACTADMIN)
        case InvalidCredentials():
            metrics.LOGINS_BY_RESULT[LoginResult.INVALID].inc()
            _log.info("login_failed", client=context.client)  # not the login: it may be a password
            return no("Login or password is wrong", response_codes.AUTHENTICATIONFAILED)
