"""The delivery process: opens the engines, waits for its schema, then delivers jobs until it is drained."""

import asyncio
import contextlib

from paquebot.blobs import BlobStore
from paquebot.delivery import metrics
from paquebot.delivery.consumer import DeliveryConsumer
from paquebot.delivery.hold import DeliveryHold
from paquebot.delivery.reports import DeliveryReporter
from paquebot.delivery.settings import DeliverySettings
from paquebot.delivery.settlement import DeliverySettlement
from paquebot.delivery.worker import DeliveryWorker
from paquebot.mailstore import SCHEMA, Deliveries
from paquebot.mailstore.upkeep import figures
from paquebot.notification import Notifier, SuccessShares
from paquebot.queue import Queue, observation
from paquebot.rpc import ValidationClient, open_channel
from paquebot.runtime.postgres.migrations import wait_for_version_or_drain
from paquebot.runtime.postgres.pool import Postgres, open_postgres
from paquebot.runtime.process.service import Context
from paquebot.spool import Spool
from paquebot.v1.recipient_validation_pb2 import VERDICT_OVER_QUOTA, VERDICT_UNSPECIFIED

__all__ = ["DeliverySettings", "main"]


async def main(context: Context, settings: DeliverySettings) -> None:
    """Serve until `context.draining`."""
    async with contextlib.AsyncExitStack() as stack:
        queue = await Queue.open(settings.nats, "delivery")
        stack.push_async_callback(queue.close)
        blobs = BlobStore(settings.s3)
        stack.push_async_callback(blobs.close)
        postgres = await open_postgres(settings.postgres, "delivery")
        stack.push_async_callback(postgres.close)
        channel = open_channel(settings.directory)
        stack.push_async_callback(channel.close)
        spool = Spool(blobs, queue, settings.spool)
        stack.push_async_callback(spool.close)
        notifier = Notifier(
            settings.process.hostname,
            settings.report.full_up_to,
            ValidationClient(channel, settings.directory),
            spool,
            SuccessShares(settings.success),
            metrics.REPORTS,
            # A sender whose mailbox is full is notified once it has room: the job waits (decision 5).
            uncertain=(VERDICT_UNSPECIFIED, VERDICT_OVER_QUOTA),
        )
        deliveries = Deliveries(postgres, settings.account)
        settlement = DeliverySettlement(deliveries, queue, DeliveryReporter(notifier, blobs), settings.quota)
        worker = DeliveryWorker(deliveries, settlement, DeliveryHold(queue), settings.load)
        _depend(context, queue, postgres)
        if await wait_for_version_or_drain(postgres, SCHEMA, context.draining):
            context.started()
            await _serve(context, settings, queue, postgres, worker)


def _depend(context: Context, queue: Queue, postgres: Postgres) -> None:
    """S3 and the directory serve notifications alone, which wait for them in the queue."""
    context.health.depend("nats", queue.probe)
    context.health.depend("postgres", postgres.probe)


async def _serve(
    context: Context, settings: DeliverySettings, queue: Queue, postgres: Postgres, worker: DeliveryWorker
) -> None:
    async with asyncio.TaskGroup() as group:
        observers = [
            group.create_task(observation.observe_forever(queue)),
            group.create_task(figures.observe_forever(postgres)),
        ]
        await DeliveryConsumer(queue, postgres, worker, context.health, settings.load).run(context.draining)
        for observer in observers:
            observer.cancel()
