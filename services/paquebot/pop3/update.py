"""What a session leaves behind: the UPDATE state after QUIT (RFC 1939 §6), or nothing deleted after any other end."""

from typing import TYPE_CHECKING

from paquebot.blobs import new_ulid
from paquebot.mailstore import Flag, FlagOp
from paquebot.mailstore.errors import MaildropLost
from paquebot.observability.log import Log
from paquebot.pop3 import metrics
from paquebot.pop3.context import ServerContext
from paquebot.pop3.maildrop import OpenMaildrop
from paquebot.pop3.reply import Reply, positive
from paquebot.pop3.states import SessionEnded, Transaction
from paquebot.runtime.postgres.pool import PostgresUnavailable
from paquebot.wire.pop3 import Code, err

if TYPE_CHECKING:
    from paquebot.pop3.session import Session

_log = Log("paquebot.pop3.update")


async def apply(session: "Session", state: Transaction) -> Reply:
    """QUIT: the marked messages go away in one transaction with the lock, all or none; then the session ends.

    RFC 1939 §6: -ERR when they were not removed. After PostgreSQL went away in the middle nobody here can know.
    """
    drop = state.drop
    deleted = drop.deleted_uids()
    try:
        await _delete(state, deleted)
    except MaildropLost:
        return _failed("Another session has this maildrop: no message was deleted")
    except Exception as error:  # noqa: BLE001 - the end of the session: logged with an id, and answered
        incident = new_ulid()
        _log.exception("update_failed", incident=incident, messages=len(deleted))
        await state.lease.give_back()
        code = Code.SYS_TEMP if isinstance(error, PostgresUnavailable) else Code.SYS_PERM
        return _failed(f"Some deleted messages may not be removed ({incident})", code)
    changed = await _mark_seen(session.process, drop, set(deleted))
    if deleted or changed:
        await session.process.queue.hint_mailbox(drop.account_id)  # invariant 4: after the commit
    return positive(f"Bye, {len(drop)} messages left", SessionEnded())


async def _delete(state: Transaction, deleted: list[int]) -> None:
    drop = state.drop
    if not deleted:
        await state.lease.give_back()
        return
    expunged = await state.lease.close(drop.mailbox_id, deleted)
    metrics.DELETED.inc(len(expunged.uids))
    _log.info("deleted", account_id=drop.account_id, messages=len(expunged.uids))


def _failed(text: str, code: Code = Code.SYS_TEMP) -> Reply:
    metrics.UPDATES_FAILED.inc()
    return Reply(err(text, code), SessionEnded())


async def abandon(process: ServerContext, state: Transaction) -> None:
    """Any end but QUIT: nothing is deleted (RFC 1939 §3, §6), and the maildrop is free at once."""
    state.reading.forget()
    await state.lease.give_back()
    if await _mark_seen(process, state.drop, set()):
        await process.queue.hint_mailbox(state.drop.account_id)


async def _mark_seen(process: ServerContext, drop: OpenMaildrop, deleted: set[int]) -> bool:
    """What was retrieved is read, as people who use IMAP beside POP3 expect: one statement for the session.

    True: a flag changed. A failure is only logged: the client has its mail, and nothing else depends on it.
    """
    uids = [uid for uid in drop.retrieved_uids() if uid not in deleted]
    if not uids or not process.settings.maildrop.marks_seen:
        return False
    try:
        result = await process.messages.store_flags(drop.account_id, drop.mailbox_id, uids, FlagOp.ADD, flags=Flag.SEEN)
    except Exception:  # noqa: BLE001 - whatever it is, the session's own work is done
        _log.exception("not_marked_seen", messages=len(uids))
        return False
    return bool(result.changed)
