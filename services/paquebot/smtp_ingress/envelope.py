"""MAIL and RCPT: the envelope (RFC 5321 §4.1.1.2, §4.1.1.3), the right to send, and each recipient's destinations."""

from paquebot.observability import trace
from paquebot.observability.log import Log, shown
from paquebot.rpc import DirectoryUnavailable
from paquebot.smtp_ingress import metrics
from paquebot.smtp_ingress.errors import message_reply_to_login_end, reply_to, reply_to_validation
from paquebot.smtp_ingress.session import EndSession, Session
from paquebot.smtp_ingress.state import MailTransaction, SessionState
from paquebot.wire.smtp import replies
from paquebot.wire.smtp.commands import (
    BadCommand,
    BadPath,
    Mail,
    NonAsciiPath,
    NullPath,
    Rcpt,
    parse_mail,
    parse_rcpt,
)
from paquebot.wire.smtp.parameters import BadParameter, UnknownParameter
from paquebot.wire.smtp.replies import Reply

_log = Log("paquebot.smtp")
_MAX_DESTINATIONS = 900  # after aliases; each may be a job, and a batch has at most 1000


async def mail(session: Session, argument: str) -> Reply:
    state = session.state
    if state.hello is None:
        return replies.HELLO_FIRST
    if state.must_log_in:
        return replies.AUTH_REQUIRED  # RFC 6409 §4.3
    if state.transaction is not None:
        return replies.NESTED_MAIL
    if state.login is not None and (end := await session.context.logins.check(state.login, again=True)):
        raise EndSession(message_reply_to_login_end(end))
    try:
        command = parse_mail(argument, state.hello.extensions)
    except (BadCommand, BadParameter) as error:
        return _syntax_reply(error, replies.BAD_REVERSE_PATH)
    span = trace.root("smtp_ingress", listener=state.role.value, session=state.id)
    try:
        # RFC 1870 §6.1. The declared size is only compared with the limit: memory is charged for what arrives.
        too_big = command.parameters.size > session.context.messages.size
        if refusal := replies.TOO_BIG if too_big else await _not_owned(session, command, span.traceparent):
            span.set(reply=refusal.code)
            span.end()
            return refusal
        session.begin_transaction(
            lambda reservation: MailTransaction(command.reverse_path, command.parameters, reservation, span)
        )
    except BaseException as error:
        span.fail(type(error).__name__)
        span.end()
        raise
    return replies.SENDER_OK


async def rcpt(session: Session, argument: str) -> Reply:
    state = session.state
    transaction = state.transaction
    if state.hello is None or transaction is None:
        return replies.MAIL_FIRST
    try:
        command = parse_rcpt(argument, state.hello.extensions, smtputf8=transaction.parameters.smtputf8)
    except (BadCommand, BadParameter) as error:
        reply = _syntax_reply(error, replies.BAD_FORWARD_PATH)
    else:
        reply = await _add(session, transaction, command)
    metrics.RECIPIENTS_BY_CLASS[reply.code // 100].inc()
    return reply


async def _add(session: Session, transaction: MailTransaction, command: Rcpt) -> Reply:
    state, context, recipients = session.state, session.context, transaction.recipients
    if len(recipients) >= context.messages.recipients:
        return replies.TOO_MANY_RECIPIENTS  # RFC 5321 §4.5.3.1.10
    forward_path = str(command.forward_path)
    try:
        (validation,) = await context.validation.validate(
            (forward_path,),
            reverse_path=str(transaction.reverse_path),
            may_relay=state.may_relay,
            size=transaction.parameters.size,
            trace=transaction.trace,
        )
    except DirectoryUnavailable as error:
        return reply_to(error, state)
    reply = reply_to_validation(validation)
    if reply is not replies.RECIPIENT_OK:
        _log_refusal(state, forward_path, reply)
        return reply
    if recipients.destinations + len(validation.local) + len(validation.remote) > _MAX_DESTINATIONS:
        return replies.TOO_MANY_RECIPIENTS
    identity = state.identity
    if identity is not None and not context.rates.take(identity.account_id, identity.recipients_per_hour):
        _log.info("recipient_rate_reached", session=state.id, client=state.address, account_id=identity.account_id)
        return replies.TOO_MANY_IN_AN_HOUR
    recipients.add(forward_path, validation, command.parameters)
    return reply


def _log_refusal(state: SessionState, forward_path: str, reply: Reply) -> None:
    _log.info(
        "recipient_refused",
        session=state.id,
        client=state.address,
        forward_path=shown(forward_path),
        reply=str(reply),
    )


async def _not_owned(session: Session, command: Mail, traceparent: str) -> Reply | None:
    """RFC 6409 §6.1. Any login may use the null reverse-path: clients send disposition notifications with it."""
    state = session.state
    if state.identity is None or isinstance(command.reverse_path, NullPath):
        return None
    try:
        owned = await session.context.acceptance.authorship.owns(state, command.reverse_path, traceparent)
    except DirectoryUnavailable as error:
        return reply_to(error, state)
    return None if owned else replies.SENDER_NOT_OWNED


def _syntax_reply(error: BadCommand | BadParameter, bad_path: Reply) -> Reply:
    match error:
        case UnknownParameter():
            return replies.UNKNOWN_PARAMETER
        case BadParameter():
            return replies.BAD_PARAMETER
        case NonAsciiPath():
            return replies.NON_ASCII_ADDRESS
        case BadPath():
            return bad_path
        case _:
            return replies.BAD_SYNTAX
