"""The packs of a rebuild: finds the pack of each message in the snapshots, and messages that are in no snapshot.

It reads packs in order of time, a few at once, each at most once: the index, and only those entries that are needed.
So the cost grows with the bucket's size, and memory holds a few packs.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass

from paquebot.blobs import BlobsUnavailable, ulid_time_ms
from paquebot.blobs.pack import entry_ref
from paquebot.blobs.store import PackInfo
from paquebot.janitor.indexes import ReportProgress, read_valid_indexes
from paquebot.janitor.recovery.accounting import StreamContents
from paquebot.janitor.recovery.refused import RefusedMessages, read_refused
from paquebot.janitor.stores import Stores
from paquebot.mailstore.dates import of_microseconds
from paquebot.mailstore.snapshots.rebuild_types import FoundMessage, Rebuild, RebuiltMessage, SnapshotTimes
from paquebot.message import summarise
from paquebot.observability.log import Log
from paquebot.spool import outcomes
from paquebot.spool.outcomes import RecipientOutcome
from paquebot.v1.mail_pb2 import Envelope, PackEntry, PackIndex

_log = Log("paquebot.rebuild")

_CHUNK_PACKS = 16
_CHUNK_BYTES = 32 * 2**20
_REPORT_EVERY = 1000

_APPEND_SECONDS = 300.0
"""Maximum time between the pack of an APPEND and its row in the mailbox. A message that is older than that at the time
of a snapshot, and not in the snapshot, was expunged."""


@dataclass(slots=True)
class RebuildResult:
    """The result of a rebuild; after a kill, of its last run."""

    snapshot: str = ""
    snapshot_at_ms: int = 0
    accounts: int = 0
    restored: int = 0
    arrived: int = 0
    gone: int = 0
    packs: int = 0
    unreadable: int = 0
    damaged_accounts: int = 0
    failed_accounts: int = 0
    """Accounts that could not be restored: another run continues with them."""
    assumed_relayed: int = 0


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An entry and an account that may get it."""

    account_id: int
    entry: PackEntry
    trace_lines: bytes
    delivered: bool

    @property
    def key(self) -> tuple[int, str]:
        return self.account_id, self.entry.envelope.queue_id


class RebuildPackReader:
    """Reads all packs of the bucket for one rebuild."""

    def __init__(self, stores: Stores, work: Rebuild, queued: StreamContents, until_ms: float) -> None:
        """`until_ms`: later packs are left to their jobs."""
        self._stores = stores
        self._work = work
        self._queued = queued
        self._until_ms = until_ms
        self._refused: RefusedMessages | None = None

    async def read(self, result: RebuildResult, say: ReportProgress) -> None:
        """Raises BlobsUnavailable, PostgresUnavailable."""
        reported = 0
        self._refused = await read_refused(self._stores.blobs)
        async for chunk in self._chunks():
            await self._read_chunk(chunk, result)
            result.packs += len(chunk)
            if result.packs - reported >= _REPORT_EVERY:
                reported = result.packs
                say(f"{result.packs} packs read")
        say(f"{result.packs} packs read")

    async def _chunks(self) -> AsyncIterator[list[PackInfo]]:
        chunk: list[PackInfo] = []
        size = 0
        async for info in self._stores.blobs.list_packs(after=self._work.packs_to):
            if ulid_time_ms(info.pack) > self._until_ms:
                break
            if chunk and (len(chunk) == _CHUNK_PACKS or size + info.size > _CHUNK_BYTES):
                yield chunk
                chunk, size = [], 0
            chunk.append(info)
            size += info.size
        if chunk:
            yield chunk

    async def _read_chunk(self, chunk: Sequence[PackInfo], result: RebuildResult) -> None:
        indexes = [index for _, index in (await read_valid_indexes(self._stores.blobs, chunk))[0]]
        result.unreadable += len(chunk) - len(indexes)
        envelopes = [entry.envelope for index in indexes for entry in index.entries]
        wanted = await self._stores.rebuilds.wanted([envelope.queue_id for envelope in envelopes])
        newer = await self._newer(indexes)
        wanted |= {candidate.entry.envelope.queue_id for candidate in newer}
        found: dict[str, FoundMessage] = {}
        for part in await asyncio.gather(*(self._found(index, wanted, result) for index in indexes)):
            for one in part:
                found.setdefault(one.queue_id, one)
        arrivals = [_arrival(one, found[one.key[1]]) for one in newer if one.key[1] in found]
        if self._work.outcomes_lost:
            result.assumed_relayed += await self._assume_relayed(envelopes)
        await self._stores.rebuilds.place(self._work, list(found.values()), arrivals, chunk[-1].pack)

    async def _newer(self, indexes: Iterable[PackIndex]) -> list[_Candidate]:
        """Entries that are in no snapshot, with the accounts that get them. Refused entries are left out, because
        their senders have sent them again."""
        candidates: dict[tuple[int, str], _Candidate] = {}
        for index in indexes:
            refused = await self._refused.queue_ids(index.pack) if self._refused is not None else frozenset()
            kept = (entry for entry in index.entries if entry.envelope.queue_id not in refused)
            candidates |= {one.key: one for entry in kept for one in _candidates(entry)}
        if not candidates:
            return []
        rules = await self._stores.rebuilds.snapshot_times({account_id for account_id, _ in candidates})
        keys = [
            key
            for key, one in candidates.items()
            if key not in self._queued.local and _may_be_newer(one, rules.get(one.account_id))
        ]
        # For a deleted account, this includes all its mail.
        done = await self._stores.deliveries.delivered(keys)
        done |= await self._stores.rebuilds.known(keys)
        return [candidates[key] for key in keys if key not in done]

    async def _found(self, index: PackIndex, wanted: set[str], result: RebuildResult) -> list[FoundMessage]:
        """The wanted entries of a pack whose content matches the index."""
        entries = [entry for entry in index.entries if entry.envelope.queue_id in wanted]
        contents = await self._contents(index.pack, entries)
        result.unreadable += contents.count(None)
        return await asyncio.to_thread(_summaries, index.pack, entries, contents)

    async def _contents(self, pack: str, entries: Sequence[PackEntry]) -> list[bytes | None]:
        refs = [entry_ref(pack, entry) for entry in entries]
        contents: list[bytes | None] = []
        for entry, read in zip(entries, await self._stores.blobs.read_each(refs), strict=True):
            if isinstance(read, BlobsUnavailable):
                raise read
            if isinstance(read, Exception):
                _log.error("message_damaged", pack=pack, queue_id=entry.envelope.queue_id, reason=str(read))
            contents.append(None if isinstance(read, Exception) else read)
        return contents

    async def _assume_relayed(self, envelopes: Iterable[Envelope]) -> int:
        """The records of what was relayed are lost. A recipient whose job is not in the stream counts as relayed."""
        ended = [
            (envelope.queue_id, recipient.forward_path, RecipientOutcome.ASSUMED)
            for envelope in envelopes
            for recipient in envelope.remote
            if (envelope.queue_id, recipient.forward_path) not in self._queued.remote
        ]
        await outcomes.record(self._stores.postgres, ended)
        return len(ended)


