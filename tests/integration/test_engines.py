"""The engines from their wheels: they start, keep what they acknowledged, and end with their supervisor."""

from __future__ import annotations

import asyncio
import io

import asyncpg
import urllib3
from nats.js import JetStreamContext

from paquebot.cli.engines.s3 import S3Engine


async def test_jetstream_stores_messages(jetstream: JetStreamContext) -> None:
    await jetstream.add_stream(name="T", subjects=["t.>"])
    await jetstream.publish("t.1", b"one")
    assert (await jetstream.stream_info("T")).state.messages == 1


async def test_each_test_gets_an_empty_jetstream(jetstream: JetStreamContext) -> None:
    assert await jetstream.streams_info() == []


async def test_bucket_holds_objects(s3_engine: S3Engine, bucket: str) -> None:
    with urllib3.PoolManager() as pool:
        client = s3_engine.client(pool)
        await asyncio.to_thread(client.put_object, bucket, "a/b", io.BytesIO(b"pack"), 4)
        answer = await asyncio.to_thread(client.get_object, bucket, "a/b", 1, 2)
        with answer:
            assert answer.read() == b"ac"


async def test_database_is_empty_and_utf8(database: str) -> None:
    connection = await asyncpg.connect(database)
    assert await connection.fetchval("SHOW server_encoding") == "UTF8"
    assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await connection.close()
