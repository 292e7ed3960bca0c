"""Writes messages of one account together: reads them, compares their SHA-256, writes a new pack, and then points the
account's rows to it in one transaction.

After a kill before the transaction the new pack is garbage, which `sweep` deletes; after the transaction nothing is
left to do. The old packs stay: `sweep` deletes them when no row and no job needs them and a safe age has passed.
"""

import contextlib
import math
import time
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass

from paquebot.blobs import PackWriter, new_ulid
from paquebot.blobs.stored import StoredEntries, StoredEntry, StoredOutcome
from paquebot.janitor.settings import CompactionSettings
from paquebot.janitor.stores import Stores
from paquebot.mailstore import BlobUse, Relocation
from paquebot.mailstore.errors import CompactionLost, NoSuchAccount
from paquebot.observability.log import Log
from paquebot.v1.mail_pb2 import BlobRef, Envelope

_log = Log("paquebot.janitor")

_SOURCE_PACKS = 10_000  # of one account at once: limits memory
_MESSAGES = 2000  # of a new pack: limits the transaction that points rows to it


@dataclass(slots=True)
class RewriteTotals:
    """The counts of what was moved into new packs."""

    accounts: int = 0
    messages: int = 0
    size: int = 0
    source_packs: int = 0
    new_packs: int = 0
    unreadable: int = 0
    busy_accounts: int = 0
    """Skipped, because another janitor has their lease."""


@dataclass(frozen=True, slots=True)
class RewriteBudget:
    """The limits of a run."""

    until: float
    """Of the monotonic clock."""
    size: int

    def is_spent(self, moved: RewriteTotals) -> bool:
        return moved.size >= self.size or time.monotonic() >= self.until


@dataclass(frozen=True, slots=True)
class Rewriter:
    """Moves messages of one account after another; one for a run."""

    stores: Stores
    settings: CompactionSettings
    entries: StoredEntries
    before: str
    """Packs with lower ids are old enough."""

    async def rewrite(
        self, account_id: int, sparse: Collection[str], budget: RewriteBudget, moved: RewriteTotals
    ) -> None:
        """Move the account's scattered messages, and those in the packs of `sparse`, within the budget. Raises
        BlobsUnavailable, PostgresUnavailable."""
        async with account_lease(self.stores, account_id, self.settings.lease) as owner:
            if not owner:
                moved.busy_accounts += 1
                return
            before = moved.messages
            try:
                await self._rewrite(account_id, owner, sparse, budget, moved)
            except (CompactionLost, NoSuchAccount) as error:
                _log.warning("compaction_abandoned", account=account_id, reason=type(error).__name__)
            moved.accounts += moved.messages > before

    async def _rewrite(
        self, account_id: int, owner: str, sparse: Collection[str], budget: RewriteBudget, moved: RewriteTotals
    ) -> None:
        if sparse:
            refs = await self._refs(account_id, sparse, message_bytes=2**62)
            await self._move(account_id, owner, refs, budget, moved)
        while not budget.is_spent(moved):
            rule = self.settings.rule()
            packs = await self.stores.compactions.scattered_packs(rule, self.before, account_id, _SOURCE_PACKS)
            refs = await self._refs(account_id, packs, rule.message_bytes)
            written = math.ceil(sum(ref.length for ref in refs) / rule.pack_bytes)
            if len(packs) - written < rule.saved_packs:
                return
            await self._move(account_id, owner, refs, budget, moved)
            if len(packs) < _SOURCE_PACKS:
                return

    async def _refs(self, account_id: int, packs: Collection[str], message_bytes: int) -> list[BlobRef]:
        """The entries to move, each once, by the mailbox and UID of their first row."""
        uses: Sequence[BlobUse] = await self.stores.compactions.uses(account_id, packs, message_bytes)
        found: dict[tuple[str, int], BlobRef] = {}
        for use in uses:
            found.setdefault((use.blob.pack, use.blob.offset), use.blob)
        return list(found.values())

    async def _move(
        self, account_id: int, owner: str, refs: Sequence[BlobRef], budget: RewriteBudget, moved: RewriteTotals
    ) -> None:
        for part in _parts(refs, self.settings.pack_bytes):
            if budget.is_spent(moved):
                return
            copies = _readable(part, await self.entries.read_each(part))
            moved.unreadable += len(part) - len(copies)
            if copies:
                await self._write(account_id, owner, copies, moved)

    async def _write(self, account_id: int, owner: str, copies: Sequence[StoredEntry], moved: RewriteTotals) -> None:
        moved.size += await write_new_pack(self.stores, account_id, owner, self.settings.lease, copies)
        moved.messages += len(copies)
        moved.source_packs += len({copy.ref.pack for copy in copies})
        moved.new_packs += 1


@contextlib.asynccontextmanager
async def account_lease(stores: Stores, account_id: int, ttl: float) -> AsyncIterator[str]:
    """The owner id of the lease to move the account's messages; empty: another janitor has the lease."""
    owner = new_ulid()
    taken = await stores.compactions.take_lease(account_id, owner, ttl)
    try:
        yield owner if taken else ""
    finally:
        if taken:
            await stores.compactions.release_lease(account_id, owner)


async def write_new_pack(stores: Stores, account_id: int, owner: str, ttl: float, copies: Sequence[StoredEntry]) -> int:
    """Write messages to a new pack of the account and point the rows to it; returns the size of the messages. The
    order makes a kill harmless: the new pack first, then the rows; the old packs are not touched. Raises
    BlobsUnavailable, PostgresUnavailable, CompactionLost, NoSuchAccount."""
    writer = PackWriter(new_ulid(), account_id=account_id)
    relocations = [Relocation(copy.ref, writer.add(_own(copy.envelope, account_id), copy.frame)) for copy in copies]
    await stores.blobs.put(writer.pack, writer.finish(int(time.time() * 1000)))
    rows = await stores.compactions.relocate(account_id, relocations, owner=owner, ttl=ttl)
    _log.info("messages_moved", account=account_id, pack=writer.pack, messages=len(copies), rows=rows)
    return writer.size


def _readable(refs: Sequence[BlobRef], outcomes: Sequence[StoredOutcome]) -> list[StoredEntry]:
    """The entries that could be read. Logs the others, once for each pack and reason."""
    failed: dict[tuple[str, str], list[int]] = {}
    for ref, outcome in zip(refs, outcomes, strict=True):
        if isinstance(outcome, Exception):
            failed.setdefault((ref.pack, str(outcome)), []).append(ref.offset)
    for (pack, reason), offsets in failed.items():
        _log.error("message_not_compacted", pack=pack, offset=offsets[0], messages=len(offsets), reason=reason)
    return [outcome for outcome in outcomes if isinstance(outcome, StoredEntry)]


def _parts(refs: Sequence[BlobRef], pack_bytes: int) -> Iterator[list[BlobRef]]:
    part: list[BlobRef] = []
    size = 0
    for ref in refs:
        if part and (size + ref.length > pack_bytes or len(part) == _MESSAGES):
            yield part
            part, size = [], 0
        part.append(ref)
        size += ref.length
    if part:
        yield part


def _own(envelope: Envelope, account_id: int) -> Envelope:
    """The envelope with the account's own recipients only. A message for many accounts is copied for each of them, so
    each copy must not have all recipients."""
    own = Envelope()
    own.CopyFrom(envelope)
    del own.local[:]
    del own.remote[:]
    own.local.extend(recipient for recipient in envelope.local if recipient.account_id == account_id)
    return own
