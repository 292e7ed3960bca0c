"""The jobs of a pack: every recipient in exactly one, and each within its bounds."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from paquebot.queue import Publication
from paquebot.spool.jobs import MAX_JOB_BYTES, MAX_RECIPIENTS, PackedMessage, job_count, publications
from paquebot.v1.mail_pb2 import BlobRef, Envelope, LocalRecipient, RemoteRecipient
from paquebot.v1.queue_pb2 import DeliverJob, RelayJob
from paquebot.v1.summary_pb2 import MessageSummary

PACK = "01KAR0G9W0G01DENPACK000001"
LOCAL = ("paquebot.test", "other.test", "third.test")
REMOTE = ("example.net", "example.com")


def message(number: int, local: dict[str, int], remote: dict[str, int], subject: int = 0) -> PackedMessage:
    """With so many recipients at each domain, and a subject of so many bytes."""
    envelope = Envelope(
        queue_id=f"{number:026}",
        local=[
            LocalRecipient(account_id=n, address=f"u{n}@{domain}", forward_path=f"u{n}@{domain}")
            for domain, count in local.items()
            for n in range(count)
        ],
        remote=[
            RemoteRecipient(forward_path=f"u{n}@{domain}", domain=domain)
            for domain, count in remote.items()
            for n in range(count)
        ],
    )
    summary = MessageSummary()
    summary.envelope.subject = b"s" * subject
    return PackedMessage(envelope, BlobRef(pack=PACK, offset=number, length=1, size=1), summary)


def delivered(jobs: list[Publication]) -> list[DeliverJob]:
    return [DeliverJob.FromString(job.payload) for job in jobs if job.subject.startswith("deliver.")]


def relayed(jobs: list[Publication]) -> list[RelayJob]:
    return [RelayJob.FromString(job.payload) for job in jobs if job.subject.startswith("relay.")]


def reached(jobs: list[Publication]) -> Counter[tuple[str, str]]:
    """How often each (queue id, forward-path) is in a job."""
    found: Counter[tuple[str, str]] = Counter()
    for deliver in delivered(jobs):
        for entry in deliver.entries:
            found.update((entry.queue_id, recipient.forward_path) for recipient in entry.recipients)
            assert {recipient.address.rpartition("@")[2] for recipient in entry.recipients} == {deliver.domain}
    for relay in relayed(jobs):
        found.update((relay.queue_id, recipient.forward_path) for recipient in relay.recipients)
    return found


def counts(domains: tuple[str, ...], most: int) -> st.SearchStrategy[dict[str, int]]:
    return st.dictionaries(st.sampled_from(domains), st.integers(1, most), max_size=len(domains))


messages = st.lists(
    st.tuples(counts(LOCAL, 250), counts(REMOTE, 5), st.sampled_from([0, 100_000, 300_000])), max_size=6
).map(lambda drawn: [message(number, *parts) for number, parts in enumerate(drawn)])


@given(messages)
def test_each_recipient_is_in_one_job_within_the_bounds(packed: list[PackedMessage]) -> None:
    jobs = publications(PACK, packed)
    assert len(jobs) <= sum(job_count(item.envelope) for item in packed)
    for job, payload in zip(delivered(jobs), (j.payload for j in jobs), strict=False):
        assert len(payload) <= MAX_JOB_BYTES
        assert sum(len(entry.recipients) for entry in job.entries) <= MAX_RECIPIENTS
        assert job.entries
    expected = {
        (item.envelope.queue_id, path)
        for item in packed
        for path in (
            *(recipient.forward_path for recipient in item.envelope.local),
            *(recipient.forward_path for recipient in item.envelope.remote),
        )
    }
    assert reached(jobs) == Counter(expected)


def test_a_job_takes_100_recipients_and_no_more() -> None:
    full = publications(PACK, [message(1, {"paquebot.test": 60}, {}), message(2, {"paquebot.test": 40}, {})])
    assert [len(job.entries) for job in delivered(full)] == [2]
    over = publications(PACK, [message(1, {"paquebot.test": 60}, {}), message(2, {"paquebot.test": 41}, {})])
    assert [len(job.entries) for job in delivered(over)] == [1, 1]
    split = delivered(publications(PACK, [message(1, {"paquebot.test": 201}, {})]))
    assert [len(job.entries[0].recipients) for job in split] == [100, 100, 1]


def test_a_job_takes_512_kib_to_the_byte() -> None:
    def data(subject: int) -> list[int]:
        pair = [message(1, {"paquebot.test": 1}, {}, 200_000), message(2, {"paquebot.test": 1}, {}, subject)]
        return [len(job.payload) for job in publications(PACK, pair)]

    room = MAX_JOB_BYTES - data(200_000)[0] + 200_000
    (most,) = data(room - 16)
    assert MAX_JOB_BYTES - 20 < most <= MAX_JOB_BYTES
    assert len(data(room + 1)) == 2


def test_an_entry_over_the_bound_is_a_job_alone() -> None:
    sizes = (10, MAX_JOB_BYTES + 1, 10)
    jobs = delivered(publications(PACK, [message(n, {"paquebot.test": 1}, {}, size) for n, size in enumerate(sizes)]))
    assert [[int(entry.queue_id) for entry in job.entries] for job in jobs] == [[0], [1], [2]]


def test_job_count_is_never_too_small() -> None:
    assert job_count(message(1, {}, {}).envelope) == 0
    assert job_count(message(1, {"paquebot.test": 1}, {"example.net": 900}).envelope) == 2
    assert job_count(message(1, {"paquebot.test": 250}, {}).envelope) >= 3
