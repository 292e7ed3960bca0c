"""Scattered mail as delivery leaves it (packs in the bucket, rows in the mailstore), and functions that read it."""

from __future__ import annotations

import datetime
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from paquebot.blobs import PackWriter, new_ulid
from paquebot.blobs.pack import compress
from paquebot.janitor.stores import Stores
from paquebot.mailstore import BlobUse, Delivery, NewMessage
from paquebot.message import summarise
from paquebot.runtime.ulid import ulid_at
from paquebot.v1.mail_pb2 import BlobRef, Envelope, LocalRecipient

DAY = 86400.0
PREFIX = b"Return-Path: <a@example.org>\r\n"
_numbers = itertools.count(1)

Everything = dict[tuple[int, int, int], tuple[str, bytes]]
"""(account, mailbox, UID) → queue id and bytes."""


@dataclass
class Scatterer:
    """Writes packs of many accounts' messages, each `age` seconds old, and delivers them."""

    stores: Stores
    age: float = 2 * DAY
    size: int = 300
    _random: random.Random = field(default_factory=lambda: random.Random(5))

    async def pack(self, *messages: Sequence[int], sizes: Sequence[int] = ()) -> str:
        """Write one pack. Each item is one message: the accounts that get it."""
        pack = self._pack_id()
        writer = PackWriter(pack)
        deliveries: list[Delivery] = []
        for number, accounts in enumerate(messages):
            envelope = _envelope(accounts)
            raw = self.message(sizes[number] if sizes else self.size)
            ref = writer.add(envelope, compress(raw))
            deliveries += (_delivery(account, envelope.queue_id, ref, raw) for account in accounts)
        await self.stores.blobs.put(pack, writer.finish(int(time.time() * 1000)))
        await self.stores.deliveries.deliver(deliveries)
        return pack

    async def packs(self, count: int, *messages: Sequence[int]) -> list[str]:
        return [await self.pack(*messages) for _ in range(count)]

    def message(self, size: int) -> bytes:
        """A message that does not compress."""
        text = self._random.randbytes(size).replace(b"\r", b"r").replace(b"\n", b"n").replace(b"\0", b"0")
        return b"From: a@example.org\r\nSubject: %d\r\n\r\n%s\r\n" % (next(_numbers), text)

    def _pack_id(self) -> str:
        # Ids ascend whatever the clock's resolution is.
        at = ulid_at(int((time.time() - self.age) * 1000))
        return at[:10] + new_ulid()[10:]


def _envelope(accounts: Sequence[int]) -> Envelope:
    local = [
        LocalRecipient(account_id=n, address=f"u{n}@paquebot.test", forward_path=f"u{n}@paquebot.test")
        for n in accounts
    ]
    return Envelope(queue_id=new_ulid(), reverse_path="a@example.org", local=local)


def _delivery(account_id: int, queue_id: str, blob: BlobRef, raw: bytes) -> Delivery:
    summary = summarise(raw)
    message = NewMessage(
        email_id=queue_id,
        blob=blob,
        prefix=PREFIX,
        summary=summary.SerializeToString(),
        thread_key=summary.thread_key,
        internal_date=datetime.datetime.now(datetime.UTC),
    )
    return Delivery(account_id, "", 0, message)


async def uses(stores: Stores) -> list[BlobUse]:
    return [use async for use in stores.pack_uses.of_accounts()]


async def read(stores: Stores, refs: Sequence[BlobUse]) -> Everything:
    """Read the messages at the references of these rows, which the caller may have read earlier."""
    return {
        (use.account_id, use.mailbox_id, use.uid): (use.email_id, await stores.blobs.read(use.blob)) for use in refs
    }


async def everything(stores: Stores) -> Everything:
    return await read(stores, await uses(stores))


async def packs_of(stores: Stores, account_id: int) -> list[str]:
    """The packs that a sync of the account reads, in the order of mailbox and UID."""
    return list(dict.fromkeys(use.blob.pack for use in await uses(stores) if use.account_id == account_id))


async def all_packs(stores: Stores) -> list[str]:
    return [info.pack async for info in stores.blobs.list_packs()]
