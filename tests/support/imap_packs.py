"""Packs in the bucket of the IMAP tests, and messages that are in them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from paquebot.blobs import BlobStore, PackWriter, new_ulid
from paquebot.blobs.pack import compress
from paquebot.mailstore import Delivery, NewMessage
from paquebot.message import summarise
from paquebot.v1.mail_pb2 import BlobRef, Envelope
from tests.support.imap_world import ImapStack, Reader


async def packed(store: BlobStore, messages: Sequence[bytes], damaged: Sequence[int] = ()) -> list[BlobRef]:
    """One pack of the messages in S3; the stored bytes of those in `damaged` are changed."""
    writer = PackWriter(new_ulid())
    refs = [writer.add(Envelope(queue_id=new_ulid()), compress(raw)) for raw in messages]
    data = bytearray(writer.finish(0))
    for place in damaged:
        start, end = refs[place].offset, refs[place].offset + refs[place].length
        data[start:end] = bytes(end - start)
    await store.put(writer.pack, bytes(data))
    return refs


async def delivered(stack: ImapStack, reader: Reader, messages: Sequence[tuple[BlobRef, bytes]]) -> None:
    """Deliver to INBOX in this order, whatever the packs' order is."""
    await stack.mailstore.deliveries.deliver(
        [
            Delivery(
                reader.account_id,
                "",
                0,
                NewMessage(
                    email_id=new_ulid(),
                    blob=ref,
                    summary=summarise(raw).SerializeToString(),
                    thread_key=b"",
                    internal_date=datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC),
                ),
            )
            for ref, raw in messages
        ]
    )
