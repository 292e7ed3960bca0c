"""The state of each recipient of each message in a pack: done, queued or missing.

The order of reads makes this safe beside running services: the stream from old to new, then the tables. A job that
is acknowledged meanwhile has its record by then (commit first, acknowledge after), and a job that is deferred
meanwhile is published again later in the stream.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from paquebot.blobs import BlobsUnavailable
from paquebot.blobs.pack import entry_ref
from paquebot.janitor.stores import Stores
from paquebot.message import summarise
from paquebot.observability.log import Log
from paquebot.queue import Queue, StoredJob, stream
from paquebot.spool import outcomes
from paquebot.spool.jobs import PackedMessage
from paquebot.v1.mail_pb2 import Envelope, PackEntry, PackIndex
from paquebot.v1.queue_pb2 import DeliverJob, HeldJob, RelayJob

_log = Log("paquebot.accounting")


@dataclass(slots=True)
class StreamContents:
    """The packs and messages that the jobs in the stream refer to."""

    packs: set[str] = field(default_factory=set)
    local: set[tuple[int, str]] = field(default_factory=set)
    """(account id, queue id)"""
    remote: set[tuple[str, str]] = field(default_factory=set)
    """(queue id, forward-path)"""
    unreadable: list[int] = field(default_factory=list)
    """Numbers of jobs that cannot be read. Their packs are unknown, so no pack may be deleted."""

    def add(self, subject: str, payload: bytes) -> None:
        """Add a job; a held job counts as queued. Raises DecodeError."""
        if subject.startswith("hold."):
            held = HeldJob.FromString(payload)
            self.add(held.subject, held.payload)
        elif subject.startswith("deliver."):
            self._add_deliver(DeliverJob.FromString(payload))
        else:
            self._add_relay(RelayJob.FromString(payload))

    def _add_deliver(self, job: DeliverJob) -> None:
        for entry in job.entries:
            self.packs.add(entry.blob.pack)
            self.local.update((recipient.account_id, entry.queue_id) for recipient in entry.recipients)

    def _add_relay(self, job: RelayJob) -> None:
        self.packs.add(job.blob.pack)
        self.remote.update((job.queue_id, recipient.forward_path) for recipient in job.recipients)


async def read_stream(queue: Queue) -> StreamContents:
    """All jobs of the stream. Logs a job that cannot be read and skips it. Raises QueueUnavailable."""
    queued = StreamContents()
    found: StoredJob
    async for found in stream.jobs(queue):
        try:
            queued.add(found.subject, found.payload)
        except DecodeError:
            _log.error("job_unreadable", number=found.sequence, subject=found.subject)
            queued.unreadable.append(found.sequence)
    return queued


@dataclass(frozen=True, slots=True)
class MissingMessage:
    """A message with recipients that are neither done nor queued."""

    entry: PackEntry
    envelope: Envelope
    """With the missing recipients only."""

    def recipients(self) -> int:
        return len(self.envelope.local) + len(self.envelope.remote)


async def find_missing(
    stores: Stores, indexes: Sequence[PackIndex], queued: StreamContents
) -> list[list[MissingMessage]]:
    """For each of the packs, its messages that must be queued again. Raises PostgresUnavailable."""
    wanted = [_accepted(index) for index in indexes]
    entries = list(itertools.chain.from_iterable(wanted))
    if not entries:
        return [[] for _ in indexes]
    ended = await outcomes.finished_recipients(stores.postgres, [entry.envelope.queue_id for entry in entries])
    delivered = await stores.deliveries.delivered(list(_local_keys(entries)))
    return [list(_missing(of_pack, delivered, ended, queued)) for of_pack in wanted]


def _accepted(index: PackIndex) -> list[PackEntry]:
    """The messages of a pack that were accepted for recipients."""
    if index.account_id:
        return []  # compaction wrote the pack; its messages were delivered from the packs in which they were accepted
    return [entry for entry in index.entries if entry.envelope.local or entry.envelope.remote]


def _missing(
    entries: Iterable[PackEntry], delivered: set[tuple[int, str]], ended: set[tuple[str, str]], queued: StreamContents
) -> Iterator[MissingMessage]:
    for entry in entries:
        envelope = _rest(entry.envelope, delivered, ended, queued)
        if envelope.local or envelope.remote:
            yield MissingMessage(entry, envelope)


def _local_keys(entries: Iterable[PackEntry]) -> Iterable[tuple[int, str]]:
    for entry in entries:
        for recipient in entry.envelope.local:
            yield recipient.account_id, entry.envelope.queue_id


def _rest(
    envelope: Envelope, delivered: set[tuple[int, str]], ended: set[tuple[str, str]], queued: StreamContents
) -> Envelope:
    queue_id = envelope.queue_id
    rest = Envelope()
    rest.CopyFrom(envelope)
    del rest.local[:]
    del rest.remote[:]
    for local in envelope.local:
        key, outcome = (local.account_id, queue_id), (queue_id, local.forward_path)
        # A local recipient has an outcome when an operator dropped its job.
        if key not in delivered and key not in queued.local and outcome not in ended:
            rest.local.append(local)
    for remote in envelope.remote:
        outcome = (queue_id, remote.forward_path)
        if outcome not in ended and outcome not in queued.remote:
            rest.remote.append(remote)
    return rest


async def read_packed(stores: Stores, index: PackIndex, messages: Sequence[MissingMessage]) -> list[PackedMessage]:
    """The messages in the form that `spool.jobs.publications` takes, with new summaries. Logs a message that cannot be
    read and leaves it out. Raises BlobsUnavailable."""
    refs = [entry_ref(index.pack, message.entry) for message in messages]
    found: list[PackedMessage] = []
    for message, ref, raw in zip(messages, refs, await stores.blobs.read_each(refs), strict=True):
        if isinstance(raw, BlobsUnavailable):
            raise raw
        if isinstance(raw, Exception):
            _log.error("message_unreadable", pack=ref.pack, queue_id=message.envelope.queue_id, reason=str(raw))
        else:
            found.append(PackedMessage(message.envelope, ref, summarise(raw)))
    return found
