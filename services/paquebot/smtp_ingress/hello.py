"""Commands outside a mail transaction: HELO, EHLO, STARTTLS, RSET, NOOP, HELP, VRFY, EXPN, QUIT.

RFC 5321 §4.1.1, RFC 3207 §4.
"""

import functools
from dataclasses import dataclass

from paquebot.smtp_ingress.session import Session
from paquebot.smtp_ingress.state import Hello
from paquebot.wire.smtp import replies
from paquebot.wire.smtp.commands import BadCommand, parse_hello
from paquebot.wire.smtp.replies import Reply

MECHANISMS = ("PLAIN", "LOGIN")
_HELP = Reply(
    214,
    "2.0.0",
    "Commands: HELO EHLO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT\nSee RFC 5321",
)


@dataclass(frozen=True, slots=True)
class Offer:
    """The reply to EHLO, and the keywords in it."""

    reply: Reply
    extensions: frozenset[str]


@functools.lru_cache(maxsize=64)
def offer(hostname: str, size: int, *, starttls: bool, auth: bool) -> Offer:
    """EHLO keywords, each with its parameters (RFC 5321 §4.1.1.1). Cached: most clients get the same."""
    offered = {
        "PIPELINING": "",  # RFC 2920
        "SIZE": str(size),  # RFC 1870
        "8BITMIME": "",  # RFC 6152
        "SMTPUTF8": "",  # RFC 6531
        "ENHANCEDSTATUSCODES": "",  # RFC 2034
        "DSN": "",  # RFC 3461
        "CHUNKING": "",  # RFC 3030
    }
    if starttls:
        offered["STARTTLS"] = ""
    if auth:
        offered["AUTH"] = " ".join(MECHANISMS)
    offered["HELP"] = ""
    lines = [f"{keyword} {value}" if value else keyword for keyword, value in offered.items()]
    # RFC 2034 §4: no enhanced status in replies to HELO and EHLO
    return Offer(Reply(250, "", "\n".join((hostname, *lines))), frozenset(offered))


async def ehlo(session: Session, argument: str) -> Reply:
    """RFC 5321 §4.1.4: a new EHLO resets as RSET does; a login stays."""
    try:
        name = parse_hello(argument)
    except BadCommand:
        return replies.BAD_SYNTAX.with_text("Syntax: EHLO domain")
    session.end_transaction()
    state, context = session.state, session.context
    offered = offer(
        context.hostname,
        context.messages.size,
        starttls=context.tls is not None and state.tls is None,  # RFC 3207 §4.2: not again after the handshake
        auth=state.role.takes_logins and state.tls is not None,  # RFC 4954 §4, §14: passwords over TLS only
    )
    state.hello = Hello(name, True, offered.extensions)
    return offered.reply


async def helo(session: Session, argument: str) -> Reply:
    try:
        name = parse_hello(argument)
    except BadCommand:
        return replies.BAD_SYNTAX.with_text("Syntax: HELO domain")
    session.end_transaction()
    session.state.hello = Hello(name, False, frozenset())
    return Reply(250, "", session.context.hostname)


async def starttls(session: Session, argument: str) -> Reply | None:
    """RFC 3207 §4. No bytes in the clear follow the command: its rule is `alone`."""
    if argument:
        return replies.BAD_SYNTAX.with_text("Syntax: STARTTLS")
    if session.state.tls is not None:
        return replies.TLS_ACTIVE
    if session.context.tls is None:
        return replies.NOT_IMPLEMENTED
    session.connection.reply(replies.READY_FOR_TLS)
    await session.start_tls()
    return None


async def rset(session: Session, argument: str) -> Reply:
    if argument:
        return replies.BAD_SYNTAX.with_text("Syntax: RSET")
    session.end_transaction()
    return replies.RESET


async def noop(session: Session, argument: str) -> Reply:
    return replies.NOOP_OK


async def help_(session: Session, argument: str) -> Reply:
    return _HELP


async def vrfy(session: Session, argument: str) -> Reply:
    """RFC 5321 §7.3: VRFY must not reveal which accounts exist."""
    return replies.CANNOT_VERIFY if argument else replies.BAD_SYNTAX.with_text("Syntax: VRFY address")


async def expn(session: Session, argument: str) -> Reply:
    return replies.NOT_IMPLEMENTED


async def quit_(session: Session, argument: str) -> Reply:
    return replies.BYE
