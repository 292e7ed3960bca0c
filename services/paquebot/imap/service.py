"""The IMAP process: what it opens, and when it is ready.

It listens at once and stays up while an engine is away: the answer to a command that needs it is NO [UNAVAILABLE].
"""

import contextlib
from collections.abc import AsyncIterator

from grpc.aio import Channel

from paquebot.blobs import BlobStore
from paquebot.imap import metrics
from paquebot.imap.bodies.body_cache import BodyCache
from paquebot.imap.bodies.whole_summaries import WholeSummaries
from paquebot.imap.context import ServerContext
from paquebot.imap.mailbox_view.feed import Feed
from paquebot.imap.search.turns import SearchTurns
from paquebot.imap.server import ImapServer
from paquebot.imap.settings import ImapSettings
from paquebot.mailstore import SCHEMA, Accounts, Mailboxes, MailboxReader, Messages
from paquebot.queue import Queue
from paquebot.rpc import AuthenticationClient, Logins, Recordings, open_channel
from paquebot.rpc.health import probe
from paquebot.runtime.net.tls import ServerTls
from paquebot.runtime.postgres.migrations import check_reached
from paquebot.runtime.postgres.pool import Postgres, open_postgres
from paquebot.runtime.process.health import Health
from paquebot.runtime.process.service import Context
from paquebot.runtime.process.tasks import in_background
from paquebot.runtime.shares.account_shares import AccountShares
from paquebot.runtime.shares.event_loop import LoopShares
from paquebot.runtime.shares.in_flight import byte_shares
from paquebot.spool import Spool
from paquebot.wire.imap import ImapLimits

NAME = "imap"


async def main(context: Context, settings: ImapSettings) -> None:
    """Serve until `context.draining`."""
    async with open_server(settings, context.health) as server:
        context.started()
        await server.run(context.draining)


@contextlib.asynccontextmanager
async def open_server(settings: ImapSettings, health: Health) -> AsyncIterator[ImapServer]:
    """A listening server with all that it needs, for the time of the block; call its `run`."""
    # First, so that a bad certificate is reported even while no engine answers. Raises SettingsError.
    tls = ServerTls(settings.tls) if settings.tls.certificate is not None else None
    async with contextlib.AsyncExitStack() as stack:
        context = await _open_context(settings, health, tls, stack)
        server = ImapServer(context)
        stack.push_async_callback(server.close)
        server.listen()
        tasks = {"session_checks": context.logins.run(), "recordings": context.recordings.run()}
        if tls is not None:
            tasks["certificates"] = tls.watch()
        async with in_background(**tasks):
            yield server


async def _open_context(
    settings: ImapSettings, health: Health, tls: ServerTls | None, stack: contextlib.AsyncExitStack
) -> ServerContext:
    """The context that all sessions share; `stack` closes it."""
    queue = await Queue.open(settings.nats, NAME)
    stack.push_async_callback(queue.close)
    blobs = BlobStore(settings.s3)
    stack.push_async_callback(blobs.close)
    postgres = await open_postgres(settings.postgres, NAME)
    stack.push_async_callback(postgres.close)
    channel = open_channel(settings.directory)
    stack.push_async_callback(channel.close)
    spool = Spool(blobs, None, settings.spool)
    stack.push_async_callback(spool.close)
    bodies = BodyCache(blobs, cache_bytes=settings.bodies.cache)
    stack.push_async_callback(bodies.close)
    mailbox_reader = MailboxReader(postgres)
    feed = Feed(mailbox_reader, queue)
    stack.push_async_callback(feed.close)
    authentication = AuthenticationClient(channel, settings.directory)
    logins = Logins(authentication, settings.checks)
    await logins.listen(queue)
    recordings = Recordings(queue, NAME)
    await recordings.listen()
    _depend(health, blobs, postgres, channel)
    return ServerContext(
        settings=settings,
        limits=ImapLimits(append=settings.bodies.append_limit),
        accounts=Accounts(postgres),
        mailboxes=Mailboxes(postgres, settings.account),
        mailbox_reader=mailbox_reader,
        messages=Messages(postgres, settings.account),
        bodies=bodies,
        whole_summaries=WholeSummaries(),
        shares=AccountShares.of_readers(settings.bodies.reading, settings.bodies.reading_per_account, metrics.READING),
        turns=SearchTurns(),
        spool=spool,
        feed=feed,
        authentication=authentication,
        logins=logins,
        recordings=recordings,
        budget=byte_shares(settings.process.in_flight, settings.shares, settings.bodies.append_limit),
        loop_shares=LoopShares(settings.fairness),
        tls=tls,
    )


def _depend(health: Health, blobs: BlobStore, postgres: Postgres, channel: Channel) -> None:
    """Ready while clients can log in, read and write. Without NATS only hints are missing, and sessions still poll
    (invariant 4)."""
    health.depend("postgres", lambda: check_reached(postgres, SCHEMA))
    health.depend("s3", blobs.probe)
    health.depend("recipient_validation", lambda: probe(channel, "paquebot.v1.Authentication"))
