"""What a healthy destination notices of a thousand silent ones: `python -m tests.bench.bench_relay_fairness`.

Real NATS, S3 and PostgreSQL; `--jobs` jobs to `--domains` domains, each with an exchanger of its own that takes
connections and never says a word, are in the queue before the relay starts. Then, every `--every` seconds, a message to
a healthy domain is queued behind them, and the time until its exchanger has it is taken. Printed as JSON: the
percentiles, probes that were not delivered by the end (they count as the whole time), and the queue over time.

`--senders` shares the backlog out between so many reverse-paths. The relay is a process of its own; `PYTHONPATH` may
name other code than this, to compare.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import urllib3

from paquebot.blobs import BlobStore
from paquebot.cli.engines.engine import start_engine
from paquebot.queue import Publication, Queue, relay_ready, stream
from paquebot.runtime.engine_settings import NatsSettings, S3Settings
from paquebot.runtime.settings import Secret
from paquebot.spool import Spool, SpoolSettings
from paquebot.v1.mail_pb2 import BlobRef, Envelope, RemoteRecipient
from paquebot.v1.queue_pb2 import RelayJob
from tests.support.directory_service import directory_service
from tests.support.dns_server import DnsServer
from tests.support.loopback import EngineSet, engine_set, free_port
from tests.support.remote_host import RemoteHost
from tests.support.roles import let_roles_log_in, role_dsn

RAW = b"From: alice@example.org\r\nSubject: probe\r\n\r\nHow do you do?\r\n"
HEALTHY = "healthy.test"
BUCKET = "bench"
RELAY = ("-m", "paquebot", "relay")


async def main() -> None:
    asked = _arguments()
    with tempfile.TemporaryDirectory() as directory:
        engines = engine_set(Path(directory))
        processes = await asyncio.gather(
            *(start_engine(engine, Path(directory) / "log") for engine in (engines.nats, engines.s3, engines.postgres))
        )
        try:
            print(json.dumps(await _measure(asked, engines), indent=1))
        finally:
            await asyncio.gather(*(process.kill() for process in processes))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--domains", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--senders", type=int, default=1)
    parser.add_argument("--probes", type=int, default=100)
    parser.add_argument("--every", type=float, default=0.5)
    parser.add_argument("--warm", type=float, default=0.0, help="seconds before the first probe")
    return parser.parse_args()


async def _measure(asked: argparse.Namespace, engines: EngineSet) -> dict[str, object]:
    login, access = engines.nats.accesses[0], engines.s3.accesses[0]
    nats = NatsSettings(url=(engines.nats.url,), user=login.name, password=Secret(login.password))
    s3 = S3Settings(
        endpoint=f"http://{engines.s3.endpoint}",
        bucket=BUCKET,
        access_key=access.access_key,
        secret_key=Secret(access.secret_key),
    )
    with urllib3.PoolManager() as connections:
        await asyncio.to_thread(engines.s3.client(connections).make_bucket, BUCKET)
    async with contextlib.AsyncExitStack() as stack:
        queue = await Queue.open(nats, "bench")
        stack.push_async_callback(queue.close)
        await stream.ensure_stream(queue)
        blobs = BlobStore(s3)
        stack.push_async_callback(blobs.close)
        spool = Spool(blobs, queue, SpoolSettings())
        stack.push_async_callback(spool.close)
        directory = await stack.enter_async_context(directory_service(engines.postgres.dsn()))
        await let_roles_log_in(engines.postgres.dsn(), "paquebot_relay")
        port = free_port()
        addresses = [f"127.{16 + (n >> 8)}.{n & 255}.1" for n in range(asked.domains)]
        for address in addresses:
            stack.enter_context(_silent(address, port))
        zone = "\n".join(f"d{n} A {address}" for n, address in enumerate(addresses))
        dns = await stack.enter_async_context(DnsServer({"silent.test": zone, HEALTHY: "@ A 127.0.0.1"}))
        host = await stack.enter_async_context(RemoteHost(port=port))
        blob = await _message(queue, spool)
        await _backlog(queue, asked, blob)
        environ = {
            **os.environ,
            "PAQUEBOT_NATS_URL": engines.nats.url,
            "PAQUEBOT_NATS_USER": login.name,
            "PAQUEBOT_NATS_PASSWORD": login.password,
            "PAQUEBOT_S3_ENDPOINT": s3.endpoint,
            "PAQUEBOT_S3_BUCKET": BUCKET,
            "PAQUEBOT_S3_ACCESS_KEY": access.access_key,
            "PAQUEBOT_S3_SECRET_KEY": access.secret_key,
            "PAQUEBOT_POSTGRES_DSN": role_dsn(engines.postgres.dsn(), "paquebot_relay"),
            "PAQUEBOT_RECIPIENT_VALIDATION": directory.target,
            "PAQUEBOT_METRICS_LISTEN": "127.0.0.1:0",
            "PAQUEBOT_RELAY_DNS": f"127.0.0.1:{dns.port}",
            "PAQUEBOT_RELAY_PORT": str(port),
            "PAQUEBOT_RELAY_ALLOW_NETWORKS": "127.0.0.0/8",
        }
        async with _relay(environ):
            return await _probe(queue, host, asked, blob)


@contextlib.contextmanager
def _silent(address: str, port: int) -> Iterator[None]:
    """The kernel takes connections, and no process accepts them."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
        listening.listen(64)
        yield


