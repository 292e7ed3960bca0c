"""What snapshots and a rebuild cost: `.venv/bin/python -m tests.drill.cost --accounts 1000`.

Fills a mailstore through the spool, spread over accounts, then measures a first snapshot, one without a change, one
after a change in one account of a hundred, and a rebuild of all."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from paquebot.blobs import BlobStore
from paquebot.blobs.requests import REQUESTS
from paquebot.cli.engines.engine import start_engine
from paquebot.janitor.settings import JanitorSettings
from paquebot.janitor.stores import Stores
from paquebot.mailstore import Delivery, Flag, FlagOp, NewMessage
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.message import summarise
from paquebot.queue import Queue
from paquebot.queue.stream import ensure_stream
from paquebot.runtime.engine_settings import NatsSettings, PostgresSettings, S3Settings
from paquebot.runtime.postgres.migrations import migrate
from paquebot.runtime.postgres.pool import open_postgres
from paquebot.runtime.settings import Secret
from paquebot.spool import Spool, SpoolSettings
from tests.support.loopback import EngineSet, engine_set
from tests.support.rebuild_world import Platform

BODY_BYTES = 3000
BATCH = 500


def _requests() -> int:
    return int(
        sum(sample.value for metric in REQUESTS.collect() for sample in metric.samples if "_total" in sample.name)
    )


@contextmanager
def measured(what: str) -> Iterator[None]:
    wall, cpu, requests = time.perf_counter(), time.process_time(), _requests()
    yield
    seconds, work = time.perf_counter() - wall, time.process_time() - cpu
    print(
        f"{what:34} {seconds:7.2f} s  {work:7.2f} CPU s of the janitor  {_requests() - requests:6} S3 requests",
        flush=True,
    )


@dataclass(frozen=True, slots=True)
class Load:
    accounts: int
    messages: int


async def fill(platform: Platform, load: Load) -> None:
    """As accepted and delivered, in packs of up to 500 messages of many accounts."""
    total = load.accounts * load.messages
    for first in range(0, total, BATCH):
        numbers = range(first, min(first + BATCH, total))
        raws = {n: _raw(n) for n in numbers}
        stored = await asyncio.gather(*(platform.spool.store(raws[n], account_id=0) for n in numbers))
        deliveries = []
        for number, one in zip(numbers, stored, strict=True):
            summary = summarise(raws[number])
            message = NewMessage(
                email_id=one.queue_id,
                blob=one.blob,
                summary=summary.SerializeToString(),
                thread_key=summary.thread_key,
                internal_date=datetime.datetime.now(datetime.UTC),
                prefix=f"Return-Path: <a@example.org>\r\nDelivered-To: u{number % load.accounts}@x.test\r\n".encode(),
            )
            deliveries.append(Delivery(1 + number % load.accounts, "", 0, message))
        await platform.mailstore.deliveries.deliver(deliveries)


def _raw(number: int) -> bytes:
    head = f"From: A <a@example.org>\r\nSubject: number {number}\r\nMessage-ID: <{number}@example.org>\r\n\r\n"
    return head.encode() + os.urandom(BODY_BYTES * 3 // 8).hex().encode()


async def measure(load: Load, directory: Path) -> None:
    engines: EngineSet = engine_set(directory)
    starts = [start_engine(engine, directory / "log") for engine in (engines.nats, engines.s3, engines.postgres)]
    processes = await asyncio.gather(*starts)
    try:
        await migrate(engines.postgres.dsn())
        await _measure(load, engines)
    finally:
        await asyncio.gather(*(process.kill() for process in processes))
        for socket in engines.s3.stray_sockets():
            socket.unlink(missing_ok=True)


async def _measure(load: Load, engines: EngineSet) -> None:
    login, key = engines.nats.accesses[0], engines.s3.accesses[0]
    settings = JanitorSettings(
        NatsSettings(url=(engines.nats.url,), user=login.name, password=Secret(login.password)),
        S3Settings(
            endpoint=f"http://{engines.s3.endpoint}", access_key=key.access_key, secret_key=Secret(key.secret_key)
        ),
        PostgresSettings(dsn=Secret(engines.postgres.dsn())),
    )
    blobs, queue = BlobStore(settings.s3), await Queue.open(settings.nats, "cost")
    postgres = await open_postgres(settings.postgres, "cost")
    await ensure_stream(queue)
    stores = Stores.of(blobs, queue, postgres)
    spool = Spool(blobs, queue, SpoolSettings())
    platform = Platform(stores, stores, spool, settings)
    await fill(platform, load)
    print(f"{load.accounts} accounts with {load.messages} messages of {BODY_BYTES * 3 // 4} bytes each")
    await _steps(platform, load)
    await spool.close()
    await queue.close()
    await postgres.close()
    await blobs.close()


async def _steps(platform: Platform, load: Load) -> None:
    with measured("first snapshot"):
        first = await platform.snapshot()
    count = load.accounts * load.messages
    print(f"  {first.written_bytes / count:.1f} bytes a message, {first.written_objects} objects")
    with measured("snapshot without a change"):
        await platform.snapshot()
    for account in range(1, load.accounts + 1, 100):
        await platform.mailstore.messages.store_flags(account, INBOX_ID, [1], FlagOp.ADD, flags=Flag.SEEN)
    with measured("snapshot, 1 % of accounts changed"):
        await platform.snapshot()
    await platform.lose_mailstore()
    peak = _peak()
    with measured("rebuild"):
        result = await platform.rebuild_only()
    print(f"  {result}")
    print(f"  peak memory of the process {_peak()} MiB, {peak} MiB of it before the rebuild")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="drill.cost", description=__doc__)
    parser.add_argument("--accounts", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=50, help="messages of each account")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="paquebot-cost-") as directory:
        asyncio.run(measure(Load(asked.accounts, asked.messages), Path(directory)))


if __name__ == "__main__":
    main()
