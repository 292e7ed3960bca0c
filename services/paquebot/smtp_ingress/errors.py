"""Domain errors and decisions of the directory to SMTP replies: the one place that chooses them.

An engine that is away is 451: trying again helps. What is not known is a fault of ours, with an id to find it in the
log (invariant 8): 451 on MX, so that the sender's queue keeps the mail until the fault is mended; 554 on submission, so
that the person at the mail program learns of it now (docs/decisions/0038).
"""

from collections.abc import Mapping
from typing import Final

from paquebot.blobs import new_ulid
from paquebot.observability.log import Log
from paquebot.rpc import DirectoryUnavailable, LoginEnd
from paquebot.smtp_ingress import metrics
from paquebot.smtp_ingress.state import SessionState
from paquebot.spool import SpoolRefused, SpoolUnavailable
from paquebot.v1 import recipient_validation_pb2 as pb
from paquebot.wire.smtp import replies
from paquebot.wire.smtp.content import BadContent, BareLineEnd
from paquebot.wire.smtp.replies import Reply

_log = Log("paquebot.smtp")

_VERDICT_REPLIES: Final[Mapping[int, Reply]] = {
    pb.VERDICT_ACCEPT: replies.RECIPIENT_OK,
    pb.VERDICT_NO_SUCH_ACCOUNT: replies.NO_SUCH_ACCOUNT,
    pb.VERDICT_DISABLED: replies.ACCOUNT_DISABLED,
    pb.VERDICT_OVER_QUOTA: replies.OVER_QUOTA,
    pb.VERDICT_TOO_LARGE: replies.TOO_LARGE_FOR_MAILBOX,
    pb.VERDICT_RELAY_DENIED: replies.RELAY_DENIED,
    pb.VERDICT_BAD_ADDRESS: replies.BAD_ADDRESS,
    pb.VERDICT_ALIAS_LOOP: replies.ALIAS_LOOP,
    pb.VERDICT_DOMAIN_DISABLED: replies.DOMAIN_DISABLED,
}


def reply_to(error: Exception, state: SessionState) -> Reply:
    """The reply to a command that failed with `error`."""
    match error:
        case DirectoryUnavailable() | SpoolUnavailable():
            return replies.TEMPORARY_FAILURE
        case SpoolRefused():
            return replies.CANNOT_KEEP
        case BareLineEnd():
            return replies.BARE_LINE_END
        case BadContent():
            return replies.TEXT_LINE_TOO_LONG
        case _:
            return incident(state)


def incident(state: SessionState) -> Reply:
    """Log the exception that is being handled, and return the reply with its id."""
    incident_id = new_ulid()
    metrics.INCIDENTS.inc()
    _log.exception("command_failed", incident=incident_id, session=state.id)
    return replies.incident(incident_id, permanent=state.role.takes_logins)


def reply_to_validation(validation: pb.Validation) -> Reply:
    """The reply to RCPT. An unknown verdict, or an acceptance without a destination, is temporary."""
    reply = _VERDICT_REPLIES.get(validation.verdict, replies.TEMPORARY_FAILURE)
    if reply is replies.RECIPIENT_OK and not (validation.local or validation.remote):
        return replies.TEMPORARY_FAILURE
    return reply


def reply_to_login_end(end: LoginEnd) -> Reply:
    """The reply that ends a session. The client learns at its next login whether it can ever succeed (RFC 4954 §6)."""
    return replies.LOGIN_UNCHECKED if end is LoginEnd.UNCHECKED else replies.LOGIN_ENDED


def message_reply_to_login_end(end: LoginEnd) -> Reply:
    """The same for a message: that of a disabled or removed account can never be sent."""
    return replies.LOGIN_DISABLED if end in (LoginEnd.DISABLED, LoginEnd.REMOVED) else reply_to_login_end(end)
