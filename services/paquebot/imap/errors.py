"""Domain errors to replies: the one place that chooses IMAP texts and codes for them.

An outage of an engine is temporary: a retry helps. An unknown error is a fault of this server, and the reply reports
it, because a retry would fail again (RFC 5530 §3, SERVERBUG). Both have an id to find them in the log (invariant 8). No
text of an exception and no name of an engine reaches a client. Response codes are those of RFC 5530.
"""

from paquebot.blobs import BadPack, BlobMissing, BlobsRefused, new_ulid
from paquebot.imap import metrics
from paquebot.imap.fetch.sections import UnknownEncoding
from paquebot.imap.mailbox_view.view import NoSuchSequenceNumber
from paquebot.imap.reply import Reply, bad, no
from paquebot.mailstore.errors import (
    BadKeyword,
    BadMailboxName,
    LimitExceeded,
    MailboxExists,
    MailboxHasInferiors,
    MailboxProtected,
    NoSuchAccount,
    NoSuchMailbox,
    NotSelectable,
    OverQuota,
)
from paquebot.observability.log import Log
from paquebot.rpc import CallRefused
from paquebot.runtime.errors import EngineUnavailable
from paquebot.runtime.postgres.pool import PostgresRefused
from paquebot.runtime.shares.budget import OverBudget
from paquebot.spool import SpoolRefused
from paquebot.wire.imap import MailboxNameError
from paquebot.wire.imap import response_codes as codes

_log = Log("paquebot.imap")

_AWAY = (
    EngineUnavailable,
    BadPack,
    OverBudget,
    OSError,  # of a connection to an engine; TimeoutError is one
)


def reply_to(error: Exception) -> Reply:
    """The completion of a command that failed with `error`."""
    match error:
        case NoSuchSequenceNumber():
            return bad("There is no message with that number")
        case UnknownEncoding():
            return no("A part has an unknown transfer encoding", codes.UNKNOWN_CTE)
        case NoSuchMailbox():
            return no("No such mailbox", codes.NONEXISTENT)
        case NotSelectable():
            return no("The mailbox cannot be selected", codes.CANNOT)
        case MailboxExists():
            return no("A mailbox of that name exists", codes.ALREADYEXISTS)
        case MailboxHasInferiors():
            return no("The mailbox has inferior names", codes.HASCHILDREN)
        case MailboxProtected():
            return no("INBOX cannot be deleted", codes.CANNOT)
        case BadMailboxName():
            return no(error.why, codes.CANNOT)
        case MailboxNameError():
            return no(str(error), codes.CANNOT)
        case OverQuota():
            return no("The account is over its quota", codes.OVERQUOTA)
        case LimitExceeded():
            return no(f"At most {error.limit} are allowed", codes.LIMIT)
        case NoSuchAccount():
            return no("The account was removed", codes.AUTHORIZATIONFAILED)
        case _:
            return _of_values(error) or _failed(error)


def _of_values(error: Exception) -> Reply | None:
    """Values that can never be stored."""
    match error:
        case BadKeyword():
            return no("A flag of that name cannot be stored", codes.CANNOT)
        case PostgresRefused() | CallRefused():
            return no("A value of the command cannot be stored", codes.CANNOT)
        case SpoolRefused() | BlobsRefused():
            return no("The message is too large to be stored", codes.LIMIT)
        case _:
            return None


def _failed(error: Exception) -> Reply:
    incident = new_ulid()
    if isinstance(error, _AWAY):
        _log.warning("command_unavailable", incident=incident, reason=f"{type(error).__name__}: {error}")
        return no(f"Temporary failure, try again later ({incident})", codes.UNAVAILABLE)
    if isinstance(error, BlobMissing):
        _log.exception("message_lost", incident=incident)
        return no(f"A message is lost, please report it ({incident})", codes.CORRUPTION)
    metrics.UNEXPECTED.inc()
    _log.exception("command_failed", incident=incident)
    return no(f"Internal server error, please report it ({incident})", codes.SERVERBUG)


def missing_target(error: Exception) -> Reply:
    """The mailbox that APPEND, COPY or MOVE names: creating it may help (RFC 3501 §6.3.11, §6.4.7)."""
    if isinstance(error, NoSuchMailbox):
        return no("No such mailbox", codes.TRYCREATE)
    return reply_to(error)
