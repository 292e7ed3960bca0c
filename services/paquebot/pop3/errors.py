"""Domain errors to replies: the one place where POP3 words are chosen for them.

An engine that does not answer is SYS/TEMP: trying again helps. What is not known is a fault of ours, SYS/PERM: somebody
must look. Both have an id to find it in the log (invariant 8); no text of an exception, no name of an engine reaches a
client. Codes are those of RFC 2449 §8 and RFC 3206.
"""

from paquebot.blobs import BadPack, BlobMissing, new_ulid
from paquebot.mailstore.errors import MaildropLocked, MaildropLost, NoSuchAccount
from paquebot.observability.log import Log
from paquebot.pop3 import metrics
from paquebot.pop3.maildrop import NoSuchMessage
from paquebot.pop3.prefetch import MessageGone, MessageUnreadable
from paquebot.pop3.reply import Reply, fault, negative
from paquebot.rpc import CallRefused
from paquebot.runtime.errors import EngineUnavailable
from paquebot.runtime.postgres.pool import PostgresRefused
from paquebot.runtime.shares.in_flight import OverBudget
from paquebot.wire.pop3 import Code

_log = Log("paquebot.pop3")

# BadPack: what S3 answered was wrong twice, and may be right the next time.
_AWAY = (EngineUnavailable, BadPack, OverBudget)


def reply_to(error: Exception) -> Reply:
    """The answer to a command that failed with `error`."""
    match error:
        case NoSuchMessage():
            return negative("No such message")
        case MessageGone():
            return negative("The message was removed by another session")
        case MaildropLocked():
            return fault("Another session has this maildrop", Code.IN_USE)
        case MaildropLost():
            return negative("The maildrop was given to another session", Code.SYS_TEMP)
        case NoSuchAccount():
            return fault("The account was removed", Code.SYS_PERM)
        case BlobMissing() | MessageUnreadable():
            return _lost()
        case PostgresRefused() | CallRefused():
            return fault("A value of the command cannot be used")
        case _:
            return _failed(error)


def _lost() -> Reply:
    """RFC 3206 §3: waiting does not help, somebody must look."""
    incident = new_ulid()
    _log.exception("message_lost", incident=incident)
    return negative(f"The message cannot be read; please report {incident}", Code.SYS_PERM)


def _failed(error: Exception) -> Reply:
    incident = new_ulid()
    if isinstance(error, _AWAY):
        _log.warning("command_unavailable", incident=incident, reason=f"{type(error).__name__}: {error}")
        return negative(f"Temporary failure, try again later ({incident})", Code.SYS_TEMP)
    metrics.UNEXPECTED.inc()
    _log.exception("command_failed", incident=incident)
    return negative(f"The server failed, and trying again will not help; please report {incident}", Code.SYS_PERM)
