"""The relay process: opens the engines, waits for its schema, then relays jobs until it is drained."""

import contextlib
import random
import time

from paquebot.blobs import BlobStore
from paquebot.notification import Notifier, SuccessShares
from paquebot.queue import Consumer, Queue
from paquebot.queue.subjects import RELAY, RELAY_AHEAD
from paquebot.relay import metrics
from paquebot.relay.attempt import AttemptRunner, OutgoingMessages, RelayAttempt
from paquebot.relay.byte_shares import ByteShares
from paquebot.relay.courier import Courier
from paquebot.relay.destination_labels import DestinationLabels
from paquebot.relay.hold import RelayHold
from paquebot.relay.ledger import Ledger, MessageReader
from paquebot.relay.queue.admission import Admission
from paquebot.relay.queue.ahead import BacklogBypass
from paquebot.relay.queue.consumer import JobSources, RelayConsumer
from paquebot.relay.queue.deferral import Deferral
from paquebot.relay.queue.destinations import Destinations
from paquebot.relay.queue.hosts import HostShares
from paquebot.relay.queue.publisher import JobPublisher
from paquebot.relay.queue.slots import Slots
from paquebot.relay.reports import RelayReporter
from paquebot.relay.retry import RetrySchedule
from paquebot.relay.routing.resolver import Resolver
from paquebot.relay.routing.routes import Routes
from paquebot.relay.settings import RelaySettings
from paquebot.relay.settlement import RelaySettlement
from paquebot.relay.smtp_client.handshake import Handshake
from paquebot.relay.smtp_client.pool import SessionPool
from paquebot.relay.smtp_client.tls import TlsContexts, TlsMemory
from paquebot.relay.worker import RelayWorker
from paquebot.rpc import ValidationClient, open_channel
from paquebot.runtime.postgres.migrations import wait_for_version_or_drain
from paquebot.runtime.postgres.pool import Postgres, open_postgres
from paquebot.runtime.process.service import Context
from paquebot.runtime.shares.in_flight import byte_gate
from paquebot.spool import Spool
from paquebot.spool.outcomes import SCHEMA

CONSUMER = "relay"
AHEAD = "relay-ahead"
_UNDER_WAY = 50_000  # claimed jobs of all processes, beside the parked ones


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
        pool = _session_pool(settings)
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
        courier, messages = _courier(settings, pool), _messages(settings, blobs)
        consumer = _consumer(context, settings, queue, postgres, courier, messages, reporter)
        context.started()
        await consumer.run(context.draining, settings.process.drain)


def _depend(context: Context, queue: Queue, blobs: BlobStore, postgres: Postgres) -> None:
    """Ready while all three engines answer: without one of them no attempt begins (invariant 9)."""
    context.health.depend("nats", queue.probe)
    context.health.depend("s3", blobs.probe)
    context.health.depend("postgres", postgres.probe)


def _consumer(
    context: Context,
    settings: RelaySettings,
    queue: Queue,
    postgres: Postgres,
    courier: Courier,
    messages: OutgoingMessages,
    reporter: RelayReporter,
) -> RelayConsumer:
    load, chance = settings.load, random.SystemRandom()
    routes = Routes(settings.routing.routes)
    destinations: Destinations[RelayAttempt] = Destinations(load, settings.retry, time.time)
    labels = DestinationLabels(settings.shown, time.monotonic)
    publisher = JobPublisher(queue)
    schedule = RetrySchedule(settings.retry, chance.random)
    settlement = RelaySettlement(Ledger(postgres), publisher, reporter, schedule, time.time)
    bypass = BacklogBypass(queue, publisher, CONSUMER, destinations, routes, chance.shuffle)
    deferral = Deferral(settlement, bypass, load.parked, chance.random, time.time)
    hold = RelayHold(queue, time.time)
    runner = AttemptRunner(messages, courier, settlement, destinations, labels, settings.client.slow)
    worker = RelayWorker(runner, settlement, deferral, hold, destinations, load)
    slots = Slots(worker, destinations, labels, load, settings.client.slow)
    admission = Admission(routes, destinations, settlement, deferral, hold, time.time)
    main_consumer = Consumer(queue, CONSUMER, RELAY, max_ack_pending=load.parked + _UNDER_WAY)
    sources = JobSources(main_consumer, Consumer(queue, AHEAD, RELAY_AHEAD), bypass)
    return RelayConsumer(queue, sources, admission, destinations, slots, load.waiting, context.health)


def _courier(settings: RelaySettings, pool: SessionPool) -> Courier:
    client, load, chance = settings.client, settings.load, random.SystemRandom()
    resolver = Resolver(settings.routing, settings.process.hostname, client.port, chance.shuffle)
    return Courier(resolver, pool, HostShares(load, settings.retry, time.monotonic), client, settings.timeouts)


def _session_pool(settings: RelaySettings) -> SessionPool:
    client = settings.client
    contexts = TlsContexts(client.ca)
    handshake = Handshake(settings.process.hostname, settings.timeouts, contexts, TlsMemory(), source=client.source)
    return SessionPool(handshake, client)


def _messages(settings: RelaySettings, blobs: BlobStore) -> OutgoingMessages:
    limit = settings.process.in_flight
    shares = ByteShares(byte_gate(limit), limit, settings.load.bytes_per_destination)
    return OutgoingMessages(MessageReader(blobs), shares, settings.client.line)
