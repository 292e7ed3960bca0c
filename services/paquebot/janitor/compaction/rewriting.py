"""One account's messages written again together: read and compared with their SHA-256, put into a new pack, and then
its rows pointed there in one transaction.

Killed before the transaction, the new pack is garbage that `sweep` finds; killed after it, nothing is left to do. The
old packs are left alone: `sweep` deletes them when no row and no job needs them and a safe age has passed.
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

_SOURCE_PACKS = 10_000  # at once, of one account: bounds what is in memory
_MESSAGES = 2000  # of a new pack: bounds the transaction that points rows at it


@dataclass(slots=True)
class RewriteTotals:
    """What was written together."""

    accounts: int = 0
    messages: int = 0
    octets: int = 0
    source_packs: int = 0
    new_packs: int = 0
    unreadable: int = 0
    busy_accounts: int = 0
    """Left to another janitor, which has their lease."""


@dataclass(frozen=True, slots=True)
class RewriteBudget:
    """How much of a run is left."""

    until: float
    """Of the monotonic clock."""
    octets: int

    def spent(self, moved: RewriteTotals) -> bool:
        return moved.octets >= self.octets or time.monotonic() >= self.until


@dataclass(frozen=True, slots=True)
class Rewriter:
    """One for a run."""

    stores: Stores
    settings: CompactionSettings
    entries: StoredEntries
    before: str
    """Packs with lower ids are old enough."""

    async def rewrite(
        self, account_id: int, sparse: Collection[str], budget: RewriteBudget, moved: RewriteTotals
    ) -> None:
        """Move the account's scattered messages, and those in the packs of `sparse`, as far as the budget goes.
        Raises BlobsUnavailable, PostgresUnavailable."""
        async with account_lease(self.stores, account_id, self.settings.lease) as owner:
            if not owner:
                moved.busy_accounts += 1
                return
            before = moved.messages
            try:
                await self._rewrite(account_id, owner, sparse, budget, moved)
            except (CompactionLost, NoSuchAccount) as error:
                _log.warning("compaction_given_up", account=account_id, reason=type(error).__name__)
            moved.accounts += moved.messages > before

    async def _rewrite(
        self, account_id: int, owner: str, sparse: Collection[str], budget: RewriteBudget, moved: RewriteTotals
    ) -> None:
        if sparse:
            refs = await self._refs(account_id, sparse, message_bytes=2**62)
            await self._move(account_id, owner, refs, budget, moved)
        while not budget.spent(moved):
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
            if budget.spent(moved):
                return
            copies = _readable(part, await self.entries.read_each(part))
            moved.unreadable += len(part) - len(copies)
            if copies:
                await self._write(account_id, owner, copies, moved)

    async def _write(self, account_id: int, owner: str, copies: Sequence[StoredEntry], moved: RewriteTotals) -> None:
        octets = await write_new_pack(self.stores, account_id, owner, self.settings.lease, copies)
        moved.messages += len(copies)
        moved.octets += octets
        moved.source_packs += len({copy.ref.pack for copy in copies})
        moved.new_packs += 1


@contextlib.asynccontextmanager
async def account_lease(stores: Stores, account_id: int, ttl: float) -> AsyncIterator[str]:
    """The owner of the right to point the account's rows elsewhere; empty: another has it."""
    owner = new_ulid()
    taken = await stores.compactions.take_lease(account_id, owner, ttl)
    try:
        yield owner if taken else ""
    finally:
        if taken:
            await stores.compactions.release_lease(account_id, owner)


async def write_new_pack(stores: Stores, account_id: int, owner: str, ttl: float, copies: Sequence[StoredEntry]) -> int:
    """Messages into a new pack of the account; returns its bytes of messages. The order makes a kill harmless: the new
    pack first, then the rows, never the old packs. Raises BlobsUnavailable, PostgresUnavailable, CompactionLost,
    NoSuchAccount."""
    writer = PackWriter(new_ulid(), account_id=account_id)
    relocations = [Relocation(copy.ref, writer.add(_own(copy.envelope, account_id), copy.frame)) for copy in copies]
    await stores.blobs.put(writer.pack, writer.finish(int(time.time() * 1000)))
    rows = await stores.compactions.relocate(account_id, relocations, owner=owner, ttl=ttl)
    _log.info("messages_written_together", account=account_id, pack=writer.pack, messages=len(copies), rows=rows)
    return writer.size


def _readable(refs: Sequence[BlobRef], outcomes: Sequence[StoredOutcome]) -> list[StoredEntry]:
    """Logs the others: once for each pack and reason."""
    failed: dict[tuple[str, str], list[int]] = {}
    for ref, outcome in zip(refs, outcomes, strict=True):
        if isinstance(outcome, Exception):
            failed.setdefault((ref.pack, str(outcome)), []).append(ref.offset)
    for (pack, reason), offsets in failed.items():
        _log.error("message_not_compacted", pack=pack, offset=offsets[0], messages=len(offsets), reason=reason)
    return [outcome for outcome in outcomes if isinstance(outcome, StoredEntry)]


def _parts(refs: Sequence[BlobRef], pack_bytes: int) -> Iterator[list[BlobRef]]:
    part: list[BlobRef] = []
    octets = 0
    for ref in refs:
        if part and (octets + ref.length > pack_bytes or len(part) == _MESSAGES):
            yield part
            part, octets = [], 0
        part.append(ref)
        octets += ref.length
    if part:
        yield part


def _own(envelope: Envelope, account_id: int) -> Envelope:
    """With the account's own recipients only: the others' are of no use here, and a copy for each of many accounts
    must not carry all of them."""
    own = Envelope()
    own.CopyFrom(envelope)
    del own.local[:]
    del own.remote[:]
    own.local.extend(recipient for recipient in envelope.local if recipient.account_id == account_id)
    return own
