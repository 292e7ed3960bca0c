"""Commands of the AUTHORIZATION state (RFC 1939 §4): USER and PASS, AUTH PLAIN, STLS. None logs a credential."""

import asyncio
from typing import TYPE_CHECKING

from paquebot.mailstore.errors import MaildropLocked
from paquebot.observability.log import Log
from paquebot.observability.metrics import tls_version
from paquebot.pop3 import metrics
from paquebot.pop3.capabilities import MECHANISMS
from paquebot.pop3.connection import LineTooLong
from paquebot.pop3.lease import Lease
from paquebot.pop3.maildrop import OpenMaildrop
from paquebot.pop3.measuring import measured
from paquebot.pop3.metrics import LoginResult
from paquebot.pop3.reading import MessagePrefetch
from paquebot.pop3.reply import Reply, Stream, fault, positive
from paquebot.pop3.states import Authorization, SessionEnded, Transaction
from paquebot.rpc import AccountDisabled, Identity, InvalidCredentials, RateLimited, Refusal
from paquebot.wire import pop3
from paquebot.wire.pop3 import Code
from paquebot.wire.sasl import MAX_RESPONSE, BadSasl, Credentials, decode_response, parse_login, parse_plain

if TYPE_CHECKING:
    from paquebot.pop3.session import Session

_log = Log("paquebot.pop3.login")
_LONGEST = 5  # times the delay of the first failure
_NEEDS_TLS = "Log in under TLS only"


async def answer(session: "Session", state: Authorization, command: pop3.Command) -> Reply | Stream:
    """The commands that RFC 1939 §4, RFC 2449 §5, RFC 2595 §4 and RFC 5034 §4 allow in this state."""
    match command:
        case pop3.User(login):
            # RFC 2595 §2.1: no password may be asked for in the clear. The name is not looked up: whether an
            # account exists is told to nobody.
            return positive("Send the password", Authorization(login)) if session.tls else fault(_NEEDS_TLS)
        case pop3.Pass(password):
            return await _pass(session, state, password)
        case pop3.Auth():
            return _auth(session, command)
        case pop3.Stls():
            return start_tls(session)
        case pop3.Capa():
            return session.capabilities()
        case pop3.Quit():
            return positive("Bye", SessionEnded())
        case pop3.NotOffered(keyword):
            return fault(f"{keyword} is not offered")
        case pop3.Unknown():
            return fault("Unknown command")
        case _:
            return fault("Log in first")


def start_tls(session: "Session") -> Reply | Stream:
    """RFC 2595 §4. What a client pipelines behind STLS was sent in the clear, perhaps by someone else: it must not
    run as part of the protected session, so the connection ends."""
    if session.tls:
        return fault("TLS is active already")
    if session.process.tls is None:
        return fault("TLS is not available")
    session.connection.pause()
    if session.connection.buffered:
        _log.warning("cleartext_behind_stls", client=session.client)
        return Reply(pop3.err("Nothing may follow STLS before the handshake"), SessionEnded(), fault=True)
    return _handshake(session)


async def _handshake(session: "Session") -> Stream:
    assert session.process.tls is not None
    yield pop3.ok("Begin TLS negotiation")
    await session.connection.start_tls(session.process.tls.context, max(0.1, session.remaining()))
    metrics.TLS.labels(tls_version(session.connection.tls_version)).inc()
    # RFC 2595 §4: what was learned before the handshake is forgotten.
    yield Reply(b"", Authorization())


async def _pass(session: "Session", state: Authorization, password: bytes) -> Reply:
    """RFC 1939 §7: the password of the name that USER gave; after a failure both are asked for again."""
    if not session.tls:
        return fault(_NEEDS_TLS)
    if state.login is None:
        return fault("USER comes first")
    try:
        credentials = parse_login(state.login, password)
    except BadSasl:
        return await _refused(session, InvalidCredentials())
    return await _log_in(session, credentials)


def _auth(session: "Session", command: pop3.Auth) -> Reply | Stream:
    if not session.tls:
        return fault(_NEEDS_TLS)
    if command.mechanism is None:  # not in RFC 5034: what clients from before CAPA ask
        return Reply(pop3.multi_line("Mechanisms follow", MECHANISMS))
    if command.mechanism not in MECHANISMS:
        return fault("The mechanism is not supported")
    return _plain(session, command.initial_response)


async def _plain(session: "Session", response: bytes | None) -> Stream:
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


async def _log_in(session: "Session", credentials: Credentials) -> Reply:
    """The identity, then its maildrop; a failed PASS also forgets the name (RFC 1939 §7)."""
    session.forget_login()
    if not credentials.acts_as_itself:
        return fault("Nobody may act for another here", Code.AUTH)
    found = await session.process.authentication.authenticate(
        credentials.login, credentials.password, session.client, "pop3"
    )
    if not isinstance(found, Identity):
        return await _refused(session, found)
    return await _open(session, found)


async def _open(session: "Session", identity: Identity) -> Reply:
    """RFC 1939 §4: the exclusive lock, then the maildrop as it is now for the whole session."""
    process = session.process
    lease = Lease(
        process.maildrops, identity.account_id, session.id, process.settings.session.lease, session.lease_lost
    )
    share = process.shares.of(identity.account_id)
    try:
        listed = await lease.take()
    except MaildropLocked:
        metrics.LOGINS.labels(LoginResult.IN_USE.value).inc()
        raise
    octets = process.settings.maildrop.measured
    try:
        exact = await measured(
            process.maildrops, process.mailbox_reader, process.blobs, share, identity.account_id, listed, octets
        )
    except BaseException:  # the session ends in the middle
        await lease.give_back()
        raise
    drop = OpenMaildrop(identity.account_id, exact)
    session.logged_in(identity)
    session.turns.belongs_to(identity.account_id)
    metrics.LOGINS.labels(LoginResult.OK.value).inc()
    _log.info("logged_in", account_id=identity.account_id, client=session.client, messages=len(drop))
    session.seat.log_in(identity.account_id)
    reading = MessagePrefetch(process.mailbox_reader, process.blobs, share, drop, session.connection.abort)
    return positive(f"{len(drop)} messages ({drop.octets} bytes)", Transaction(drop, lease, reading))


async def _refused(session: "Session", refusal: Refusal) -> Reply:
    """Guessing is slow: each failure of a session waits a little longer."""
    session.forget_login()
    session.logins_failed += 1
    await asyncio.sleep(min(session.logins_failed, _LONGEST) * session.process.settings.session.login_delay)
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
