"""The end of a session: the UPDATE state after QUIT (RFC 1939 §6), or an end without QUIT, which deletes nothing."""

from paquebot.blobs import new_ulid
from paquebot.mailstore import Flag, FlagOp
from paquebot.mailstore.errors import MaildropLost
from paquebot.observability.log import Log
from paquebot.pop3 import metrics
from paquebot.pop3.context import ServerContext
from paquebot.pop3.maildrop import OpenMaildrop
from paquebot.pop3.reply import Reply, positive
from paquebot.pop3.states import SessionEnded, TransactionState
from paquebot.runtime.postgres.pool import PostgresUnavailable
from paquebot.wire.pop3 import Code, err

_log = Log("paquebot.pop3.update")


async def apply(context: ServerContext, state: TransactionState) -> Reply:
    """QUIT: delete all marked messages and release the lock, in one database transaction; then the session ends.

    RFC 1939 §6: -ERR when they were not removed. If PostgreSQL fails before it answers, the result is unknown.
    """
    maildrop = state.maildrop
    deleted = maildrop.deleted_uids()
    try:
        await _delete(state, deleted)
    except MaildropLost:
        return _failed("Another session has this maildrop: no message was deleted")
    except Exception as error:  # noqa: BLE001 - the end of the session: logged with an id, and answered
        incident = new_ulid()
        _log.exception("update_failed", incident=incident, messages=len(deleted))
        await state.lease.release()
        code = Code.SYS_TEMP if isinstance(error, PostgresUnavailable) else Code.SYS_PERM
        return _failed(f"Some deleted messages may not be removed ({incident})", code)
    changed = await _mark_seen(context, maildrop, set(deleted))
    if deleted or changed:
        await context.queue.hint_mailbox(maildrop.account_id)  # invariant 4: after the commit
    return positive(f"Bye, {len(maildrop)} messages left", SessionEnded())


async def _delete(state: TransactionState, deleted: list[int]) -> None:
    maildrop = state.maildrop
    if not deleted:
        await state.lease.release()
        return
    expunged = await state.lease.close(maildrop.mailbox_id, deleted)
    metrics.DELETED.inc(len(expunged.uids))
    _log.info("messages_deleted", account_id=maildrop.account_id, messages=len(expunged.uids))


def _failed(text: str, code: Code = Code.SYS_TEMP) -> Reply:
    metrics.UPDATES_FAILED.inc()
    return Reply(err(text, code), SessionEnded())


async def abandon(context: ServerContext, state: TransactionState) -> None:
    """Any end but QUIT: nothing is deleted (RFC 1939 §3, §6), and the maildrop is free at once."""
    state.prefetch.forget()
    await state.lease.release()
    if await _mark_seen(context, state.maildrop, set()):
        await context.queue.hint_mailbox(state.maildrop.account_id)


async def _mark_seen(context: ServerContext, maildrop: OpenMaildrop, deleted: set[int]) -> bool:
    """Set \\Seen on retrieved messages, as people who also use IMAP expect: one statement for the session.

    True: a flag changed. A failure is only logged: the client has its mail.
    """
    uids = [uid for uid in maildrop.retrieved_uids() if uid not in deleted]
    if not uids or not context.settings.maildrop.marks_seen:
        return False
    try:
        result = await context.messages.store_flags(
            maildrop.account_id, maildrop.mailbox_id, uids, FlagOp.ADD, flags=Flag.SEEN
        )
    except Exception:  # noqa: BLE001 - logged: the deletions are done
        _log.exception("mark_seen_failed", messages=len(uids))
        return False
    return bool(result.changed)
