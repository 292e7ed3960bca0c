"""`verify`: checks that database, bucket and stream agree. Changes nothing, except with `mend`.

The services must be able to read every row; its message must be in a readable pack, at an entry of the index, and
match its SHA-256; every job's pack must exist; every recipient in a settled pack must be done or queued; the
mailstore's own invariants must hold.
"""

import asyncio
import itertools
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from paquebot.blobs import BadPack, BlobsUnavailable
from paquebot.blobs.marks import ORPHANED, Marks
from paquebot.blobs.pack import entry_ref, is_at
from paquebot.blobs.ranges import plan_ranges
from paquebot.blobs.store import PackInfo
from paquebot.janitor.indexes import ReportProgress, ignore_progress, in_groups, read_indexes
from paquebot.janitor.recovery.accounting import StreamContents, find_missing, read_stream
from paquebot.janitor.recovery.recover import SETTLE_SECONDS
from paquebot.janitor.recovery.refused import RefusedMessages, read_refused
from paquebot.janitor.stores import Stores
from paquebot.janitor.sweep import read_records_start
from paquebot.janitor.verification.repair import DamagedRow, repair
from paquebot.mailstore import BlobUse
from paquebot.mailstore.errors import MailstoreError
from paquebot.mailstore.messages.rows import summary_of
from paquebot.mailstore.upkeep.invariants import broken_invariants
from paquebot.mailstore.upkeep.row_checks import BadRow
from paquebot.message import summarise
from paquebot.runtime.postgres.pool import PostgresRefused
from paquebot.runtime.ulid import is_ulid, ulid_time_ms
from paquebot.v1.mail_pb2 import PackEntry, PackIndex

_PACKS_AT_ONCE = 8  # packs whose messages are read: each takes a request and 1 MiB at most, or one large message
_MAX_FAULTS = 1000
_LATE_MS = 3600 * 1000
_MAX_DAMAGED = 100_000  # rows to repair at once


@dataclass(slots=True)
class VerificationResult:
    """The result of `verify`; `faults` has a sentence for each fault."""

    packs: int = 0
    rows: int = 0
    entries: int = 0
    read_bytes: int = 0
    refused: int = 0
    """Messages whose senders got a 451: they send them again, so there is nothing to do."""
    written_later: int = 0
    """Packs written long after their id's time: the bucket is a restored copy, or the packs were overwritten."""
    bad_rows: int = 0
    """Rows of mailboxes and messages that services cannot read."""
    mended_rows: int = 0
    """Those of them that were repaired."""
    mended: int = 0
    """Rows whose message was damaged and restored from another pack."""
    faults: list[str] = field(default_factory=list)

    def fault(self, text: str) -> None:
        if len(self.faults) < _MAX_FAULTS:
            self.faults.append(text)


async def verify(
    stores: Stores,
    *,
    contents: bool = True,
    mend: float = 0.0,
    settle: float = SETTLE_SECONDS,
    say: ReportProgress = ignore_progress,
) -> VerificationResult:
    """Reads and hashes every message, or without `contents` only the indexes. `mend`: lease in seconds of each account
    to repair; 0: changes nothing.
    Raises BlobsUnavailable, BadPack (a mark cannot be read), QueueUnavailable, PostgresUnavailable."""
    result = VerificationResult()
    damaged: list[DamagedRow] = []
    # Rows written after the packs were listed may refer to newer packs: only older packs count as lost.
    began_ms = time.time() * 1000
    infos = [info async for info in stores.blobs.list_packs()]
    known = {info.pack for info in infos}
    _count_written_later(infos, result, say)
    refused, records_start = await read_refused(stores.blobs), await read_records_start(stores.blobs)
    queued = await read_stream(stores.queue)
    undelivered = _UndeliveredCheck(stores, refused, Marks(stores.blobs, ORPHANED), records_start, queued, result)
    for number in queued.unreadable:
        result.fault(f"job {number} cannot be read: see paquebot queue show, then hold or drop it")
    for pack in sorted(queued.packs - known):
        if ulid_time_ms(pack) < began_ms - settle * 1000:
            result.fault(f"pack {pack} is not in the bucket, but a job needs it")
    await _verify_rows(stores, known, result, damaged, began_ms)
    for group in in_groups(infos, say):
        read = await _verify_packs(stores, group, result, damaged, contents=contents)
        await undelivered.check([index for info, index in read if ulid_time_ms(info.pack) < began_ms - settle * 1000])
    await _verify_columns(stores, result, mend=bool(mend))
    for broken in await broken_invariants(stores.postgres):
        result.fault(broken)
    if mend:
        repaired = await repair(stores, damaged, infos, mend, say=say)
        result.mended = repaired.mended
        for text in repaired.lost:
            result.fault(text)
        if repaired.busy:
            result.fault(f"{repaired.busy} rows belong to accounts that a janitor works on: repair them later")
    return result


