"""Commands of the AUTHORIZATION state (RFC 1939 §4): USER and PASS, AUTH PLAIN, STLS. None logs a credential."""

import asyncio
from typing import Protocol

from paquebot.mailstore.errors import MaildropLocked
from paquebot.observability.log import Log
from paquebot.observability.metrics import tls_version
from paquebot.pop3 import capabilities, metrics
from paquebot.pop3.connection import Pop3Connection
from paquebot.pop3.context import ServerContext
from paquebot.pop3.exact_sizes import with_exact_sizes
from paquebot.pop3.lease import Lease
from paquebot.pop3.maildrop import OpenMaildrop
from paquebot.pop3.metrics import LoginResult
from paquebot.pop3.prefetch import MessagePrefetch
from paquebot.pop3.reading import MaildropReader
from paquebot.pop3.reply import Reply, Stream, fault, positive
from paquebot.pop3.states import AuthorizationState, SessionEnded, TransactionState
from paquebot.rpc import AccountDisabled, Identity, InvalidCredentials, LoginRefusal, RateLimited
from paquebot.runtime.net.connection import LineTooLong
from paquebot.wire import pop3
from paquebot.wire.pop3 import Code
from paquebot.wire.sasl import MAX_RESPONSE, BadSasl, Credentials, decode_response, parse_login, parse_plain

_log = Log("paquebot.pop3.login")
_MAX_DELAY_FACTOR = 5  # times the delay of the first failure
_NEEDS_TLS = "Log in under TLS only"


class LoginContext(Protocol):
    """What the commands of the AUTHORIZATION state use of their session."""

    context: ServerContext
    connection: Pop3Connection
    client: str
    id: str
    failed_logins: int

    @property
    def tls(self) -> bool: ...

    def remaining(self) -> float: ...

    async def next_line(self, maximum: int) -> bytes: ...

    def forget_login(self) -> None: ...

    def lease_lost(self) -> None: ...

    def logged_in(self, identity: Identity) -> None: ...


async def answer(session: LoginContext, state: AuthorizationState, command: pop3.Command) -> Reply | Stream:
    """The commands that RFC 1939 §4, RFC 2449 §5, RFC 2595 §4 and RFC 5034 §4 allow in this state."""
    match command:
        case pop3.User(login):
            # RFC 2595 §2.1: no password may be asked for in the clear. The name is not looked up: the reply must not
            # reveal whether an account exists.
            return positive("Send the password", AuthorizationState(login)) if session.tls else fault(_NEEDS_TLS)
        case pop3.Pass(password):
            return await _pass(session, state, password)
        case pop3.Auth():
            return _auth(session, command)
        case pop3.Stls():
            return start_tls(session)
        case pop3.Capa():
            return capabilities.before_login(tls=session.tls, stls=session.context.tls is not None)
        case pop3.Quit():
            return positive("Bye", SessionEnded())
        case pop3.NotOffered(keyword):
            return fault(f"{keyword} is not offered")
        case pop3.Unknown():
            return fault("Unknown command")
        case _:
            return fault("Log in first")


def start_tls(session: LoginContext) -> Reply | Stream:
    """RFC 2595 §4. Commands pipelined behind STLS came in the clear, perhaps from an attacker: they must not run in the
    protected session, so the connection ends."""
    if session.tls:
        return fault("TLS is active already")
    if session.context.tls is None:
        return fault("TLS is not available")
    session.connection.pause_reading()
    if session.connection.buffered:
        _log.warning("cleartext_after_stls", client=session.client)
        return Reply(pop3.err("Nothing may follow STLS before the handshake"), SessionEnded(), fault=True)
    return _handshake(session)


async def _handshake(session: LoginContext) -> Stream:
    assert session.context.tls is not None
    yield pop3.ok("Begin TLS negotiation")
    await session.connection.start_tls(session.context.tls.context, max(0.1, session.remaining()))
    metrics.TLS.labels(tls_version(session.connection.tls_version)).inc()
    # RFC 2595 §4: what was learned before the handshake is forgotten.
    yield Reply(b"", AuthorizationState())


