"""Decisions of the directory and the replies they get: verdicts at RCPT, and logins that no longer hold."""

from collections.abc import Mapping
from typing import Final

from paquebot.rpc import LoginEnd
from paquebot.v1 import recipient_validation_pb2 as pb
from paquebot.wire.smtp import replies
from paquebot.wire.smtp.replies import Reply

RCPT_REPLIES: Final[Mapping[int, Reply]] = {
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


def reply_to(validation: pb.Validation) -> Reply:
    """An unknown verdict, or an acceptance that leads nowhere, is temporary: nothing is known against it."""
    reply = RCPT_REPLIES.get(validation.verdict, replies.TEMPORARY_FAILURE)
    if reply is replies.RECIPIENT_OK and not (validation.local or validation.remote):
        return replies.TEMPORARY_FAILURE
    return reply


def login_ended(end: LoginEnd) -> Reply:
    """The reply that ends a session. Logging in anew is what tells a client whether it ever can (RFC 4954 §6)."""
    return replies.LOGIN_UNCHECKED if end is LoginEnd.UNCHECKED else replies.LOGIN_ENDED


def refusal_after(end: LoginEnd) -> Reply:
    """The same for a message: that of a disabled or removed account can never be sent."""
    return replies.LOGIN_DISABLED if end in (LoginEnd.DISABLED, LoginEnd.REMOVED) else login_ended(end)
