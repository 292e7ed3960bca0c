"""The relay refuses impossible jobs of the stream immediately."""

import pytest

from paquebot.relay.queue.admission import UnreadableJob, read_job
from paquebot.relay.smtp_client.transaction import rcpt_parameters
from paquebot.v1.mail_pb2 import RemoteRecipient
from paquebot.v1.queue_pb2 import RelayJob
from paquebot.wire.smtp.parameters import Notify

JOB = RelayJob(
    queue_id="01KAYZ7Q0V5R7NJ4W6N3F1T2ME",
    reverse_path="ü@example.org",
    domain="example.net",
    recipients=[RemoteRecipient(forward_path="a@example.net", domain="example.net")],
    accepted_at_ms=1_790_000_000_000,
)


def test_a_job_is_decoded_as_it_was_encoded() -> None:
    assert read_job(JOB.SerializeToString()) == JOB


@pytest.mark.parametrize(
    "changed",
    [
        {"queue_id": ""},
        {"queue_id": "a.b"},
        {"queue_id": "a >"},
        {"domain": "a\0b"},
        {"reverse_path": "a\0b"},
        {"recipients": [RemoteRecipient(forward_path="a\0@example.net")]},
        {"recipients": [RemoteRecipient(forward_path="a@example.net", orcpt="rfc822;\0")]},
        {"relayed": ["\0"]},
        {"accepted_at_ms": -1},
        {"accepted_at_ms": 2**62},
    ],
)
def test_an_impossible_job(changed: dict[str, object]) -> None:
    job = RelayJob()
    job.CopyFrom(JOB)
    for name in changed:
        job.ClearField(name)  # type: ignore[arg-type]
    job.MergeFrom(RelayJob(**changed))  # type: ignore[arg-type]
    with pytest.raises(UnreadableJob):
        read_job(job.SerializeToString())


def test_bytes_that_are_not_a_job() -> None:
    with pytest.raises(UnreadableJob):
        read_job(b"\xff\xff\xff")


def test_notify_values_of_a_later_version_are_ignored() -> None:
    assert rcpt_parameters([99, 3, 0], "").notify == (Notify.FAILURE,)
