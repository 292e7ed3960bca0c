"""The packs of a rebuild: where each message of the snapshots lies, and messages that no snapshot knows.

Packs are read in order of time, a few at once, each at most once: an index, and its entries only where someone wants
them. So the cost goes with the bucket's bytes, and memory with a few packs.
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
_SAY_EVERY = 1000

_APPEND_SECONDS = 300.0
"""Longest time from a message's way into a pack by APPEND until its row is in the mailbox: what is older than that
before a snapshot, and not in it, was expunged."""


@dataclass(slots=True)
class RebuildResult:
    """What a rebuild did; when one was killed and went on, since it went on."""

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
    """That could not be restored: another run goes on with them."""
    assumed_relayed: int = 0


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An account that an entry is meant for."""

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
        """`until_ms`: packs that are made later are left to their jobs."""
        self._stores = stores
        self._work = work
        self._queued = queued
        self._until_ms = until_ms
        self._refused: RefusedMessages | None = None

    async def read(self, result: RebuildResult, say: ReportProgress) -> None:
        """Raises BlobsUnavailable, PostgresUnavailable."""
        told = 0
        self._refused = await read_refused(self._stores.blobs)
        async for chunk in self._chunks():
            await self._read_chunk(chunk, result)
            result.packs += len(chunk)
            if result.packs - told >= _SAY_EVERY:
                told = result.packs
                say(f"{result.packs} packs read")
        say(f"{result.packs} packs read")

    async def _chunks(self) -> AsyncIterator[list[PackInfo]]:
        chunk: list[PackInfo] = []
        octets = 0
        async for info in self._stores.blobs.list_packs(after=self._work.packs_to):
            if ulid_time_ms(info.pack) > self._until_ms:
                break
            if chunk and (len(chunk) == _CHUNK_PACKS or octets + info.size > _CHUNK_BYTES):
                yield chunk
                chunk, octets = [], 0
            chunk.append(info)
            octets += info.size
        if chunk:
            yield chunk

    async def _read_chunk(self, chunk: Sequence[PackInfo], result: RebuildResult) -> None:
        indexes = [index for _, index in (await read_valid_indexes(self._stores.blobs, chunk))[0]]
        result.unreadable += len(chunk) - len(indexes)
        envelopes = [entry.envelope for index in indexes for entry in index.entries]
        wanted = await self._stores.rebuilds.wanted([envelope.queue_id for envelope in envelopes])
        coming = await self._coming(indexes)
        wanted |= {candidate.entry.envelope.queue_id for candidate in coming}
        found: dict[str, FoundMessage] = {}
        for part in await asyncio.gather(*(self._found(index, wanted, result) for index in indexes)):
            for one in part:
                found.setdefault(one.queue_id, one)
        arrivals = [_arrival(one, found[one.key[1]]) for one in coming if one.key[1] in found]
        if self._work.outcomes_lost:
            result.assumed_relayed += await self._assume_relayed(envelopes)
        await self._stores.rebuilds.place(self._work, list(found.values()), arrivals, chunk[-1].pack)

    async def _coming(self, indexes: Iterable[PackIndex]) -> list[_Candidate]:
        """Who gets an entry although no snapshot has it. What was refused its sender has sent again."""
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
            if key not in self._queued.local and _may_come(one, rules.get(one.account_id))
        ]
        # Also true for all mail of an account that was deleted.
        done = await self._stores.deliveries.delivered(keys)
        done |= await self._stores.rebuilds.known(keys)
        return [candidates[key] for key in keys if key not in done]

    async def _found(self, index: PackIndex, wanted: set[str], result: RebuildResult) -> list[FoundMessage]:
        """The wanted entries of a pack whose bytes are what its index says."""
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
        """Nothing tells any more what was relayed. What the stream does not hold has left it, so it was."""
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
    """The account of an IMAP APPEND (`Spool.store`); 0: it was none."""
    mark, _, number = envelope.client.login.partition("#")
    return int(number) if envelope.client.listener == "local" and not mark and number.isdecimal() else 0


def _may_come(one: _Candidate, rule: SnapshotTimes | None) -> bool:
    """Whether a message that the account's snapshot does not know can be one that came after it.

    A delivery leaves a record, and the snapshot has all since `records_since`; an APPEND leaves only its row.
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
    """The lines that delivery put before the message (RFC 5321 §4.4), the same to the byte."""
    lines = f"Return-Path: <{_one_line(reverse_path)}>\r\nDelivered-To: {_one_line(address)}\r\n"
    return lines.encode("utf-8", "replace")


def _one_line(address: str) -> str:
    return "".join(character for character in address if character.isprintable())