@dataclass(frozen=True, slots=True)
class _UndeliveredCheck:
    """Finds recipients that are neither delivered nor queued."""

    stores: Stores
    refused: RefusedMessages
    orphaned: Marks
    records_start: str
    queued: StreamContents
    result: VerificationResult

    async def check(self, settled: Sequence[PackIndex]) -> None:
        """Packs whose jobs must have reached the stream. Raises BlobsUnavailable, BadPack, PostgresUnavailable."""
        for index, lost in zip(settled, await find_missing(self.stores, settled, self.queued), strict=True):
            if index.pack < self.records_start:  # its records are deleted; marks name what was not delivered
                marked = await self.orphaned.queue_ids(index.pack) if lost else set()
                lost = [message for message in lost if message.envelope.queue_id in marked]
            accepted = await self.refused.accepted(index.pack, lost)
            self.result.refused += len(lost) - len(accepted)
            if count := sum(message.recipients() for message in accepted):
                self.result.fault(
                    f"pack {index.pack}: {count} recipients are neither delivered nor queued: see paquebot recover "
                    "--dry-run, then run paquebot recover. If a process was killed before it answered the sender, the "
                    "sender has sent the message again"
                )


def _count_written_later(infos: Sequence[PackInfo], result: VerificationResult, say: ReportProgress) -> None:
    late = [info.pack for info in infos if info.written_ms > ulid_time_ms(info.pack) + _LATE_MS]
    result.written_later = len(late)
    if late:
        say(
            f"{len(late)} packs were written more than an hour after their id's time (first: {late[0]}): the bucket "
            "was restored from a copy, or the packs were overwritten"
        )


async def _verify_rows(
    stores: Stores, known: Container[str], result: VerificationResult, damaged: list[DamagedRow], began_ms: float
) -> None:
    """Check that every row's pack is in the bucket."""
    lost: dict[str, list[BlobUse]] = {}
    async for use in stores.pack_uses.of_accounts():
        result.rows += 1
        if use.blob.pack not in known and not (is_ulid(use.blob.pack) and ulid_time_ms(use.blob.pack) >= began_ms):
            lost.setdefault(use.blob.pack, []).append(use)
            _note(damaged, [DamagedRow(use)])
    for pack, uses in sorted(lost.items()):
        result.fault(f"pack {pack} is not in the bucket, but {_rows(uses)} need it")


async def _verify_columns(stores: Stores, result: VerificationResult, *, mend: bool) -> None:
    """Read every row as the services do. With `mend`, write into it what they read."""
    async for bad in stores.row_checks.bad_rows():
        result.bad_rows += 1
        if mend and await _mended(stores, bad):
            result.mended_rows += 1
        else:
            result.fault(bad.sentence())


async def _mended(stores: Stores, bad: BadRow) -> bool:
    summary: bytes | None = None
    if bad.message is not None and summary_of(bad.message, bad.account_id, bad.mailbox_id) is None:
        (read,) = await stores.blobs.read_each([bad.message.blob])
        if isinstance(read, Exception):
            return False
        summary = (await asyncio.to_thread(summarise, read)).SerializeToString()
    try:
        return await stores.row_checks.mend(bad, summary)
    except (MailstoreError, PostgresRefused):
        return False


