"""How many bytes RETR will send of messages of which no program has counted it yet (RFC 1939 §11).

LIST and STAT tell what is sent: a lone LF counts as two bytes, and a last line without an end gets one. APPEND counts
that and what comes over SMTP has no such lines. So only what older programs appended has to be read for it, once: the
newest messages first, a bounded number of bytes at a login, and what is found out is kept.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace

from paquebot.blobs import BlobStore
from paquebot.mailstore import MailboxReader, Maildrop, MaildropMessage, Maildrops
from paquebot.message import crlf_bytes
from paquebot.observability.log import Log
from paquebot.runtime.shares.account_gate import Share

_log = Log("paquebot.pop3.measuring")
_GROUP_BYTES = 1024 * 1024
_GROUP_MESSAGES = 500
_MESSAGES = 10_000  # of a login
_SECONDS = 15.0  # of a login, however slow S3 is


async def measured(
    maildrops: Maildrops,
    mailbox_reader: MailboxReader,
    blobs: BlobStore,
    share: Share,
    account_id: int,
    drop: Maildrop,
    octets: int,
) -> Maildrop:
    """The maildrop with exact sizes, as far as reading `bytes` tells them. Failures are logged and hinder no login."""
    unknown = _newest([message for message in drop.messages if not message.is_exact], octets)
    if not unknown:
        return drop
    found: dict[int, int] = {}
    try:
        async with asyncio.timeout(_SECONDS):
            for group in _groups(unknown):
                sizes = await _sizes(mailbox_reader, blobs, share, account_id, drop.mailbox_id, group)
                if not sizes:
                    break  # S3 is away
                await maildrops.keep_sizes(account_id, drop.mailbox_id, sizes)
                found |= sizes
    except Exception:  # noqa: BLE001 - sizes that are nearly right are better than no mail
        _log.exception("not_measured", account_id=account_id)
    messages = (replace(message, size=found.get(message.uid, message.size)) for message in drop.messages)
    return replace(drop, messages=tuple(messages))


def _newest(messages: Sequence[MaildropMessage], octets: int) -> list[MaildropMessage]:
    """From the end on, so many bytes; one message in any case, so that each has its turn."""
    found: list[MaildropMessage] = []
    for message in reversed(messages[-_MESSAGES:]):
        octets -= message.size
        if octets < 0 and found:
            break
        found.append(message)
    return found


def _groups(messages: Sequence[MaildropMessage]) -> Iterator[list[MaildropMessage]]:
    group: list[MaildropMessage] = []
    octets = 0
    for message in messages:
        octets += message.size
        if group and (octets > _GROUP_BYTES or len(group) >= _GROUP_MESSAGES):
            yield group
            group, octets = [], message.size
        group.append(message)
    if group:
        yield group


async def _sizes(
    mailbox_reader: MailboxReader,
    blobs: BlobStore,
    share: Share,
    account_id: int,
    mailbox_id: int,
    group: Sequence[MaildropMessage],
) -> dict[int, int]:
    """By UID, of those that can be read."""
    octets = sum(message.size for message in group)
    uids = [message.uid for message in group]
    # A long message takes more while it is read, as in `reading`.
    hold = await share.take(3 * octets if octets > _GROUP_BYTES else octets)
    try:
        rows = [row async for row in mailbox_reader.messages(account_id, mailbox_id, uids, with_summary=False)]
        bodies = await blobs.read_each([row.blob for row in rows])
        return {
            row.uid: len(row.prefix) + await _counted(body)
            for row, body in zip(rows, bodies, strict=True)
            if isinstance(body, bytes)
        }
    finally:
        hold.release()


async def _counted(body: bytes) -> int:
    return crlf_bytes(body) if len(body) <= _GROUP_BYTES else await asyncio.to_thread(crlf_bytes, body)
