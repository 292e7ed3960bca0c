"""The decision at RCPT: each verdict of recipient_validation and the reply it gets."""

from collections.abc import Mapping
from typing import Final

from paquebot.v1 import recipient_validation_pb2 as pb
from paquebot.wire.smtp import replies
from paquebot.wire.smtp.replies import Reply

RCPT_REPLIES: Final[Mapping[int, Reply]] = {
    pb.VERDICT_ACCEPT: replies.RECIPIENT_OK,
    pb.VERDICT_NO_SUCH_ACCOUNT: replies.NO_SUCH_ACCOUNT,
    pb.VERDICT_DISABLED: replies.ACCOUNT_DISABLED,
    pb.VERDICT_OVER_QUOTA: replies.OVER_QUOTA,
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
