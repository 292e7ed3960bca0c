"""Commits that fail half way: a pack left in the bucket is marked, and delivers nothing a second time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from paquebot.blobs import BlobStore, new_ulid
from paquebot.blobs.marks import REFUSED, Marks
from paquebot.queue import Queue, stream
from paquebot.runtime.engine_settings import NatsSettings, S3Settings
from paquebot.runtime.settings import Seconds
from paquebot.spool import Spool, SpoolSettings, SpoolUnavailable
from paquebot.spool.refusals import RefusalMarks
from paquebot.v1.mail_pb2 import Envelope, LocalRecipient
from tests.support.lying_s3 import Lie, LyingS3
from tests.support.slow_proxy import SlowProxy

RAW = b"From: a@example.org\r\nSubject: hello\r\n\r\nHow do you do?\r\n"


def message(queue_id: str) -> Envelope:
    return Envelope(
        queue_id=queue_id,
        local=[LocalRecipient(account_id=1, address="a@paquebot.test", forward_path="a@paquebot.test")],
    )


async def until_marked(blobs: BlobStore) -> str:
    """Wait for the only pack with a mark."""
    async with asyncio.timeout(20.0):
        while not (marked := await Marks(blobs, REFUSED).packs()):
            await asyncio.sleep(0.01)
    (pack,) = marked
    return pack


async def test_a_pack_written_after_its_message_was_refused_makes_no_job(
    lying_s3: LyingS3, s3_settings: S3Settings, blobs: BlobStore, queue: Queue
) -> None:
    store = BlobStore(replace(s3_settings, endpoint=lying_s3.endpoint))
    spool = Spool(store, queue, SpoolSettings(timeout=Seconds(0.5)))
    lying_s3.set_lie(Lie.NO_ANSWER)
    with pytest.raises(SpoolUnavailable):
        await spool.accept(message("late"), RAW)
    lying_s3.set_lie(Lie.NONE)  # the PUT continues, and succeeds
    pack = await until_marked(blobs)
    assert await Marks(blobs, REFUSED).queue_ids(pack) == {"late"}
    await spool.close()
    await store.close()
    assert [job async for job in stream.jobs(queue)] == []
    assert [info async for info in blobs.list_packs()] == []  # no job can name it


async def test_a_commit_with_a_refused_message_serves_the_others(
    lying_s3: LyingS3, s3_settings: S3Settings, blobs: BlobStore, queue: Queue
) -> None:
    """Both messages are in one pack: there is one job, and the mark names the other message."""
    store = BlobStore(replace(s3_settings, endpoint=lying_s3.endpoint))
    spool = Spool(store, queue, SpoolSettings(linger=Seconds(3600.0)))
    lying_s3.set_lie(Lie.NO_ANSWER)
    spool.join()
    spool.join()
    gone, served = (asyncio.ensure_future(spool.accept(message(name), RAW)) for name in ("gone", "served"))
    async with asyncio.timeout(20.0):
        while not lying_s3.writes:
            await asyncio.sleep(0.01)
    gone.cancel()
    await asyncio.wait((gone,))
    lying_s3.set_lie(Lie.NONE)
    assert await served == "served"
    pack = await until_marked(blobs)
    assert await Marks(blobs, REFUSED).queue_ids(pack) == {"gone"}
    assert [info.pack async for info in blobs.list_packs()] == [pack]
    assert len([job async for job in stream.jobs(queue)]) == 1
    await spool.close()
    await store.close()


async def test_a_pack_whose_jobs_may_be_stored_is_marked_and_stays(
    nats_settings: NatsSettings, blobs: BlobStore, queue: Queue
) -> None:
    """JetStream does not answer: the sender gets a 451."""
    host, _, port = nats_settings.url[0].removeprefix("nats://").rpartition(":")
    async with SlowProxy(host, int(port)) as proxy:
        url = proxy.endpoint.replace("http://", "nats://")
        silent = await Queue.open(replace(nats_settings, url=(url,), timeout=Seconds(0.5)), "silent")
        await silent.probe()
        spool = Spool(blobs, silent, SpoolSettings())
        proxy.hold()
        with pytest.raises(SpoolUnavailable):
            await spool.accept(message("perhaps"), RAW)
        pack = await until_marked(blobs)
        assert [info.pack async for info in blobs.list_packs()] == [pack]
        proxy.release()
        await spool.close()
        await silent.close()


async def test_a_message_refused_while_its_pack_is_marked_is_marked_too(
    s3_settings: S3Settings, blobs: BlobStore
) -> None:
    """One sender of a pack closed its connection, and JetStream does not answer the others while S3 writes the mark."""

    class Slow(BlobStore):
        async def put_object(self, key: str, data: bytes) -> None:
            if not started.is_set():
                started.set()
                await more.wait()
            await super().put_object(key, data)

    started, more = asyncio.Event(), asyncio.Event()
    store = Slow(s3_settings)
    refusals, pack = RefusalMarks(store), new_ulid()
    refusals.add(pack, ["gone"], void=False)
    await started.wait()
    refusals.add(pack, ["gone", "silence"], void=False)
    more.set()
    async with asyncio.timeout(20.0):
        while await Marks(blobs, REFUSED).queue_ids(pack) != {"gone", "silence"}:
            await asyncio.sleep(0.01)
    await refusals.close()
    await store.close()
