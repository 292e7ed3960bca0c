"""The bucket on a real S3, and behind a proxy that is slow, silent, or closes connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from paquebot.blobs import BadPack, BlobMissing, BlobStore, BlobsUnavailable, PackWriter, new_ulid, pack_key
from paquebot.blobs.pack import compress
from paquebot.blobs.store import PackInfo
from paquebot.cli.engines.s3 import S3Engine
from paquebot.runtime.engine_settings import S3Settings
from paquebot.runtime.settings import Seconds
from paquebot.v1.mail_pb2 import BlobRef, Envelope
from tests.support import counted
from tests.support.counted import value
from tests.support.slow_proxy import SlowProxy


@pytest.fixture
async def way(s3_engine: S3Engine) -> AsyncIterator[SlowProxy]:
    host, _, port = s3_engine.endpoint.rpartition(":")
    async with SlowProxy(host, int(port)) as proxy:
        yield proxy


def errors(call: str) -> float:
    return counted.errors("s3", call)


def faults(call: str, kind: str) -> float:
    return value("paquebot_engine_errors_total", engine="s3", call=call, **{"class": kind}) or 0.0


async def test_a_missing_object_is_not_an_error_of_s3(blobs: BlobStore) -> None:
    pack = new_ulid()
    before = errors("get"), errors("stat")
    with pytest.raises(BlobMissing) as missing:
        await blobs.read_range(pack, 0, 10)
    assert missing.value.key == pack_key(pack)
    with pytest.raises(BlobMissing) as missing:
        await blobs.stat(pack)
    assert missing.value.key == pack_key(pack)
    assert (errors("get"), errors("stat")) == before


async def test_a_missing_bucket_is_an_error(s3_settings: S3Settings) -> None:
    store = BlobStore(replace(s3_settings, bucket="no-such-bucket"))
    before, refused = errors("put"), faults("put", "refused")
    with pytest.raises(BlobsUnavailable):
        await store.probe()
    with pytest.raises(BlobsUnavailable, match=r"AccessDenied|NoSuchBucket"):
        await store.put(new_ulid(), b"x")
    assert errors("put") == before + 1
    assert faults("put", "refused") == refused + 1
    await store.close()


async def test_large_index_is_read_whole(blobs: BlobStore) -> None:
    writer = PackWriter(new_ulid())
    for number in range(600):
        writer.add(Envelope(queue_id=f"{number:026}", reverse_path="a" * 100 + "@example.org"), compress(b"x"))
    data = writer.finish(1)
    await blobs.put(writer.pack, data)
    index = await blobs.read_index(await blobs.stat(writer.pack))
    assert len(index.entries) == 600
    assert index.ByteSize() > 64 * 1024
    with pytest.raises(BadPack):
        await blobs.read_index(PackInfo(writer.pack, len(data) - 1))


async def test_a_silent_s3_does_not_occupy_a_thread_for_long(way: SlowProxy, s3_settings: S3Settings) -> None:
    store = BlobStore(replace(s3_settings, endpoint=way.endpoint, timeout=Seconds(0.6), threads=1))
    way.hold()
    before = faults("put", "timeout")
    start = time.monotonic()
    with pytest.raises(BlobsUnavailable):
        await store.put(new_ulid(), b"x" * 10)
    assert time.monotonic() - start < 1.5
    assert len(way.puts) == 1  # after such a long wait there is no retry
    assert faults("put", "timeout") == before + 1
    way.release()
    await store.close()


async def test_a_lost_connection_is_retried(
    way: SlowProxy, s3_engine: S3Engine, s3_settings: S3Settings, blobs: BlobStore
) -> None:
    store = BlobStore(replace(s3_settings, endpoint=way.endpoint, threads=1))
    await store.probe()  # makes a connection that stays open
    way.hold()
    requests = value("paquebot_s3_requests_total", call="put") or 0.0
    pack = new_ulid()
    writing = asyncio.ensure_future(store.put(pack, b"x" * 10))
    await way.until_puts(1)
    await way.cut_connections()
    way.release()
    await writing
    assert len(way.puts) == 2
    assert value("paquebot_s3_requests_total", call="put") == requests + 2
    assert await blobs.read_range(pack, 0, 10) == b"x" * 10
    await store.close()


async def test_a_message_named_twice_is_read_once(blobs: BlobStore) -> None:
    writer = PackWriter(new_ulid())
    first, second = (writer.add(Envelope(queue_id=new_ulid()), compress(content)) for content in (b"one", b"two"))
    await blobs.put(writer.pack, writer.finish(1))
    requests = value("paquebot_s3_requests_total", call="get") or 0.0
    assert await blobs.read_each([second, first, second]) == [b"two", b"one", b"two"]
    assert value("paquebot_s3_requests_total", call="get") == requests + 1


async def test_reading_many_messages_gives_up_while_s3_is_away(s3_settings: S3Settings) -> None:
    store = BlobStore(replace(s3_settings, endpoint="http://127.0.0.1:1"))
    refs = [BlobRef(pack=new_ulid(), length=10, size=10) for _ in range(40)]
    requests = value("paquebot_s3_requests_total", call="get") or 0.0
    outcomes = await store.read_each(refs)
    assert [type(outcome) for outcome in outcomes] == [BlobsUnavailable] * 40
    assert (value("paquebot_s3_requests_total", call="get") or 0.0) - requests < 60  # not three tries for each
    await store.close()
