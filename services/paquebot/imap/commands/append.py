"""APPEND (RFC 3501 §6.3.11), with several messages (RFC 3502), limits before reading (RFC 7889), UIDPLUS (RFC 4315).

The message is in S3 before its row is in the mailbox; the messages of one command are all appended, or none.
"""

import asyncio
import datetime
from array import array
from collections.abc import Sequence
from dataclasses import replace

from paquebot.imap import metrics
from paquebot.imap.commands.context import CommandContext
from paquebot.imap.errors import missing_target
from paquebot.imap.mailbox_view.feed import MailboxChange
from paquebot.imap.mailbox_view.view import parse_flags
from paquebot.imap.reply import Reply, no, ok
from paquebot.imap.states import Authenticated, LoggedIn, Selected, SessionState
from paquebot.mailstore import Appended, FlagRows, NewMessage
from paquebot.mailstore.dates import storable
from paquebot.mailstore.errors import MailboxError, NotSelectable, OverQuota, TooManyKeywords
from paquebot.mailstore.mailboxes.names import INBOX, INBOX_ID, normal
from paquebot.spool import Stored
from paquebot.wire.imap import ast, response_codes, responses


async def refusal(context: CommandContext, state: SessionState, command: ast.Append) -> bytes | None:
    """The tagged line that refuses the last message of `command`; None: read it.

    Mailbox, quota and size are checked before the client sends the message.
    """
    if not isinstance(state, Authenticated | Selected):
        return responses.bad(command.tag, "Not in this state")
    size = sum(message.size for message in command.messages)
    if not command.messages[-1].size:
        return responses.no(command.tag, "A message cannot be empty")  # RFC 3502 §6.3.11: this cancels
    try:
        context.reader.uploads.mailbox_id = await _mailbox_with_room(context, state, command.mailbox, size)
    except Exception as error:  # noqa: BLE001 - answered like a failure of the command itself
        return missing_target(error).completion(command.tag)
    return None


async def _mailbox_with_room(context: CommandContext, state: LoggedIn, name: str, size: int) -> int:
    """The mailbox's id. Raises NoSuchMailbox, NotSelectable, OverQuota."""
    server, account = context.server, state.account
    if account.quota_bytes:
        usage = await server.accounts.usage(account.account_id)
        if usage.total_size + size > account.quota_bytes:
            raise OverQuota(account.quota_bytes, usage.total_size, size)
    if normal(name) == INBOX:  # it always exists, under this id
        return INBOX_ID
    mailbox = await server.mailboxes.find(account.account_id, name)
    if not mailbox.selectable:
        raise NotSelectable(name)
    return mailbox.mailbox_id


async def append(context: CommandContext, state: LoggedIn, command: ast.Append) -> Reply:
    """RFC 3501 §6.3.11"""
    account = state.account
    contents, mailbox_id = context.reader.uploads.take(), context.reader.uploads.mailbox_id
    if len(contents) != len(command.messages):
        return no("Too many messages at once, try again later", response_codes.UNAVAILABLE)
    try:
        stored = await _store(context, contents, account.account_id)
        messages = [_new_message(one, asked) for one, asked in zip(stored, command.messages, strict=True)]
        selected = state if isinstance(state, Selected) and state.mailbox_id == mailbox_id else None
        claim = selected is not None and not selected.read_only
        try:
            appended = await _appended(context, state, mailbox_id, messages, claim=claim)
        except TooManyKeywords:
            messages = await _with_known_keywords(context, state, mailbox_id, messages)
            appended = await _appended(context, state, mailbox_id, messages, claim=claim)
    except MailboxError as error:
        return missing_target(error)
    for one, content in zip(stored, contents, strict=True):
        context.server.bodies.keep(one.blob, content)
    metrics.APPENDED.inc(sum(one.size for one in stored))
    _announce(context, selected, messages, appended)
    code = response_codes.append_uid(appended.uid_validity, appended.uids)
    return ok("APPEND completed", code)


async def _appended(
    context: CommandContext, state: LoggedIn, mailbox_id: int, messages: Sequence[NewMessage], *, claim: bool
) -> Appended:
    account = state.account
    return await context.server.messages.append(
        account.account_id, mailbox_id, messages, quota_bytes=account.quota_bytes, claim=claim
    )


async def _with_known_keywords(
    context: CommandContext, state: LoggedIn, mailbox_id: int, messages: Sequence[NewMessage]
) -> list[NewMessage]:
    """The messages without the keywords that their mailbox has no room for: better to lose a keyword than a message."""
    mailboxes = await context.server.mailboxes.list_all(state.account.account_id)
    known = {word.lower() for one in mailboxes if one.mailbox_id == mailbox_id for word in one.keywords}
    return [replace(one, keywords=tuple(word for word in one.keywords if word.lower() in known)) for one in messages]


def _announce(
    context: CommandContext, selected: Selected | None, messages: Sequence[NewMessage], appended: Appended
) -> None:
    """Show the messages to this session and to the others of the account."""
    assert context.watch is not None
    if selected is None:
        context.announce()
        return
    if appended.claimed is not None:
        selected.view.claim(appended.claimed)
    if appended.claimed is None or any(message.keywords for message in messages):  # PostgreSQL knows the rest
        context.watch.dirty = True
        context.announce()
        return
    rows = FlagRows(
        uids=array("I", appended.uids),
        flags=bytes(message.flags for message in messages),
        mod_seqs=array("Q", [appended.mod_seq] * len(messages)),
    )
    context.announce(MailboxChange(selected.mailbox_id, appended.mod_seq, rows))
    context.watch.awaited = max(context.watch.awaited, appended.mod_seq)


async def _store(context: CommandContext, contents: list[bytes], account_id: int) -> list[Stored]:
    """Store all messages in S3, in one commit with what other sessions store now."""
    spool = context.server.spool
    spool.join()
    try:
        return await asyncio.gather(*(spool.store(content, account_id=account_id) for content in contents))
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
