"""Makes the jobs of the queue from the messages of a pack.

A deliver job has a pack's messages for one local domain, so that queue, consumer and database are used once for a pack
and not once for a message; a relay job has one message for the recipients at one remote domain.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from paquebot.queue import Publication, deliver_ready, relay_ready
from paquebot.v1.mail_pb2 import BlobRef, Envelope, LocalRecipient, RemoteRecipient
from paquebot.v1.queue_pb2 import DeliverJob, RelayJob
from paquebot.v1.summary_pb2 import MessageSummary

MAX_RECIPIENTS = 100
"""Maximum of recipients in one deliver job: it is one database transaction."""

MAX_JOB_BYTES = 512 * 1024
"""A job is larger only when one entry, or one remote recipient, alone is."""


@dataclass(frozen=True, slots=True)
class PackedMessage:
    """A message in a pack."""

    envelope: Envelope
    blob: BlobRef
    summary: MessageSummary


def local_domain(recipient: LocalRecipient) -> str:
    return recipient.address.rpartition("@")[2]


def job_count(envelope: Envelope) -> int:
    """The maximum number of jobs of a message with this envelope."""
    if len(envelope.local) + len(envelope.remote) <= 1:
        return len(envelope.local) + len(envelope.remote)
    local = len({local_domain(recipient) for recipient in envelope.local}) + len(envelope.local) // MAX_RECIPIENTS
    remote = len({recipient.domain for recipient in envelope.remote})
    return local + remote + 2 * (envelope.ByteSize() // MAX_JOB_BYTES)


def publications(pack: str, messages: Sequence[PackedMessage]) -> list[Publication]:
    """All jobs of a pack, for one atomic batch."""
    return [*_deliver(pack, messages), *_relay(messages)]


@dataclass(frozen=True, slots=True)
class _Entry:
    """`job`: a serialised DeliverJob with only the entry. Serialised messages, one after another, are one message with
    the fields of all (protobuf's encoding, "Last One Wins"): so entries are joined to jobs without another copy of a
    summary.
    """

    job: bytes
    recipients: int


def _deliver(pack: str, messages: Sequence[PackedMessage]) -> list[Publication]:
    by_domain: dict[str, list[_Entry]] = {}
    for message in messages:
        local: dict[str, list[LocalRecipient]] = {}
        for recipient in message.envelope.local:
            local.setdefault(local_domain(recipient), []).append(recipient)
        for domain, recipients in local.items():
            for start in range(0, len(recipients), MAX_RECIPIENTS):
                entry = _entry(message, recipients[start : start + MAX_RECIPIENTS])
                by_domain.setdefault(domain, []).append(entry)
    found: list[Publication] = []
    for domain, entries in by_domain.items():
        head = DeliverJob(pack=pack, domain=domain).SerializeToString()
        found += (Publication(deliver_ready(domain), head + b"".join(part)) for part in _parts(entries, len(head)))
    return found


def _entry(message: PackedMessage, recipients: Sequence[LocalRecipient]) -> _Entry:
    envelope = message.envelope
    job = DeliverJob()
    job.entries.add(
        queue_id=envelope.queue_id,
        reverse_path=envelope.reverse_path,
        recipients=recipients,
        blob=message.blob,
        summary=message.summary,
        accepted_at_ms=envelope.accepted_at_ms,
        trace=envelope.trace,
        ret=envelope.ret,
        envid=envelope.envid,
        smtputf8=envelope.smtputf8,
        login=envelope.client.login,
    )
    return _Entry(job.SerializeToString(), len(recipients))


def _parts(entries: Sequence[_Entry], base: int) -> list[list[bytes]]:
    """Entries in order, cut where a job would exceed its limits; an entry that exceeds them alone is a job of its own.
    `base`: size of a job without entries."""
    parts: list[list[bytes]] = []
    recipients = size = 0
    for entry in entries:
        over = recipients + entry.recipients > MAX_RECIPIENTS or size + len(entry.job) > MAX_JOB_BYTES
        if not parts or over:
            parts.append([])
            recipients, size = 0, base
        parts[-1].append(entry.job)
        recipients += entry.recipients
        size += len(entry.job)
    return parts


def _relay(messages: Sequence[PackedMessage]) -> list[Publication]:
    found: list[Publication] = []
    for message in messages:
        by_domain: dict[str, list[RemoteRecipient]] = {}
        for recipient in message.envelope.remote:
            by_domain.setdefault(recipient.domain, []).append(recipient)
        for domain, recipients in by_domain.items():
            for group in _groups(recipients):
                job = relay_job(message, domain, group)
                found.append(Publication(relay_ready(domain), job.SerializeToString()))
    return found


def _groups(recipients: Sequence[RemoteRecipient]) -> Iterator[list[RemoteRecipient]]:
    """In order, cut where a job would exceed MAX_JOB_BYTES."""
    group: list[RemoteRecipient] = []
    total = 0
    for recipient in recipients:
        size = recipient.ByteSize()
        if group and total + size > MAX_JOB_BYTES:
            yield group
            group, total = [], 0
        group.append(recipient)
        total += size
    yield group


def relay_job(message: PackedMessage, domain: str, recipients: Sequence[RemoteRecipient]) -> RelayJob:
    """The first attempt at `recipients`, all at `domain`."""
    envelope = message.envelope
    return RelayJob(
        queue_id=envelope.queue_id,
        reverse_path=envelope.reverse_path,
        domain=domain,
        recipients=recipients,
        blob=message.blob,
        accepted_at_ms=envelope.accepted_at_ms,
        ret=envelope.ret,
        envid=envelope.envid,
        smtputf8=envelope.smtputf8,
        eight_bit=envelope.eight_bit,
        trace=envelope.trace,
        login=envelope.client.login,
    )
