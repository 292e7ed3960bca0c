"""Domain errors and ends of sessions to replies: the one place that chooses them.

An engine that is away is SYS/TEMP: trying again helps. An unknown error is a fault of ours, SYS/PERM: an administrator
must act. Both have an id to find it in the log (invariant 8); no text of an exception, no name of an engine reaches a
client. Codes are those of RFC 2449 §8 and RFC 3206.
"""

from paquebot.blobs import BadPack, BlobMissing, new_ulid
from paquebot.mailstore.errors import MaildropLocked, MaildropLost, NoSuchAccount
from paquebot.observability.log import Log
from paquebot.pop3 import metrics
from paquebot.pop3.maildrop import NoSuchMessage
from paquebot.pop3.metrics import SessionEnd
from paquebot.pop3.reading import MessageGone, MessageUnreadable
from paquebot.pop3.reply import Reply, fault, negative
from paquebot.rpc import CallRefused, LoginEnd, SessionLogin
from paquebot.runtime.errors import EngineUnavailable
from paquebot.runtime.postgres.pool import PostgresRefused
from paquebot.runtime.shares.budget import OverBudget
from paquebot.wire.pop3 import Code, err

_log = Log("paquebot.pop3")

# BadPack: the bytes from S3 were damaged twice, and may be whole the next time.
_AWAY = (EngineUnavailable, BadPack, OverBudget)

_FAREWELLS = {
    SessionEnd.DISPLACED: "Too many connections, try again later",
    SessionEnd.DRAIN: "Server shutting down",
    SessionEnd.LEASE_LOST: "The maildrop was given to another session",
}
# RFC 3206 §3, §4: are the credentials at fault?
_LOGIN_FAREWELLS = {
    LoginEnd.DISABLED: ("The account is disabled", Code.AUTH),
    LoginEnd.REMOVED: ("The account was removed", Code.AUTH),
    LoginEnd.REVOKED: ("The password of this session is no longer valid", Code.AUTH),
    LoginEnd.UNCHECKED: ("The login cannot be checked now, try again later", Code.SYS_TEMP),
}


def reply_to(error: Exception) -> Reply:
    """The reply to a command that failed with `error`."""
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
    """RFC 3206 §3: waiting does not help, an administrator must act."""
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


def farewell(end: SessionEnd, login: SessionLogin | None) -> bytes:
    """The last line to a client whose session ends without QUIT; empty for one that was inactive (RFC 1939 §3)."""
    if end is SessionEnd.LOGIN_ENDED:
        assert login is not None and login.end is not None
        return err(*_LOGIN_FAREWELLS[login.end])
    return err(_FAREWELLS[end], Code.SYS_TEMP) if end in _FAREWELLS else b""
