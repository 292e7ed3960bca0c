"""A message that an engine can never store is refused permanently, without an effect on concurrent messages."""

from __future__ import annotations

import asyncio
import os

import pytest
from minio.error import S3Error
from urllib3.response import HTTPResponse

from paquebot.blobs import BlobsRefused, BlobStore, BlobsUnavailable
from paquebot.blobs.errors import s3_call
from paquebot.blobs.store import PackInfo
from paquebot.queue import Publication, Queue, QueueTooLarge, stream
from paquebot.queue.stream import jobs
from paquebot.runtime.settings import Seconds
from paquebot.spool import Spool, SpoolRefused, SpoolSettings
from paquebot.v1.mail_pb2 import Envelope, LocalRecipient, RemoteRecipient
from paquebot.v1.queue_pb2 import RelayJob

RAW = b"From: a@example.org\r\nSubject: hello\r\n\r\nHow do you do?\r\n"


def envelope(*, envid: str = "", remote: int = 0, orcpt: int = 0) -> Envelope:
    path = "u1@paquebot.test"
    return Envelope(
        reverse_path="a@example.org",
        envid=envid,
        local=[LocalRecipient(account_id=1, address=path, forward_path=path)],
        remote=[
            RemoteRecipient(forward_path=f"x{n}@example.net", domain="example.net", orcpt="rfc822;" + "y" * orcpt)
            for n in range(remote)
        ],
    )


async def test_a_job_that_the_queue_never_accepts(spool: Spool, queue: Queue, blobs: BlobStore) -> None:
    """Nothing of it is written, and concurrent messages are accepted."""
    too_large = envelope(envid="x" * queue.max_payload)
    refused, kept = await asyncio.gather(
        spool.accept(too_large, RAW), spool.accept(envelope(), RAW), return_exceptions=True
    )
    assert isinstance(refused, SpoolRefused)
    assert isinstance(kept, str)
    [info] = [info async for info in blobs.list_packs()]
    assert [entry.envelope.queue_id for entry in (await blobs.read_index(info)).entries] == [kept]


async def test_recipients_at_one_domain_are_split_into_jobs_that_fit(spool: Spool, queue: Queue) -> None:
    count = 4000
    await spool.accept(envelope(remote=count, orcpt=500), RAW)
    paths: list[str] = []
    async for job in jobs(queue):
        assert len(job.payload) <= 600 * 1024
        if job.subject.startswith("relay."):
            paths += [recipient.forward_path for recipient in RelayJob.FromString(job.payload).recipients]
    assert paths == [f"x{n}@example.net" for n in range(count)]
    assert (await stream.counts(queue)).total("relay.") == 5


async def test_the_queue_refuses_a_job_that_is_too_large(queue: Queue) -> None:
    large = Publication("deliver.ready.x", bytes(queue.max_payload + 1))
    small = Publication("deliver.ready.x", b"small")
    with pytest.raises(QueueTooLarge):
        await queue.publish([large])
    with pytest.raises(QueueTooLarge):
        await queue.publish([small, large])
    with pytest.raises(QueueTooLarge):
        await queue.publish([large, small])
    assert (await stream.counts(queue)).total("") == 0


async def test_a_message_that_s3_refuses_does_not_fail_its_commit(
    blobs: BlobStore, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = blobs.put

    async def bounded(pack: str, data: bytes) -> None:
        if len(data) > 100_000:
            raise BlobsRefused("put: EntityTooLarge")
        await put(pack, data)

    monkeypatch.setattr(blobs, "put", bounded)
    spool = Spool(blobs, queue, SpoolSettings(linger=Seconds(0.2)))
    spool.join()
    spool.join()
    long = RAW + os.urandom(120_000).hex().encode() + b"\r\n"
    refused, kept, also = await asyncio.gather(
        spool.accept(envelope(), long), spool.accept(envelope(), RAW), spool.accept(envelope(), RAW),
        return_exceptions=True,
    )  # fmt: skip
    await spool.close()
    assert isinstance(refused, SpoolRefused)
    infos: list[PackInfo] = [info async for info in blobs.list_packs()]
    found = {entry.envelope.queue_id for info in infos for entry in (await blobs.read_index(info)).entries}
    assert found == {kept, also}


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("EntityTooLarge", 400, BlobsRefused),
        ("KeyTooLongError", 400, BlobsRefused),
        ("", 413, BlobsRefused),
        ("AccessDenied", 403, BlobsUnavailable),
        ("SlowDown", 503, BlobsUnavailable),
    ],
)
def test_permanent_refusals_of_s3(code: str, status: int, expected: type[Exception]) -> None:
    response = HTTPResponse(status=status)
    error = S3Error(response=response, code=code, message="", resource="", request_id="", host_id="")
    with pytest.raises(BlobsUnavailable) as caught, s3_call("put", ""):
        raise error
    assert type(caught.value) is expected