async def _pass(session: LoginContext, state: AuthorizationState, password: bytes) -> Reply:
    """RFC 1939 §7: the password of the name from USER; after a failure the client must send both again."""
    if not session.tls:
        return fault(_NEEDS_TLS)
    if state.login is None:
        return fault("USER comes first")
    try:
        credentials = parse_login(state.login, password)
    except BadSasl:
        return await _refused(session, InvalidCredentials())
    return await _log_in(session, credentials)


def _auth(session: LoginContext, command: pop3.Auth) -> Reply | Stream:
    if not session.tls:
        return fault(_NEEDS_TLS)
    if command.mechanism is None:  # not in RFC 5034: clients from before CAPA ask so for the mechanisms
        return Reply(pop3.multi_line("Mechanisms follow", capabilities.MECHANISMS))
    if command.mechanism not in capabilities.MECHANISMS:
        return fault("The mechanism is not supported")
    return _plain(session, command.initial_response)


async def _plain(session: LoginContext, response: bytes | None) -> Stream:
    """RFC 5034 §4, RFC 4616: the one message of PLAIN, at once or after an empty challenge."""
    if response is None:
        yield pop3.challenge()
        try:
            response = await session.next_line(MAX_RESPONSE)
        except LineTooLong:
            yield fault("The response is too long")
            return
    if response == b"*":
        yield fault("Authentication was cancelled")
        return
    try:
        credentials = parse_plain(decode_response(response))
    except BadSasl as error:
        yield fault(str(error))
        return
    yield await _log_in(session, credentials)


async def _log_in(session: LoginContext, credentials: Credentials) -> Reply:
    """The identity, then its maildrop; a failed PASS also forgets the name (RFC 1939 §7)."""
    session.forget_login()
    if not credentials.acts_as_itself:
        return fault("Acting for another account is not allowed", Code.AUTH)
    found = await session.context.authentication.authenticate(
        credentials.login, credentials.password, session.client, "pop3"
    )
    if not isinstance(found, Identity):
        return await _refused(session, found)
    return await _open(session, found)


async def _open(session: LoginContext, identity: Identity) -> Reply:
    """RFC 1939 §4: the exclusive lock, then the maildrop as it is now, which the session keeps to its end."""
    context, account_id = session.context, identity.account_id
    lease = Lease(context.maildrops, account_id, session.id, context.settings.session.lease, session.lease_lost)
    share = context.shares.of(account_id)
    try:
        listed = await lease.acquire()
    except MaildropLocked:
        metrics.LOGINS.labels(LoginResult.IN_USE.value).inc()
        raise
    place = (context.mailbox_reader, context.blobs, account_id, listed.mailbox_id)
    max_bytes = context.settings.maildrop.exact_size_bytes
    try:
        listed = await with_exact_sizes(listed, account_id, context.maildrops, MaildropReader(*place), share, max_bytes)
    except BaseException:  # the session ends meanwhile
        await lease.release()
        raise
    maildrop = OpenMaildrop(account_id, listed)
    session.logged_in(identity)
    metrics.LOGINS.labels(LoginResult.OK.value).inc()
    _log.info("login_succeeded", account_id=account_id, client=session.client, messages=len(maildrop))
    prefetch = MessagePrefetch(MaildropReader(*place), share, maildrop, session.connection.abort)
    return positive(
        f"{len(maildrop)} messages ({maildrop.total_size} octets)", TransactionState(maildrop, lease, prefetch)
    )


async def _refused(session: LoginContext, refusal: LoginRefusal) -> Reply:
    """Slow down guessing: each failure of a session delays the reply a little more."""
    session.forget_login()
    session.failed_logins += 1
    await asyncio.sleep(min(session.failed_logins, _MAX_DELAY_FACTOR) * session.context.settings.session.login_delay)
    match refusal:
        case RateLimited(retry_after):
            metrics.LOGINS.labels(LoginResult.RATE_LIMITED.value).inc()
            return fault(f"Too many failures, try again in {retry_after} s", Code.SYS_TEMP)
        case AccountDisabled():
            metrics.LOGINS.labels(LoginResult.DISABLED.value).inc()
            return fault("The account is disabled", Code.SYS_PERM)
        case InvalidCredentials():
            metrics.LOGINS.labels(LoginResult.INVALID.value).inc()
            _log.info("login_failed", client=session.client)  # not the login: it may be a password
            return fault("Login or password is wrong", Code.AUTH)
