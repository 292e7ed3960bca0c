"""The start of commits, on a real S3 whose answers a proxy delays."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from paquebot.blobs import BlobStore
from paquebot.blobs.pack import compress
from paquebot.cli.engines.s3 import S3Engine
from paquebot.runtime.engine_settings import S3Settings
from paquebot.spool import SpoolUnavailable
from paquebot.spool.committer import Committer
from paquebot.spool.scheduler import CommitLimits
from paquebot.v1.mail_pb2 import BlobRef, Envelope
from paquebot.v1.summary_pb2 import MessageSummary
from tests.support.slow_proxy import SlowProxy

NEVER = 3600.0
LARGE = 20_000
MOMENT = 0.3  # seconds to wait for something that must not happen
LIMITS = CommitLimits(slow=NEVER, large_message_size=LARGE)


@pytest.fixture
async def proxy(s3_engine: S3Engine) -> AsyncIterator[SlowProxy]:
    host, _, port = s3_engine.endpoint.rpartition(":")
    async with SlowProxy(host, int(port)) as proxy:
        yield proxy


@pytest.fixture
async def slow_blobs(proxy: SlowProxy, s3_settings: S3Settings, blobs: BlobStore) -> AsyncIterator[BlobStore]:
    """The bucket of `blobs`, through the proxy."""
    store = BlobStore(replace(s3_settings, endpoint=proxy.endpoint, threads=16))
    yield store
    proxy.release()
    await store.close()


def begin(committer: Committer, queue_id: str, size: int = 100) -> asyncio.Task[BlobRef]:
    frame = compress(random.Random(queue_id).randbytes(size))
    return asyncio.ensure_future(committer.commit(Envelope(queue_id=queue_id), frame, MessageSummary()))


def join(committer: Committer, sessions: int) -> None:
    for _ in range(sessions):
        committer.join()


async def packs(blobs: BlobStore) -> list[list[str]]:
    """The queue ids in each pack, in order."""
    indexes = [await blobs.read_index(info) async for info in blobs.list_packs()]
    return sorted([entry.envelope.queue_id for entry in index.entries] for index in indexes)


async def test_a_second_commit_starts_beside_a_slow_one(proxy: SlowProxy, slow_blobs: BlobStore) -> None:
    committer = Committer(slow_blobs, None, replace(LIMITS, slow=0.2))
    proxy.hold()
    first = begin(committer, "1")
    await proxy.until_puts(1)
    others = [begin(committer, "2"), begin(committer, "3")]
    await proxy.until_puts(2)
    assert proxy.puts[1] - proxy.puts[0] > 0.1  # the first PUT arrives a little after its commit began
    proxy.release()
    await asyncio.gather(first, *others)
    assert await packs(slow_blobs) == [["1"], ["2", "3"]]


async def test_commits_are_limited(proxy: SlowProxy, slow_blobs: BlobStore) -> None:
    committer = Committer(slow_blobs, None, replace(LIMITS, slow=0.0, max_commits=2))
    proxy.hold()
    commits = [begin(committer, "1"), begin(committer, "2"), begin(committer, "3"), begin(committer, "4")]
    await proxy.until_puts(2)
    with pytest.raises(TimeoutError):
        await proxy.until_puts(3, MOMENT)
    proxy.release()
    await asyncio.gather(*commits)
    assert proxy.most_under_way == 2
    assert await packs(slow_blobs) == [["1"], ["2"], ["3", "4"]]


async def test_large_messages_do_not_delay_small_ones(proxy: SlowProxy, slow_blobs: BlobStore) -> None:
    committer = Committer(slow_blobs, None, replace(LIMITS, max_commits=1, max_large_commits=4))
    proxy.hold()
    large = [begin(committer, f"large {number}", 2 * LARGE) for number in range(6)]
    await proxy.until_puts(4)
    small = begin(committer, "small")
    await proxy.until_puts(5)
    with pytest.raises(TimeoutError):  # large messages are limited, too
        await proxy.until_puts(6, MOMENT)
    proxy.release()
    await asyncio.gather(small, *large)
    assert proxy.most_under_way == 5
    assert await packs(slow_blobs) == [*([f"large {number}"] for number in range(6)), ["small"]]


async def test_a_message_cancelled_before_its_commit_is_not_kept(proxy: SlowProxy, slow_blobs: BlobStore) -> None:
    committer = Committer(slow_blobs, None, replace(LIMITS, max_commits=1, max_large_commits=1))
    proxy.hold()
    kept = [begin(committer, "1"), begin(committer, "large 1", 2 * LARGE)]
    await proxy.until_puts(2)
    gone = [begin(committer, "2"), begin(committer, "large 2", 2 * LARGE)]
    kept += [begin(committer, "3"), begin(committer, "large 3", 2 * LARGE)]
    late = begin(committer, "4")
    await asyncio.wait([*gone, late], timeout=MOMENT)
    for task in gone:
        task.cancel()
    await asyncio.wait(gone)
    late.cancel()
    proxy.release()
    await asyncio.gather(*kept)
    await committer.close()
    assert all(task.cancelled() for task in (*gone, late))
    assert await packs(slow_blobs) == [["1"], ["3"], ["large 1"], ["large 3"]]


async def test_a_message_cancelled_as_its_commit_starts_is_not_kept(proxy: SlowProxy, slow_blobs: BlobStore) -> None:
    committer = Committer(slow_blobs, None, LIMITS)
    proxy.hold()
    first = begin(committer, "1")
    await proxy.until_puts(1)
    second = begin(committer, "2")
    await asyncio.wait([second], timeout=MOMENT)
    second.cancel()  # `close` takes the batch before the task can remove its message
    closing = committer.close()
    proxy.release()
    await closing
    assert first.done()
    assert await packs(slow_blobs) == [["1"]]


async def test_a_message_cancelled_during_its_commit_affects_no_other(proxy: SlowProxy, slow_blobs: BlobStore) -> None:
    committer = Committer(slow_blobs, None, LIMITS)
    join(committer, 2)
    proxy.hold()
    first, second = begin(committer, "1"), begin(committer, "2")
    await proxy.until_puts(1)
    first.cancel()
    await asyncio.wait([first])
    proxy.release()
    assert (await second).size == 100
    assert await packs(slow_blobs) == [["1", "2"]]


async def test_a_failure_wakes_all_callers(proxy: SlowProxy, slow_blobs: BlobStore) -> None:
    committer = Committer(slow_blobs, None, LIMITS)
    join(committer, 3)
    proxy.hold()
    commits = [begin(committer, str(number)) for number in range(3)]
    commits.append(begin(committer, "large", 2 * LARGE))
    await proxy.until_puts(2)
    commits.append(begin(committer, "next"))
    await proxy.cut()
    async with asyncio.timeout(15):
        ends = await asyncio.gather(*commits, return_exceptions=True)
    assert [type(end) for end in ends] == [SpoolUnavailable] * 5
    await committer.close()


async def test_close_commits_the_waiting_messages_within_the_limits(proxy: SlowProxy, slow_blobs: BlobStore) -> None:
    limits = replace(LIMITS, max_commits=2, max_large_commits=1, max_messages=1)
    committer = Committer(slow_blobs, None, limits)
    proxy.hold()
    commits = [begin(committer, str(number)) for number in range(5)]
    commits += [begin(committer, f"large {number}", 2 * LARGE) for number in range(2)]
    await proxy.until_puts(2)
    closing = asyncio.ensure_future(committer.close())
    await proxy.until_puts(3)
    with pytest.raises(TimeoutError):
        await proxy.until_puts(4, MOMENT)
    assert not closing.done()
    proxy.release()
    await closing
    assert all(task.done() for task in commits)
    assert proxy.most_under_way == 3
    assert len(await packs(slow_blobs)) == 7


async def test_the_first_of_several_messages_waits_for_more(proxy: SlowProxy, slow_blobs: BlobStore) -> None:
    committer = Committer(slow_blobs, None, replace(LIMITS, linger=NEVER))
    join(committer, 2)
    first = begin(committer, "1")
    with pytest.raises(TimeoutError):
        await proxy.until_puts(1, MOMENT)
    await asyncio.gather(first, begin(committer, "2"))
    assert await packs(slow_blobs) == [["1", "2"]]
