"""The relay process: opens the engines, waits for its schema, then relays jobs until it is drained."""

import contextlib
import random
import time

from paquebot.blobs import BlobStore
from paquebot.notification import Notifier, SuccessShares
from paquebot.queue import Consumer, Queue
from paquebot.queue.subjects import RELAY, RELAY_AHEAD
from paquebot.relay import metrics
from paquebot.relay.courier import Courier
from paquebot.relay.destination_labels import DestinationLabels
from paquebot.relay.ledger import Ledger, MessageReader
from paquebot.relay.message import ByteShares
from paquebot.relay.queue.ahead import BacklogBypass
from paquebot.relay.queue.consumer import RelayConsumer
from paquebot.relay.queue.destinations import Destinations
from paquebot.relay.queue.hosts import HostShares
from paquebot.relay.queue.publisher import JobPublisher
from paquebot.relay.reports import RelayReporter
from paquebot.relay.retry import RetrySchedule
from paquebot.relay.routing.resolver import Resolver
from paquebot.relay.routing.routes import Routes
from paquebot.relay.settings import RelaySettings
from paquebot.relay.settlement import RelaySettlement
from paquebot.relay.smtp_client.handshake import Handshake
from paquebot.relay.smtp_client.pool import SessionPool
from paquebot.relay.smtp_client.tls import TlsContexts, TlsMemory
from paquebot.relay.worker import RelayAttempt, RelayWorker
from paquebot.rpc import ValidationClient, open_channel
from paquebot.runtime.postgres.migrations import wait_for_version_or_drain
from paquebot.runtime.postgres.pool import Postgres, open_postgres
from paquebot.runtime.process.service import Context
from paquebot.runtime.shares.in_flight import byte_gate
from paquebot.spool import Spool
from paquebot.spool.outcomes import SCHEMA

CONSUMER = "relay"
AHEAD = "relay-ahead"
_UNDER_WAY = 50_000  # jobs in hand of all processes, beside those that are parked


async def main(context: Context, settings: RelaySettings) -> None:
    """Serve until `context.draining`."""
    async with contextlib.AsyncExitStack() as stack:
        queue = await Queue.open(settings.nats, "relay")
        stack.push_async_callback(queue.close)
        blobs = BlobStore(settings.s3)
        stack.push_async_callback(blobs.close)
        postgres = await open_postgres(settings.postgres, "relay")
        stack.push_async_callback(postgres.close)
        channel = open_channel(settings.directory)
        stack.push_async_callback(channel.close)
        spool = Spool(blobs, queue, settings.spool)
        stack.push_async_callback(spool.close)
        pool = SessionPool(settings.client.idle, settings.client.messages)
        stack.callback(pool.close)
        _depend(context, queue, blobs, postgres)
        notifier = Notifier(
            settings.process.hostname,
            settings.report.full_up_to,
            ValidationClient(channel, settings.directory),
            spool,
            SuccessShares(settings.success),
            metrics.REPORTS,
        )
        reporter = RelayReporter(notifier, settings.report.double_bounce_to)
        if not await wait_for_version_or_drain(postgres, SCHEMA, context.draining):
            return
        consumer = _consumer(context, settings, queue, blobs, postgres, reporter, pool)
        context.started()
        await consumer.run(context.draining, settings.process.drain)


def _depend(context: Context, queue: Queue, blobs: BlobStore, postgres: Postgres) -> None:
    """Ready while all three engines answer: without them no attempt begins (invariant 9)."""

    async def postgres_answers() -> None:
        await postgres.fetchval("ready", "SELECT 1")

    context.health.depend("nats", queue.probe)
    context.health.depend("s3", blobs.probe)
    context.health.depend("postgres", postgres_answers)


def _consumer(
    context: Context,
    settings: RelaySettings,
    queue: Queue,
    blobs: BlobStore,
    postgres: Postgres,
    reporter: RelayReporter,
    pool: SessionPool,
) -> RelayConsumer:
    client, chance = settings.client, random.SystemRandom()
    destinations: Destinations[RelayAttempt] = Destinations(settings.load, settings.retry, time.time)
    shown = DestinationLabels(settings.shown, time.monotonic)
    schedule = RetrySchedule(settings.retry, chance.random)
    returns = JobPublisher(queue)
    settlement = RelaySettlement(Ledger(postgres), returns, reporter, schedule, time.time)
    handshake = Handshake(
        settings.process.hostname, settings.deadlines, TlsContexts(client.ca), TlsMemory(), source=client.source
    )
    resolver = Resolver(settings.routing, settings.process.hostname, client.port, chance.shuffle)
    hosts = HostShares(settings.load, settings.retry, time.monotonic)
    courier = Courier(resolver, handshake, pool, hosts, client, settings.deadlines)
    limit = settings.process.in_flight
    shares = ByteShares(byte_gate(limit), limit, settings.load.bytes_per_destination)
    worker = RelayWorker(
        MessageReader(blobs), courier, settlement, destinations, shown, shares, client.slow, client.line
    )
    routes = Routes(settings.routing.routes)
    return RelayConsumer(
        queue,
        Consumer(queue, CONSUMER, RELAY, max_ack_pending=settings.load.parked + _UNDER_WAY),
        Consumer(queue, AHEAD, RELAY_AHEAD),
        BacklogBypass(queue, returns, CONSUMER, destinations, routes, chance.shuffle),
        worker,
        settlement,
        destinations,
        shown,
        routes,
        settings.load,
        client.slow,
        context.health,
        chance.random,
    )
