"""`verify --repair`: finds intact copies of messages that cannot be read at the place in their row.

A message is in several packs when it went to several accounts and one of them was compacted, or when it was compacted
and the pack in which it was accepted still exists. A copy must match the SHA-256 in the index of its own pack, and
that of the damaged pack if its index can be read. The copy is written to a new pack of the account, and the account's
rows are pointed to it as in compaction. Damaged packs stay as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from paquebot.blobs import BlobsUnavailable
from paquebot.blobs.pack import compress, entry_ref
from paquebot.blobs.store import PackInfo
from paquebot.blobs.stored import StoredEntry
from paquebot.janitor.compaction.rewriting import account_lease, write_new_pack
from paquebot.janitor.indexes import ReportProgress, ignore_progress, in_groups, read_valid_indexes
from paquebot.janitor.stores import Stores
from paquebot.mailstore import BlobUse
from paquebot.mailstore.errors import CompactionLost, NoSuchAccount
from paquebot.observability.log import Log
from paquebot.v1.mail_pb2 import PackEntry, PackIndex

_log = Log("paquebot.janitor")

_MAX_BYTES = 64 * 2**20  # of messages in memory before they are written


@dataclass(frozen=True, slots=True)
class DamagedRow:
    """A row whose message cannot be read. `sha256`: from its pack's index; empty: the index cannot be read either."""

    use: BlobUse
    sha256: bytes = b""


@dataclass(slots=True)
class RepairResult:
    """The result for the damaged rows; `lost` has a sentence for each row that could not be repaired."""

    mended: int = 0
    busy: int = 0
    """Rows of accounts that another janitor works on: try again later."""
    lost: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Repair:
    stores: Stores
    lease: float
    result: RepairResult
    wanted: dict[str, list[DamagedRow]]
    """By queue id."""
    found: dict[int, list[tuple[DamagedRow, StoredEntry]]] = field(default_factory=dict)
    """By account."""
    size: int = 0

    async def search(self, index: PackIndex) -> None:
        """Find copies in one pack. Raises BlobsUnavailable, PostgresUnavailable."""
        for entry in index.entries:
            queue_id = entry.envelope.queue_id
            for damaged in [one for one in self.wanted.get(queue_id, ()) if _may_be_copy(one, index, entry)]:
                copy = await self._copy(damaged, index.pack, entry)
                if copy is not None:
                    self.wanted[queue_id].remove(damaged)
                    self.found.setdefault(damaged.use.account_id, []).append((damaged, copy))
                    self.size += len(copy.frame.content)
        if self.size > _MAX_BYTES:
            await self.write()

    async def _copy(self, damaged: DamagedRow, pack: str, entry: PackEntry) -> StoredEntry | None:
        (read,) = await self.stores.blobs.read_each([entry_ref(pack, entry)])
        if isinstance(read, BlobsUnavailable):
            raise read
        return None if isinstance(read, Exception) else StoredEntry(damaged.use.blob, entry.envelope, compress(read))

    async def write(self) -> None:
        """Raises BlobsUnavailable, PostgresUnavailable."""
        for account_id, found in self.found.items():
            async with account_lease(self.stores, account_id, self.lease) as owner:
                if not owner:
                    self.result.busy += len(found)
                    continue
                try:
                    await write_new_pack(self.stores, account_id, owner, self.lease, [copy for _, copy in found])
                except (CompactionLost, NoSuchAccount) as error:
                    _log.warning("repair_abandoned", account=account_id, reason=type(error).__name__)
                    self.result.busy += len(found)
                    continue
            self.result.mended += len(found)
            for damaged, _ in found:
                _log.info("message_repaired", account=account_id, uid=damaged.use.uid, pack=damaged.use.blob.pack)
        self.found.clear()
        self.size = 0


async def repair(
    stores: Stores,
    damaged: Sequence[DamagedRow],
    infos: Sequence[PackInfo],
    lease: float,
    *,
    say: ReportProgress = ignore_progress,
) -> RepairResult:
    """Repair the rows of which one of the packs `infos` has a copy. Raises BlobsUnavailable, PostgresUnavailable; rows
    repaired before that stay repaired."""
    run = _Repair(stores, lease, RepairResult(), _by_queue_id(damaged))
    if not damaged:
        return run.result
    for group in in_groups(infos, say):
        for _, index in (await read_valid_indexes(stores.blobs, group))[0]:
            await run.search(index)
    await run.write()
    run.result.lost = [_sentence(one.use) for left in run.wanted.values() for one in left]
    return run.result


def _by_queue_id(damaged: Sequence[DamagedRow]) -> dict[str, list[DamagedRow]]:
    found: dict[str, list[DamagedRow]] = {}
    for one in {(each.use.account_id, each.use.blob.pack, each.use.blob.offset): each for each in damaged}.values():
        found.setdefault(one.use.email_id, []).append(one)
    return found


def _may_be_copy(damaged: DamagedRow, index: PackIndex, entry: PackEntry) -> bool:
    """Whether the entry is the same message in another place."""
    blob = damaged.use.blob
    elsewhere = (index.pack, entry.offset) != (blob.pack, blob.offset)
    return elsewhere and entry.size == blob.size and damaged.sha256 in (b"", entry.sha256)


def _sentence(use: BlobUse) -> str:
    where = f"account {use.account_id}, mailbox {use.mailbox_id}, UID {use.uid}"
    return f"the message {use.email_id} of {where} is in no other pack: restore pack {use.blob.pack} from a backup"
