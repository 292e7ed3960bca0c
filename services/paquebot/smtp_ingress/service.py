"""The process: what it opens, when it is ready, how it shuts down."""

import contextlib
import gc
from collections.abc import AsyncIterator
from dataclasses import replace

from grpc.aio import Channel

from paquebot.blobs import BlobStore
from paquebot.queue import Queue
from paquebot.rpc import AuthenticationClient, Logins, Recordings, ValidationClient, open_channel
from paquebot.rpc.health import probe
from paquebot.runtime.net.tls import ServerTls
from paquebot.runtime.process.health import Health
from paquebot.runtime.process.malloc import keep_large_apart
from paquebot.runtime.process.service import Context
from paquebot.runtime.process.tasks import in_background
from paquebot.runtime.shares.event_loop import LoopShares
from paquebot.runtime.shares.in_flight import byte_shares
from paquebot.smtp_ingress.acceptance import Acceptance, AcceptancePolicy
from paquebot.smtp_ingress.authorship import Authorship
from paquebot.smtp_ingress.context import ServerContext
from paquebot.smtp_ingress.received import TracePolicy
from paquebot.smtp_ingress.server import SmtpServer
from paquebot.smtp_ingress.settings import SLACK, SmtpIngressSettings
from paquebot.spool import Spool

NAME = "smtp_ingress"


async def main(context: Context, settings: SmtpIngressSettings) -> None:
    keep_large_apart()
    async with open_server(settings, context.health) as server:
        # Modules and clients live as long as the process: a full collection that walks through them takes 20 ms.
        gc.freeze()
        context.started()
        await server.run(context.draining)


@contextlib.asynccontextmanager
async def open_server(settings: SmtpIngressSettings, health: Health) -> AsyncIterator[SmtpServer]:
    """A listening server with all it needs, for the time of the block; at its end sessions are cut off, unless they
    were drained.

    It opens while an engine is away: mail is refused temporarily and readiness names the engine (invariant 9).
    """
    # First: report a bad certificate even while no engine answers. Raises SettingsError.
    tls = ServerTls(settings.tls) if settings.tls.certificate is not None else None
    async with contextlib.AsyncExitStack() as stack:
        queue = await Queue.open(settings.nats, NAME)
        stack.push_async_callback(queue.close)
        blobs = BlobStore(settings.s3)
        stack.push_async_callback(blobs.close)
        spool = Spool(blobs, queue, settings.spool)
        stack.push_async_callback(spool.close)
        channel = open_channel(settings.directory)
        stack.push_async_callback(channel.close)
        context = await _context(settings, tls, queue, spool, channel)
        await queue.subscribe_directory(lambda _: context.validation.forget())
        health.depend("s3", blobs.probe_writes)
        health.depend("nats", queue.probe)
        health.depend("recipient_validation", lambda: probe(channel, "paquebot.v1.RecipientValidation"))
        server = SmtpServer(context, settings)
        stack.push_async_callback(server.close)
        server.listen()
        await server.start()
        tasks = {"session_checks": context.logins.run(), "recordings": context.recordings.run()}
        if tls is not None:
            tasks["certificates"] = tls.watch()
        async with in_background(**tasks):
            yield server


async def _context(
    settings: SmtpIngressSettings, tls: ServerTls | None, queue: Queue, spool: Spool, channel: Channel
) -> ServerContext:
    shares, sessions = settings.shares, settings.sessions
    if not settings.takes_logins:  # nothing to reserve for clients that cannot log in
        shares, sessions = replace(shares, reserved=0.0), replace(sessions, reserved=0.0)
    validation = ValidationClient(channel, settings.directory, settings.cache)
    authentication = AuthenticationClient(channel, settings.directory)
    logins = Logins(authentication, settings.checks)
    await logins.listen(queue)
    recordings = Recordings(queue, "smtp")
    await recordings.listen()
    return ServerContext(
        hostname=settings.process.hostname,
        sessions=sessions,
        messages=settings.messages,
        timeouts=settings.timeouts,
        tls=tls.context if tls is not None else None,
        budget=byte_shares(settings.process.in_flight, shares, settings.messages.size + SLACK),
        pace=settings.pace,
        acceptance=Acceptance(spool, Authorship(validation, settings.policy.sender), _policy(settings)),
        loop_shares=LoopShares(settings.fairness),
        validation=validation,
        authentication=authentication,
        logins=logins,
        recordings=recordings,
    )


def _policy(settings: SmtpIngressSettings) -> AcceptancePolicy:
    trace = TracePolicy(settings.process.hostname, settings.policy.hide_client)
    messages = settings.messages
    return AcceptancePolicy(trace, messages.size, messages.header, messages.hops, settings.policy.check_from)
