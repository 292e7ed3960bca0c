"""A mailstore on a new database whose invariants are checked again after the test, and messages to put into it."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator

import pytest

from paquebot.blobs import new_ulid
from paquebot.mailstore import NO_FLAGS, Delivery, Flag, MailstoreLimits, NewMessage
from paquebot.runtime.postgres.pool import Postgres
from paquebot.v1.mail_pb2 import COMPRESSION_ZSTD, BlobRef
from paquebot.v1.summary_pb2 import MessageSummary
from tests.support.mailstores import Mailstore

WHEN = datetime.datetime(2024, 2, 29, 12, 30, 15, tzinfo=datetime.UTC)
PREFIX = b"Return-Path: <a@example.org>\r\n"

SMALL_LIMITS = MailstoreLimits(mailboxes=10, keywords=3, name_length=40, depth=4)


@pytest.fixture
async def mailstore(migrated: Postgres) -> AsyncIterator[Mailstore]:
    """The mailstore as the superuser, with small limits that tests can reach."""
    store = Mailstore.of(migrated, SMALL_LIMITS)
    yield store
    assert await store.broken_invariants() == []


def new_message(
    *, size: int = 100, flags: Flag = NO_FLAGS, keywords: tuple[str, ...] = (), pack: str = "", prefix: bytes = b""
) -> NewMessage:
    """A message of `size` bytes without its prefix, in its own pack unless one is given."""
    queue_id = new_ulid()
    key = queue_id.encode()[-16:]
    return NewMessage(
        email_id=queue_id,
        blob=BlobRef(pack=pack or new_ulid(), offset=size, length=size // 2, size=size, compression=COMPRESSION_ZSTD),
        summary=MessageSummary(version=1, thread_key=key).SerializeToString(),
        thread_key=key,
        internal_date=WHEN,
        flags=flags,
        keywords=keywords,
        prefix=prefix,
    )


def delivery(account_id: int, *, detail: str = "", quota: int = 0, size: int = 100) -> Delivery:
    return Delivery(account_id, detail, quota, new_message(size=size, prefix=PREFIX))
