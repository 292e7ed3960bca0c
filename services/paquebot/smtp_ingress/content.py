"""DATA and BDAT: the content of a message, limited while it is read (invariant 7).

Bytes are charged to the client's share as they arrive; a declared size reserves nothing. When smaller senders need the
memory of a large message, it is dropped, refused, and read to its end like any other message that is refused.
RFC 5321 §4.1.1.4, RFC 3030 §2, RFC 1870 §6.
"""

import functools
from collections.abc import Callable

from paquebot.runtime.net.pace import Pace
from paquebot.runtime.shares.budget import OverBudget
from paquebot.smtp_ingress import metrics
from paquebot.smtp_ingress.session import EndSession, Session
from paquebot.smtp_ingress.settings import SLACK
from paquebot.smtp_ingress.state import MailTransaction
from paquebot.wire.smtp import replies
from paquebot.wire.smtp.commands import BadCommand, Bdat, parse_bdat
from paquebot.wire.smtp.content import ChunkCollector, DataDecoder
from paquebot.wire.smtp.replies import Reply

_READ = 256 * 1024  # bytes read at once


async def data(session: Session, argument: str) -> Reply:
    """RFC 5321 §4.1.1.4."""
    if argument:
        return replies.BAD_SYNTAX.with_text("Syntax: DATA")
    transaction = session.state.transaction
    if transaction is None:
        return replies.MAIL_FIRST
    if not len(transaction.recipients):
        return replies.NO_VALID_RECIPIENTS
    session.connection.reply(replies.START_DATA)
    decoder = DataDecoder()
    transaction.reservation.offer(functools.partial(_revoked, decoder.discard))
    session.connection.content_begins()
    refusal = await _read_data(session, transaction, decoder)
    session.connection.content_ends()
    transaction.reservation.keep()
    line = session.context.messages.line
    size = decoder.size
    reply = refusal or await session.context.acceptance.accept(
        session.state, transaction, lambda: decoder.content(max_line=line), size
    )
    session.end_message(reply)
    return reply


async def _read_data(session: Session, transaction: MailTransaction, decoder: DataDecoder) -> Reply | None:
    """Read to <CRLF>.<CRLF> and keep no more than the limits allow; returns the refusal, if any."""
    connection, pace = session.connection, _pace(session)
    limit = session.context.messages.size + SLACK
    refusal: Reply | None = None
    while True:
        data = await connection.some(_READ, pace.deadline(session.context.timeouts.data))
        pace.came(len(data))
        rest = decoder.feed(data)
        if refusal is None:
            refusal = replies.TOO_BIG if decoder.size > limit else _charge(transaction, decoder.size)
        if rest is not None:
            connection.unread(rest)
            return refusal
        if refusal is not None:
            decoder.discard()
            transaction.reservation.release()
            session.count_discarded(len(data), refusal)


async def bdat(session: Session, argument: str) -> Reply:
    """RFC 3030 §2: the chunk is read in any case, for its bytes follow the command without waiting for a reply."""
    try:
        command = parse_bdat(argument)
    except BadCommand:
        raise EndSession(replies.BDAT_SYNTAX) from None  # the size of what follows is unknown
    if command.size > session.context.messages.size:
        raise EndSession(replies.TOO_BIG)
    transaction = session.state.transaction
    refusal = _chunk_refusal(session, transaction, command)
    session.connection.content_begins()
    refusal = await _read_chunk(session, command.size, transaction, refusal)
    session.connection.content_ends()
    if refusal is not None or transaction is None or transaction.chunks is None:
        return _broken(transaction, refusal or replies.MAIL_FIRST)
    if not command.last:
        return replies.chunk_received(command.size)
    transaction.reservation.keep()
    chunks, line = transaction.chunks, session.context.messages.line
    reply = await session.context.acceptance.accept(
        session.state, transaction, lambda: chunks.content(max_line=line), chunks.size
    )
    session.end_message(reply)
    return reply


def _chunk_refusal(session: Session, transaction: MailTransaction | None, command: Bdat) -> Reply | None:
    """Why the chunk is refused; None: the transaction is ready for it."""
    if transaction is None:
        return replies.MAIL_FIRST
    if transaction.broken:
        return replies.BAD_SEQUENCE
    if not len(transaction.recipients):
        return replies.NO_VALID_RECIPIENTS
    if transaction.chunks is None or transaction.pace is None:
        transaction.chunks, transaction.pace = ChunkCollector(), _pace(session)
        transaction.reservation.offer(functools.partial(_revoked, transaction.drop_chunks))
    else:
        transaction.pace.resume()
    too_big = transaction.chunks.size + command.size > session.context.messages.size
    return replies.TOO_BIG if too_big else _charge(transaction, transaction.chunks.size)


async def _read_chunk(
    session: Session, size: int, transaction: MailTransaction | None, refusal: Reply | None
) -> Reply | None:
    """Read exactly `size` bytes, into the transaction's chunks or to be dropped; returns the refusal, if any."""
    connection, timeouts = session.connection, session.context.timeouts
    pace = transaction.pace if transaction is not None and transaction.pace is not None else _pace(session)
    left = size
    while left:
        data = await connection.some(min(left, _READ), pace.deadline(timeouts.data))
        pace.came(len(data))
        left -= len(data)
        if refusal is None and transaction is not None and transaction.chunks is not None:
            refusal = _charge(transaction, transaction.chunks.size + len(data))
        if refusal is not None:
            _drop(transaction)
            session.count_discarded(len(data), refusal)
        elif transaction is not None and transaction.chunks is not None:
            transaction.chunks.feed(data)
    pace.pause()
    return refusal


def _broken(transaction: MailTransaction | None, refusal: Reply) -> Reply:
    """RFC 3030 §2: after a failed BDAT the state is indeterminate until RSET."""
    if transaction is not None:
        transaction.broken = True
        transaction.chunks = transaction.chunks or ChunkCollector()
    _drop(transaction)
    return refusal


def _drop(transaction: MailTransaction | None) -> None:
    if transaction is not None and transaction.chunks is not None:
        transaction.drop_chunks()
        transaction.reservation.release()


def _revoked(drop: Callable[[], None]) -> None:
    metrics.DISPLACED.inc()
    drop()


def _charge(transaction: MailTransaction, size: int) -> Reply | None:
    """Charge the transaction for `size` bytes in all; returns the refusal when the budget has no room."""
    try:
        transaction.reservation.grow_to(size)
    except OverBudget:
        return replies.OUT_OF_MEMORY
    return None


def _pace(session: Session) -> Pace:
    context = session.context
    return Pace(context.pace, session.connection.loop.time, context.timeouts.message)