async def _verify_packs(
    stores: Stores, group: Sequence[PackInfo], result: VerificationResult, damaged: list[DamagedRow], *, contents: bool
) -> list[tuple[PackInfo, PackIndex]]:
    """Check each pack and the rows that point to it; returns the packs that can be read."""
    result.packs += len(group)
    by_pack: dict[str, list[BlobUse]] = {}
    async for use in stores.pack_uses.of_packs([info.pack for info in group]):
        by_pack.setdefault(use.blob.pack, []).append(use)
    readable: list[tuple[PackInfo, PackIndex]] = []
    wanted: list[tuple[str, list[PackEntry]]] = []
    for info, outcome in zip(group, await read_indexes(stores.blobs, group), strict=True):
        uses = by_pack.get(info.pack, [])
        if isinstance(outcome, PackIndex):
            readable.append((info, outcome))
            wanted.append((info.pack, _known_entries(info.pack, outcome, uses, result, damaged)))
            continue
        if isinstance(outcome, BadPack):  # a pack that was deleted meanwhile is no fault
            result.fault(f"pack {info.pack}: {outcome}")
        if uses:
            result.fault(f"pack {info.pack} cannot be read, but {_rows(uses)} need it")
            _note(damaged, map(DamagedRow, uses))
    result.entries += sum(len(entries) for _, entries in wanted)
    if contents:
        turn = asyncio.Semaphore(_PACKS_AT_ONCE)
        for read in await asyncio.gather(*(_read_contents(stores, turn, *one) for one in wanted)):
            result.read_bytes += read.size
            _note(damaged, [DamagedRow(use, sha) for place, sha in read.damaged for use in _uses_at(by_pack, place)])
            for text in read.faults:
                result.fault(text)
    return readable


def _note(damaged: list[DamagedRow], more: Iterable[DamagedRow]) -> None:
    """Add damaged rows up to a limit: repair is not for a bucket that is lost."""
    damaged += itertools.islice(more, max(0, _MAX_DAMAGED - len(damaged)))


def _uses_at(by_pack: Mapping[str, Sequence[BlobUse]], place: tuple[str, int]) -> list[BlobUse]:
    return [use for use in by_pack.get(place[0], ()) if use.blob.offset == place[1]]


def _known_entries(
    pack: str, index: PackIndex, uses: Sequence[BlobUse], result: VerificationResult, damaged: list[DamagedRow]
) -> list[PackEntry]:
    """The entries that rows point to."""
    entries = {entry.offset: entry for entry in index.entries}
    wanted: dict[int, PackEntry] = {}
    for use in uses:
        entry = entries.get(use.blob.offset)
        if entry is None or not is_at(use.blob, entry):
            result.fault(f"{_rows([use])} points to a place in pack {pack} where no message begins")
            _note(damaged, [DamagedRow(use)])
        elif entry.envelope.queue_id != use.email_id:
            result.fault(
                f"{_rows([use])} is of message {use.email_id}, but pack {pack} has {entry.envelope.queue_id} there: "
                "the pack was changed"
            )
            _note(damaged, [DamagedRow(use)])
        else:
            wanted[entry.offset] = entry
        if index.account_id not in (0, use.account_id):
            result.fault(f"{_rows([use])} points to pack {pack}, which was written for account {index.account_id}")
    return list(wanted.values())


@dataclass(slots=True)
class _Read:
    size: int = 0
    faults: list[str] = field(default_factory=list)
    damaged: list[tuple[tuple[str, int], bytes]] = field(default_factory=list)
    """(pack, offset) and SHA-256 of messages that cannot be read."""


async def _read_contents(stores: Stores, turn: asyncio.Semaphore, pack: str, entries: Sequence[PackEntry]) -> _Read:
    """Read and hash the messages, with one span of a pack in memory at a time."""
    read = _Read()
    by_offset = {entry.offset: entry for entry in entries}
    async with turn:
        for span in plan_ranges(entry_ref(pack, entry) for entry in entries):
            (outcome,) = await stores.blobs.read_ranges([span])
            if isinstance(outcome, BlobsUnavailable):
                raise outcome
            messages = [outcome] * len(span.refs) if isinstance(outcome, Exception) else outcome
            for ref, message in zip(span.refs, messages, strict=True):
                entry = by_offset[ref.offset]
                queue_id = entry.envelope.queue_id
                if isinstance(message, Exception):
                    read.faults.append(f"message {queue_id} in pack {pack} cannot be read: {message}")
                    read.damaged.append(((pack, entry.offset), entry.sha256))
                    continue
                read.size += len(message)
    return read


def _rows(uses: Sequence[BlobUse]) -> str:
    first = uses[0]
    where = f"account {first.account_id}, mailbox {first.mailbox_id}, UID {first.uid}"
    return f"the row ({where})" if len(uses) == 1 else f"{len(uses)} rows (first: {where})"
