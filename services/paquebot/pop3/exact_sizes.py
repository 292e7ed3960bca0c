"""The exact sizes of messages whose lines no program has counted yet (RFC 1939 §11).

LIST and STAT must give the size that RETR sends: a lone LF counts as two bytes, and a last line without an end gets
one. APPEND counts this, and messages that came over SMTP have no such lines. So only messages that older programs
appended must be read for it, once: the newest first, a bounded number of bytes at a login. The sizes are stored.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace

from paquebot.mailstore import Maildrop, MaildropMessage, Maildrops
from paquebot.message import crlf_bytes
from paquebot.observability.log import Log
from paquebot.pop3.reading import MaildropReader, RetrievedMessage
from paquebot.runtime.shares.account_shares import AccountShare

_log = Log("paquebot.pop3.exact_sizes")
_GROUP_BYTES = 1024 * 1024
_GROUP_MESSAGES = 500
_MESSAGES = 10_000  # of a login
_SECONDS = 15.0  # of a login, however slow S3 is


async def with_exact_sizes(
    maildrop: Maildrop,
    account_id: int,
    maildrops: Maildrops,
    reader: MaildropReader,
    share: AccountShare,
    max_bytes: int,
) -> Maildrop:
    """The maildrop with exact sizes, after reading at most about `max_bytes`. A failure is logged, and the login goes
    on with sizes that may be too small."""
    unknown = _newest([message for message in maildrop.messages if not message.is_exact], max_bytes)
    if not unknown:
        return maildrop
    found: dict[int, int] = {}
    try:
        async with asyncio.timeout(_SECONDS):
            for group in _groups(unknown):
                sizes = await _sizes(reader, share, group)
                if not sizes:
                    break  # S3 is away
                await maildrops.keep_sizes(account_id, maildrop.mailbox_id, sizes)
                found |= sizes
    except Exception:  # noqa: BLE001 - sizes that are nearly right are better than no mail
        _log.exception("exact_sizes_failed", account_id=account_id)
    messages = (replace(message, size=found.get(message.uid, message.size)) for message in maildrop.messages)
    return replace(maildrop, messages=tuple(messages))


def _newest(messages: Sequence[MaildropMessage], max_bytes: int) -> list[MaildropMessage]:
    """The last messages of at most `max_bytes`; at least one, so that each is counted at some login."""
    found: list[MaildropMessage] = []
    for message in reversed(messages[-_MESSAGES:]):
        max_bytes -= message.size
        if max_bytes < 0 and found:
            break
        found.append(message)
    return found


def _groups(messages: Sequence[MaildropMessage]) -> Iterator[list[MaildropMessage]]:
    group: list[MaildropMessage] = []
    size = 0
    for message in messages:
        size += message.size
        if group and (size > _GROUP_BYTES or len(group) >= _GROUP_MESSAGES):
            yield group
            group, size = [], message.size
        group.append(message)
    if group:
        yield group


async def _sizes(reader: MaildropReader, share: AccountShare, group: Sequence[MaildropMessage]) -> dict[int, int]:
    """By UID, of those that can be read."""
    size = sum(message.size for message in group)
    # A large message takes more while it is read, as in `prefetch`.
    hold = await share.reserve(3 * size if size > _GROUP_BYTES else size)
    try:
        found = await reader.read([message.uid for message in group])
        return {
            uid: len(message.prefix) + await _crlf_bytes(message.content)
            for uid, message in found.items()
            if isinstance(message, RetrievedMessage)
        }
    finally:
        hold.release()


async def _crlf_bytes(content: bytes) -> int:
    return crlf_bytes(content) if len(content) <= _GROUP_BYTES else await asyncio.to_thread(crlf_bytes, content)