@contextlib.asynccontextmanager
async def _relay(environ: dict[str, str]) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(sys.executable, *RELAY, env=environ)
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def _message(queue: Queue, spool: Spool) -> BlobRef:
    """One message in S3, which every job is about."""
    recipient = RemoteRecipient(forward_path=f"first@{HEALTHY}", domain=HEALTHY)
    await spool.accept(Envelope(reverse_path="alice@example.org", remote=[recipient]), RAW)
    [stored] = [job async for job in stream.jobs(queue, "relay.>")]
    await stream.delete(queue, stored.sequence)
    return RelayJob.FromString(stored.payload).blob


def _job(name: str, domain: str, sender: str, blob: BlobRef) -> Publication:
    job = RelayJob(
        queue_id=name,
        reverse_path=sender,
        domain=domain,
        recipients=[RemoteRecipient(forward_path=f"{name}@{domain}", domain=domain)],
        blob=blob,
        accepted_at_ms=int(time.time() * 1000),
    )
    return Publication(relay_ready(domain), job.SerializeToString())


async def _backlog(queue: Queue, asked: argparse.Namespace, blob: BlobRef) -> None:
    for start in range(0, asked.jobs, 500):
        numbers = range(start, min(start + 500, asked.jobs))
        await queue.publish(
            [
                _job(f"q{n}", f"d{n % asked.domains}.silent.test", f"s{n % asked.senders}@example.org", blob)
                for n in numbers
            ]
        )


async def _probe(queue: Queue, host: RemoteHost, asked: argparse.Namespace, blob: BlobRef) -> dict[str, object]:
    sent: dict[str, float] = {}
    history = []
    await asyncio.sleep(asked.warm)
    start = time.monotonic()
    arrived: dict[str, float] = {}
    watching = asyncio.create_task(_watch(host, arrived))
    for number in range(asked.probes):
        name = f"p{number}"
        await queue.publish([_job(name, HEALTHY, "bob@example.org", blob)])
        sent[name] = time.monotonic()
        if number % max(1, asked.probes // 10) == 0:
            history.append(await _standing(queue, time.monotonic() - start))
        await asyncio.sleep(max(0.0, start + (number + 1) * asked.every - time.monotonic()))
    await asyncio.sleep(3.0)
    watching.cancel()
    end = time.monotonic()
    times = sorted(arrived.get(name, end) - at for name, at in sent.items())
    return {
        "probes": len(times),
        "not_delivered": sum(name not in arrived for name in sent),
        "p50": round(times[len(times) // 2], 3),
        "p99": round(times[int(len(times) * 0.99) - 1], 3),
        "max": round(times[-1], 3),
        "queue": history,
    }


async def _watch(host: RemoteHost, arrived: dict[str, float]) -> None:
    seen = 0
    while True:
        await host.until(lambda: len(host.messages) > seen, 3600.0)  # noqa: B023
        for message in host.messages[seen:]:
            arrived.setdefault(message.rcpt[0].partition("<")[2].partition("@")[0], time.monotonic())
        seen = len(host.messages)


async def _standing(queue: Queue, seconds: float) -> dict[str, float]:
    body = {"subjects_filter": "relay.ready.>"}
    info = await queue.api(f"STREAM.INFO.{queue.settings.stream}", body)
    ready = sum((info["state"].get("subjects") or {}).values())
    later = await queue.api(
        f"STREAM.INFO.{queue.settings.stream}", {"subjects_filter": "relay.later.*", "offset": 2**31 - 1}
    )
    return {"after": round(seconds, 1), "ready": ready, "later": later.get("total", 0)}


if __name__ == "__main__":
    asyncio.run(main())
