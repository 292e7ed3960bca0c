"""DATA and BDAT: the message itself, limited while it is read (invariant 7).

RFC 5321 §4.1.1.4, RFC 3030 §2, RFC 1870 §6.
"""

from paquebot.runtime.limits import OverBudget, Reservation
from paquebot.smtp_ingress.conversation import Conversation, HangUp
from paquebot.smtp_ingress.session import Transaction
from paquebot.wire.smtp import replies
from paquebot.wire.smtp.commands import BadCommand, Bdat, parse_bdat
from paquebot.wire.smtp.content import ChunkCollector, DataDecoder
from paquebot.wire.smtp.replies import Reply

_READ = 256 * 1024  # octets taken at once
_SLACK = 64 * 1024  # transparency dots and the end mark: the exact size is known after decoding


async def data(conversation: Conversation, argument: str) -> Reply:
    """RFC 5321 §4.1.1.4."""
    if argument:
        return replies.BAD_SYNTAX.with_text("Syntax: DATA")
    transaction = conversation.session.transaction
    if transaction is None:
        return replies.MAIL_FIRST
    if not len(transaction.recipients):
        return replies.NO_VALID_RECIPIENTS
    if refusal := _reserve(transaction.reservation, transaction.parameters.size):
        return refusal
    conversation.connection.reply(replies.START_DATA)
    decoder = DataDecoder()
    refusal = await _read_data(conversation, transaction, decoder)
    line = conversation.services.messages.line
    octets = decoder.octets
    reply = refusal or await conversation.services.acceptance.accept(
        conversation.session, transaction, lambda: decoder.content(max_line=line), octets
    )
    conversation.message_ended(reply)
    return reply


async def _read_data(conversation: Conversation, transaction: Transaction, decoder: DataDecoder) -> Reply | None:
    """Read to <CRLF>.<CRLF>, keeping no more than the limits allow; why not to take the message, or None."""
    connection, timeouts = conversation.connection, conversation.services.timeouts
    limit = conversation.services.messages.size + _SLACK
    refusal: Reply | None = None
    now = connection.loop.time
    last = now() + timeouts.message
    while True:
        octets = await connection.some(_READ, min(now() + timeouts.data, last))
        rest = decoder.feed(octets)
        if refusal is None:
            too_big = decoder.octets > limit
            refusal = replies.TOO_BIG if too_big else _reserve(transaction.reservation, decoder.octets)
        if rest is not None:
            connection.unread(rest)
            return refusal
        if refusal is not None:
            decoder.discard()
            transaction.reservation.release()
            if decoder.octets > 2 * limit:  # no sender of mail goes on for so long
                raise HangUp(refusal)


async def bdat(conversation: Conversation, argument: str) -> Reply:
    """RFC 3030 §2: the chunk is read in any case, for its octets follow the command at once."""
    try:
        command = parse_bdat(argument)
    except BadCommand:
        raise HangUp(replies.BDAT_SYNTAX) from None  # how much follows is not known
    limit = conversation.services.messages.size
    if command.size > limit:
        raise HangUp(replies.TOO_BIG)
    transaction = conversation.session.transaction
    refusal = _chunk_refusal(transaction, command, limit)
    await _read_chunk(conversation, command.size, None if refusal else transaction)
    if refusal is not None or transaction is None or transaction.chunks is None:
        return _broken(transaction, refusal or replies.MAIL_FIRST)
    if not command.last:
        return replies.chunk_received(command.size)
    chunks, line = transaction.chunks, conversation.services.messages.line
    reply = await conversation.services.acceptance.accept(
        conversation.session, transaction, lambda: chunks.content(max_line=line), chunks.octets
    )
    conversation.message_ended(reply)
    return reply


def _chunk_refusal(transaction: Transaction | None, command: Bdat, limit: int) -> Reply | None:
    """Why the chunk cannot be taken; else its octets are reserved."""
    if transaction is None:
        return replies.MAIL_FIRST
    if transaction.broken:
        return replies.BAD_SEQUENCE
    if not len(transaction.recipients):
        return replies.NO_VALID_RECIPIENTS
    transaction.chunks = transaction.chunks or ChunkCollector()
    octets = transaction.chunks.octets + command.size
    if octets > limit:
        return replies.TOO_BIG
    return _reserve(transaction.reservation, octets)


async def _read_chunk(conversation: Conversation, size: int, transaction: Transaction | None) -> None:
    """Exactly `size` octets, into the transaction's chunks or nowhere."""
    connection, timeouts = conversation.connection, conversation.services.timeouts
    now = connection.loop.time
    last = now() + timeouts.message
    left = size
    while left:
        octets = await connection.some(min(left, _READ), min(now() + timeouts.data, last))
        left -= len(octets)
        if transaction is not None and transaction.chunks is not None:
            transaction.chunks.feed(octets)


def _broken(transaction: Transaction | None, refusal: Reply) -> Reply:
    """RFC 3030 §2: after a failed BDAT only RSET makes the state known again."""
    if transaction is not None:
        transaction.broken = True
        transaction.chunks = ChunkCollector()  # what came is not needed any more
        transaction.reservation.release()
    return refusal


def _reserve(reservation: Reservation, octets: int) -> Reply | None:
    try:
        reservation.grow_to(octets)
    except OverBudget:
        return replies.OUT_OF_MEMORY
    return None
