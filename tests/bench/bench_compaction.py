"""What the janitor's compaction costs, and what it saves readers: S3 requests, bytes and CPU per 1,000 messages.

    python -m tests.bench.bench_compaction [--messages 5000] [--accounts 50] [--bytes 4096] [--in-pack 25]

Delivers messages that do not compress, evenly over the accounts, so many to a pack; compacts; and reads all messages
of one account as a client's first sync does, before and after. Engines of its own, durable, on loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import urllib3

from paquebot.blobs.bucket import WRITTEN_BYTES
from paquebot.blobs.reading import READ_BYTES
from paquebot.blobs.requests import REQUESTS
from paquebot.cli.engines.engine import start_engine
from paquebot.janitor.compaction.compact import compact
from paquebot.janitor.settings import JanitorSettings
from paquebot.janitor.stores import Stores, open_stores
from paquebot.queue.stream import ensure_stream
from paquebot.runtime.engine_settings import NatsSettings, PostgresSettings, S3Settings
from paquebot.runtime.postgres.migrations import migrate
from paquebot.runtime.settings import Secret
from paquebot.v1.mail_pb2 import BlobRef
from tests.bench.processes import cpu_seconds
from tests.support.compaction_world import DAY, Scatterer, packs_of, uses
from tests.support.loopback import EngineSet, engine_set

ENGINES = ("s3", "postgres")


@dataclass(slots=True)
class Cost:
    seconds: float = 0.0
    cpu: dict[str, float] | None = None
    requests: int = 0
    read: int = 0
    written: int = 0


@asynccontextmanager
async def engines(directory: Path) -> AsyncIterator[tuple[EngineSet, dict[str, int]]]:
    """The three, started, and the pid of each."""
    described = engine_set(directory)
    started = [
        await start_engine(engine, directory / "log") for engine in (described.nats, described.s3, described.postgres)
    ]
    try:
        with urllib3.PoolManager() as pool:
            await asyncio.to_thread(described.s3.client(pool).make_bucket, "bench")
        await migrate(described.postgres.dsn())
        yield described, {name: process.pid for name, process in zip(("nats", *ENGINES), started, strict=True)}
    finally:
        for process in started:
            await process.kill()


def settings_of(described: EngineSet) -> JanitorSettings:
    nats, s3 = described.nats.accesses[0], described.s3.accesses[0]
    return JanitorSettings(
        NatsSettings(url=(described.nats.url,), user=nats.name, password=Secret(nats.password)),
        S3Settings(
            endpoint=f"http://{described.s3.endpoint}",
            bucket="bench",
            access_key=s3.access_key,
            secret_key=Secret(s3.secret_key),
        ),
        PostgresSettings(dsn=Secret(described.postgres.dsn())),
    )


def _counted() -> tuple[int, int, int]:
    metrics = (REQUESTS, READ_BYTES, WRITTEN_BYTES)
    totals = [
        sum(sample.value for family in metric.collect() for sample in family.samples if sample.name.endswith("_total"))
        for metric in metrics
    ]
    return int(totals[0]), int(totals[1]), int(totals[2])


@contextmanager
def measured(pids: dict[str, int]) -> Iterator[Cost]:
    cost = Cost()
    before, used = _counted(), cpu_seconds({name: pids[name] for name in ENGINES})
    start, cpu = time.perf_counter(), time.process_time()
    yield cost
    cost.seconds = time.perf_counter() - start
    cost.cpu = {"janitor": time.process_time() - cpu}
    cost.cpu |= {name: seconds - used[name] for name, seconds in cpu_seconds({n: pids[n] for n in ENGINES}).items()}
    cost.requests, cost.read, cost.written = (now - then for now, then in zip(_counted(), before, strict=True))


def show(what: str, cost: Cost, messages: int) -> None:
    assert cost.cpu is not None
    thousand = 1000 / messages
    cpu = " · ".join(f"{name} {seconds * thousand:.3f}" for name, seconds in cost.cpu.items())
    print(
        f"{what}: {cost.seconds:.2f} s for {messages:,} messages; per 1,000: {cost.requests * thousand:,.1f} requests, "
        f"{cost.read * thousand / 2**20:.1f} MiB read, {cost.written * thousand / 2**20:.1f} MiB written, "
        f"CPU seconds {cpu} = {sum(cost.cpu.values()) * thousand:.3f}"
    )


async def deliver(stores: Stores, options: argparse.Namespace) -> None:
    scatterer = Scatterer(stores, age=2 * DAY, size=options.bytes)
    for first in range(0, options.messages, options.in_pack):
        await scatterer.pack(*([1 + n % options.accounts] for n in range(first, first + options.in_pack)))


async def sync(stores: Stores, account_id: int) -> int:
    """All messages of the account, each pack's together, eight requests at once; returns how many."""
    by_pack: dict[str, list[BlobRef]] = {}
    for use in [use async for use in stores.pack_uses.of_accounts(account_id, account_id)]:
        by_pack.setdefault(use.blob.pack, []).append(use.blob)
    turn = asyncio.Semaphore(8)

    async def one(refs: list[BlobRef]) -> int:
        async with turn:
            return len(await stores.blobs.read_many(refs))

    return sum(await asyncio.gather(*(one(refs) for refs in by_pack.values())))


async def bench(stores: Stores, settings: JanitorSettings, pids: dict[str, int], options: argparse.Namespace) -> None:
    await ensure_stream(stores.queue)
    await deliver(stores, options)
    print(
        f"{options.messages:,} messages of {options.bytes} bytes, {options.accounts} accounts, "
        f"{options.in_pack} messages to a pack"
    )

    async def read(what: str) -> None:
        packs = len(await packs_of(stores, 1))
        with measured(pids) as cost:
            count = await sync(stores, 1)
        show(f"reading all of an account {what}, from {packs} packs", cost, count)

    await read("before")
    await timed(
        "looking for what is scattered", pids, options.messages, lambda: compact(stores, settings, dry_run=True)
    )
    with measured(pids) as cost:
        done = await compact(stores, settings)
    show(f"compaction into {done.written_packs} packs", cost, done.compacted_messages)
    await timed("looking again", pids, options.messages, lambda: compact(stores, settings))
    await read("after")
    assert len(await uses(stores)) == options.messages


async def timed(what: str, pids: dict[str, int], messages: int, work: Callable[[], Awaitable[object]]) -> None:
    with measured(pids) as cost:
        await work()
    show(what, cost, messages)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--accounts", type=int, default=50)
    parser.add_argument("--bytes", type=int, default=4096)
    parser.add_argument("--in-pack", type=int, default=25)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        async with engines(Path(directory)) as (described, pids):
            settings = settings_of(described)
            async with open_stores(settings) as stores:
                await bench(stores, settings, pids, options)


if __name__ == "__main__":
    asyncio.run(main())
