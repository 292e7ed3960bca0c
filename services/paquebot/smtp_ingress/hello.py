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
    """EHLO keywords offered, each with its parameters (RFC 5321 §4.1.1.1); made once for all who get the same."""
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


async def ehlo(conversation: Session, argument: str) -> Reply:
    """RFC 5321 §4.1.4: a new EHLO resets as RSET does; a login stays."""
    try:
        name = parse_hello(argument)
    except BadCommand:
        return replies.BAD_SYNTAX.with_text("Syntax: EHLO domain")
    conversation.end_transaction()
    session, services = conversation.session, conversation.services
    offered = offer(
        services.hostname,
        services.messages.size,
        starttls=services.tls is not None and session.tls is None,  # RFC 3207 §4.2: not again after the handshake
        auth=session.role.takes_logins and session.tls is not None,  # RFC 4954 §4, §14: passwords over TLS only
    )
    session.hello = Hello(name, True, offered.extensions)
    return offered.reply


async def helo(conversation: Session, argument: str) -> Reply:
    try:
        name = parse_hello(argument)
    except BadCommand:
        return replies.BAD_SYNTAX.with_text("Syntax: HELO domain")
    conversation.end_transaction()
    conversation.session.hello = Hello(name, False, frozenset())
    return Reply(250, "", conversation.services.hostname)


async def starttls(conversation: Session, argument: str) -> Reply | None:
    """RFC 3207 §4. Bytes after the command in clear never get here: the command stands alone in its group."""
    if argument:
        return replies.BAD_SYNTAX.with_text("Syntax: STARTTLS")
    if conversation.session.tls is not None:
        return replies.TLS_ACTIVE
    if conversation.services.tls is None:
        return replies.NOT_IMPLEMENTED
    conversation.connection.reply(replies.READY_FOR_TLS)
    await conversation.start_tls()
    return None


async def rset(conversation: Session, argument: str) -> Reply:
    if argument:
        return replies.BAD_SYNTAX.with_text("Syntax: RSET")
    conversation.end_transaction()
    return replies.RESET


async def noop(conversation: Session, argument: str) -> Reply:
    return replies.NOOP_OK


async def help_(conversation: Session, argument: str) -> Reply:
    return _HELP


async def vrfy(conversation: Session, argument: str) -> Reply:
    """RFC 5321 §7.3: who exists is not told."""
    return replies.CANNOT_VERIFY if argument else replies.BAD_SYNTAX.with_text("Syntax: VRFY address")


async def expn(conversation: Session, argument: str) -> Reply:
    return replies.NOT_IMPLEMENTED


async def quit_(conversation: Session, argument: str) -> Reply:
    return replies.BYE