def _candidates(entry: PackEntry) -> Iterator[_Candidate]:
    envelope = entry.envelope
    for recipient in envelope.local:
        yield _Candidate(
            recipient.account_id, entry, trace_lines(envelope.reverse_path, recipient.address), delivered=True
        )
    if not envelope.local and not envelope.remote and (owner := _appended_by(envelope)):
        yield _Candidate(owner, entry, b"", delivered=False)


def _appended_by(envelope: Envelope) -> int:
    """The account of an IMAP APPEND (`Spool.store`); 0: not an APPEND."""
    mark, _, number = envelope.client.login.partition("#")
    return int(number) if envelope.client.listener == "local" and not mark and number.isdecimal() else 0


def _may_be_newer(one: _Candidate, rule: SnapshotTimes | None) -> bool:
    """Whether a message that is not in the account's snapshot may be newer than the snapshot.

    A delivery leaves a record, and the snapshot has all records since `records_since`; an APPEND leaves only its row.
    """
    if rule is None:
        return True
    accepted = one.entry.envelope.accepted_at_ms / 1000
    if one.delivered:
        return accepted > rule.records_since.timestamp()
    return accepted > rule.taken_at.timestamp() - _APPEND_SECONDS


def _summaries(pack: str, entries: Sequence[PackEntry], contents: Sequence[bytes | None]) -> list[FoundMessage]:
    found: list[FoundMessage] = []
    for entry, raw in zip(entries, contents, strict=True):
        if raw is None:
            continue
        summary = summarise(raw)
        ref = entry_ref(pack, entry)
        found.append(FoundMessage(entry.envelope.queue_id, ref, summary.thread_key, summary.SerializeToString()))
    return found


def _arrival(one: _Candidate, found: FoundMessage) -> RebuiltMessage:
    accepted = of_microseconds(one.entry.envelope.accepted_at_ms * 1000)
    return RebuiltMessage(one.account_id, found, accepted, one.trace_lines, one.delivered)


def trace_lines(reverse_path: str, address: str) -> bytes:
    """The lines that delivery adds before the message (RFC 5321 §4.4), byte for byte."""
    lines = f"Return-Path: <{_one_line(reverse_path)}>\r\nDelivered-To: {_one_line(address)}\r\n"
    return lines.encode("utf-8", "replace")


def _one_line(address: str) -> str:
    return "".join(character for character in address if character.isprintable())
