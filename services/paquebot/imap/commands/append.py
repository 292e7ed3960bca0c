"""APPEND (RFC 3501 §6.3.11), with several messages (RFC 3502), limits before reading (RFC 7889), UIDPLUS (RFC 4315).

The message is in S3 before its row is in the mailbox; several messages arrive together or not at all.
"""

import asyncio
import datetime
from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from paquebot.imap import metrics
from paquebot.imap.errors import missing_target
from paquebot.imap.mailbox_view.changes import MailboxChange
from paquebot.imap.mailbox_view.flags import parse_flags
from paquebot.imap.reply import Reply, no, ok
from paquebot.imap.states import Authenticated, LoggedIn, Selected
from paquebot.mailstore import Appended, FlagRows, NewMessage
from paquebot.mailstore.dates import storable
from paquebot.mailstore.errors import MailboxError, NotSelectable, OverQuota, TooManyKeywords
from paquebot.mailstore.mailboxes.names import INBOX, INBOX_ID, normal
from paquebot.spool import Stored
from paquebot.wire.imap import ast, response_codes, responses

if TYPE_CHECKING:
    from paquebot.imap.session import Session


async def refusal(session: "Session", command: ast.Append) -> bytes | None:
    """Why the last message of `command` must not be read, as a tagged line; None: it may.

    Mailbox, quota and size are looked at before the client sends the message.
    """
    state = session.state
    if not isinstance(state, Authenticated | Selected):
        return responses.bad(command.tag, "Not in this state")
    coming = sum(message.size for message in command.messages)
    if not command.messages[-1].size:
        return responses.no(command.tag, "A message cannot be empty")  # RFC 3502 §6.3.11: this cancels
    try:
        session.reader.uploads.mailbox_id = await _room_for(session, state, command.mailbox, coming)
    except Exception as error:  # noqa: BLE001 - answered like a failure of the command itself
        return missing_target(error).completion(command.tag)
    return None


async def _room_for(session: "Session", state: LoggedIn, name: str, octets: int) -> int:
    """The mailbox's id. Raises NoSuchMailbox, NotSelectable, OverQuota."""
    process, account = session.process, state.account
    if account.quota_bytes:
        usage = await process.accounts.usage(account.account_id)
        if usage.total_size + octets > account.quota_bytes:
            raise OverQuota(account.quota_bytes, usage.total_size, octets)
    if normal(name) == INBOX:  # always there, under this id
        return INBOX_ID
    mailbox = await process.mailboxes.find(account.account_id, name)
    if not mailbox.selectable:
        raise NotSelectable(name)
    return mailbox.mailbox_id


async def append(session: "Session", state: LoggedIn, command: ast.Append) -> Reply:
    """RFC 3501 §6.3.11"""
    process, account = session.process, state.account
    uploads, mailbox_id = session.reader.uploads.take(), session.reader.uploads.mailbox_id
    if len(uploads) != len(command.messages):
        return no("Too many messages at once, try again later", response_codes.UNAVAILABLE)
    try:
        stored = await _store(session, uploads, account.account_id)
        messages = [_new_message(one, asked) for one, asked in zip(stored, command.messages, strict=True)]
        selected = state if isinstance(state, Selected) and state.mailbox_id == mailbox_id else None
        claim = selected is not None and not selected.read_only
        try:
            appended = await _appended(session, state, mailbox_id, messages, claim=claim)
        except TooManyKeywords:
            messages = await _with_known_keywords(session, state, mailbox_id, messages)
            appended = await _appended(session, state, mailbox_id, messages, claim=claim)
    except MailboxError as error:
        return missing_target(error)
    for one, raw in zip(stored, uploads, strict=True):
        process.bodies.keep(one.blob, raw)
    metrics.APPENDED.inc(sum(one.size for one in stored))
    _announce(session, selected, messages, appended)
    code = response_codes.append_uid(appended.uid_validity, appended.uids)
    return ok("APPEND completed", code)


async def _appended(
    session: "Session", state: LoggedIn, mailbox_id: int, messages: Sequence[NewMessage], *, claim: bool
) -> Appended:
    account = state.account
    return await session.process.messages.append(
        account.account_id, mailbox_id, messages, quota_bytes=account.quota_bytes, claim=claim
    )


async def _with_known_keywords(
    session: "Session", state: LoggedIn, mailbox_id: int, messages: Sequence[NewMessage]
) -> list[NewMessage]:
    """The messages without the keywords that their mailbox has no room for: no keyword is worth a message."""
    mailboxes = await session.process.mailboxes.list_all(state.account.account_id)
    known = {word.lower() for one in mailboxes if one.mailbox_id == mailbox_id for word in one.keywords}
    return [replace(one, keywords=tuple(word for word in one.keywords if word.lower() in known)) for one in messages]


def _announce(
    session: "Session", selected: Selected | None, messages: Sequence[NewMessage], appended: Appended
) -> None:
    """Let this session, and the others, see the messages."""
    assert session.watch is not None
    if selected is None:
        session.changed()
        return
    if appended.claimed is not None:
        selected.view.claim(appended.claimed)
    if appended.claimed is None or any(message.keywords for message in messages):  # not all of it is known here
        session.watch.dirty = True
        session.changed()
        return
    rows = FlagRows(
        uids=array("I", appended.uids),
        flags=bytes(message.flags for message in messages),
        mod_seqs=array("Q", [appended.mod_seq] * len(messages)),
    )
    session.changed(MailboxChange(selected.mailbox_id, appended.mod_seq, rows))
    session.watch.awaited = max(session.watch.awaited, appended.mod_seq)


async def _store(session: "Session", uploads: list[bytes], account_id: int) -> list[Stored]:
    """All messages in S3, committed together with whatever others commit now."""
    spool = session.process.spool
    spool.join()
    try:
        return await asyncio.gather(*(spool.store(raw, account_id=account_id) for raw in uploads))
    finally:
        spool.leave()


def _new_message(stored: Stored, asked: ast.AppendMessage) -> NewMessage:
    flags, keywords = parse_flags(asked.flags)
    return NewMessage(
        email_id=stored.queue_id,
        blob=stored.blob,
        summary=stored.summary.SerializeToString(),
        thread_key=stored.summary.thread_key,
        internal_date=storable(asked.internal_date or datetime.datetime.now(datetime.UTC)),
        flags=flags,
        keywords=keywords,
        crlf_bytes=stored.crlf_bytes,
    )
