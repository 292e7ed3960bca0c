"""Delivery on the real engines: an accepted message reaches its mailbox once, or its sender gets a notification."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from paquebot.blobs import BlobStore, new_ulid
from paquebot.cli.engines.nats import NatsEngine
from paquebot.cli.engines.s3 import S3Engine
from paquebot.delivery.service import DeliverySettings, main
from paquebot.mailstore import StoredMessage
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.queue import Consumer, Publication, Queue, backlog, deliver_ready, stream
from paquebot.queue.subjects import DELIVER
from paquebot.runtime.engine_settings import PostgresSettings
from paquebot.runtime.postgres.pool import open_postgres
from paquebot.runtime.process.health import Health
from paquebot.runtime.process.service import Context
from paquebot.runtime.settings import Secret, load
from paquebot.spool import Spool
from paquebot.v1.mail_pb2 import NOTIFY_NEVER, NOTIFY_SUCCESS, Envelope, LocalRecipient
from paquebot.v1.queue_pb2 import DeliverJob, HeldJob
from tests.support.counted import value
from tests.support.directory_service import DirectoryService, directory_service
from tests.support.loopback import free_port
from tests.support.mailstores import Mailstore
from tests.support.roles import let_roles_log_in, role_dsn

DOMAIN = "example.org"
SUBJECT = deliver_ready(DOMAIN)
RAW = b"From: bob@example.org\r\nTo: alice@example.org\r\nSubject: hello\r\nX-Own: kept\r\n\r\nHow do you do?\r\n"
ROLE = "paquebot_delivery"
SECONDS = 60.0


async def eventually(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Poll until the condition holds; fail at the deadline."""
    deadline = time.monotonic() + SECONDS
    while not await condition():
        assert time.monotonic() < deadline, f"not within {SECONDS:g} s: {what}"
        await asyncio.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Post:
    """A directory, a spool and a mailstore, with alice and bob; the test starts delivery."""

    directory: DirectoryService
    spool: Spool
    queue: Queue
    blobs: BlobStore
    mailstore: Mailstore
    environ: dict[str, str]
    admin_dsn: str
    alice: int
    bob: int

    async def recipient(self, address: str) -> LocalRecipient:
        [validation] = await self.directory.validation.validate([address])
        [recipient] = validation.local
        return recipient

    async def accept(self, *to: LocalRecipient | str, reverse_path: str = "bob@example.org", raw: bytes = RAW) -> str:
        recipients = [await self.recipient(one) if isinstance(one, str) else one for one in to]
        return await self.spool.accept(Envelope(reverse_path=reverse_path, local=recipients), raw)

    async def inbox(self, account_id: int) -> list[StoredMessage]:
        snapshot = await self.mailstore.mailbox_reader.state(account_id, INBOX_ID)
        uids = snapshot.rows.uids
        return [m async for m in self.mailstore.mailbox_reader.messages(account_id, INBOX_ID, uids, with_summary=True)]

    async def arrived(self, account_id: int, count: int = 1) -> list[StoredMessage]:
        """Wait for `count` messages in INBOX; return all that are there."""
        await self.mailstore.accounts.ensure(account_id)

        async def enough() -> bool:
            return len(await self.inbox(account_id)) >= count

        await eventually(enough, f"{count} messages in INBOX")
        return await self.inbox(account_id)

    async def settled(self) -> None:
        """Wait until no deliver job is left."""

        async def empty() -> bool:
            return (await stream.counts(self.queue)).total("deliver.") == 0

        await eventually(empty, "no job in the queue")

    async def held(self) -> list[HeldJob]:
        return [HeldJob.FromString(job.payload) async for job in stream.jobs(self.queue, "hold.>")]

    async def job(self) -> DeliverJob:
        """Return the only job in the queue."""
        [stored] = [job async for job in stream.jobs(self.queue, "deliver.>")]
        return DeliverJob.FromString(stored.payload)

    @contextlib.asynccontextmanager
    async def delivery(self, **environ: str) -> AsyncIterator[Context]:
        """Run the service as `paquebot delivery` does for the time of the block; drain it at the end."""
        settings = load(DeliverySettings, {**self.environ, **environ})
        context = Context("delivery", Health(), asyncio.Event())
        async with asyncio.TaskGroup() as group:
            task = group.create_task(main(context, settings))
            try:
                yield context
            finally:
                context.draining.set()
            await asyncio.wait_for(task, SECONDS)


@pytest.fixture
async def post(
    database: str,
    queue: Queue,
    spool: Spool,
    blobs: BlobStore,
    nats_engine: NatsEngine,
    s3_engine: S3Engine,
    bucket: str,
) -> AsyncIterator[Post]:
    async with directory_service(database) as directory:
        await let_roles_log_in(database, ROLE)
        await directory.domain(DOMAIN)
        alice = await directory.account("alice@example.org")
        bob = await directory.account("bob@example.org")
        postgres = await open_postgres(PostgresSettings(dsn=Secret(database), pool_size=2), "tests")
        mailstore = Mailstore.of(postgres)
        nats, s3 = nats_engine.accesses[0], s3_engine.accesses[0]
        environ = {
            "PAQUEBOT_NATS_URL": nats_engine.url,
            "PAQUEBOT_NATS_USER": nats.name,
            "PAQUEBOT_NATS_PASSWORD": nats.password,
            "PAQUEBOT_S3_ENDPOINT": f"http://{s3_engine.endpoint}",
            "PAQUEBOT_S3_BUCKET": bucket,
            "PAQUEBOT_S3_ACCESS_KEY": s3.access_key,
            "PAQUEBOT_S3_SECRET_KEY": s3.secret_key,
            "PAQUEBOT_POSTGRES_DSN": role_dsn(database, ROLE),
            "PAQUEBOT_RECIPIENT_VALIDATION": directory.target,
            "PAQUEBOT_HOSTNAME": "mail.example.org",
            "PAQUEBOT_METRICS_LISTEN": "127.0.0.1:0",
        }
        yield Post(directory, spool, queue, blobs, mailstore, environ, database, alice, bob)
        assert await mailstore.broken_invariants() == []
        await postgres.close()


async def whole(post: Post, message: StoredMessage) -> bytes:
    return message.prefix + await post.blobs.read(message.blob)


async def test_into_inbox_with_hint(post: Post) -> None:
    hinted = asyncio.Event()
    await post.queue.subscribe_mailbox(post.alice, lambda _: hinted.set())
    queue_id = await post.accept("alice@example.org")
    async with post.delivery() as context:
        await asyncio.wait_for(hinted.wait(), SECONDS)
        [message] = await post.inbox(post.alice)  # the hint comes after the commit
        await post.settled()
        assert await context.health.unready() == []
    assert message.email_id == queue_id
    assert await whole(post, message) == (
        b"Return-Path: <bob@example.org>\r\nDelivered-To: alice@example.org\r\n" + RAW
    )
    assert message.size == len(await whole(post, message))
    assert message.summary is not None
    assert b"hello" in message.summary
    assert not message.flags


async def test_several_recipients_share_one_blob(post: Post) -> None:
    await post.accept("alice@example.org", "bob@example.org", reverse_path="")
    async with post.delivery():
        [to_alice], [to_bob] = await post.arrived(post.alice), await post.arrived(post.bob)
    assert to_alice.blob == to_bob.blob
    assert to_alice.prefix == b"Return-Path: <>\r\nDelivered-To: alice@example.org\r\n"
    assert to_bob.prefix == b"Return-Path: <>\r\nDelivered-To: bob@example.org\r\n"


async def test_subaddress_names_an_existing_mailbox(post: Post) -> None:
    await post.mailstore.accounts.ensure(post.alice)
    lists = await post.mailstore.mailboxes.create(post.alice, "Lists")
    below = await post.mailstore.mailboxes.create(post.alice, "INBOX/news")
    for detail in ("lists", "NEWS", "sent", "unknown"):
        await post.accept(f"alice+{detail}@example.org")
    async with post.delivery():
        await post.arrived(post.alice, 2)  # +sent and +unknown: no sender may write into a mailbox with a special use
        await post.settled()
    found = await post.mailstore.mailboxes.status(post.alice, ["Lists", "INBOX/news", "Sent", "INBOX"])
    assert {name: mailbox.messages for name, mailbox in found.items()} == {
        "Lists": 1,
        "INBOX/news": 1,
        "Sent": 0,
        "INBOX": 2,
    }
    assert (found["Lists"].mailbox_id, found["INBOX/news"].mailbox_id) == (lists.mailbox_id, below.mailbox_id)


async def test_a_job_delivered_twice_has_its_effect_once(post: Post) -> None:
    await post.accept("alice@example.org", "bob@example.org")
    job = await post.job()
    await post.queue.publish([Publication(SUBJECT, job.SerializeToString())])
    async with post.delivery():
        await post.settled()
    assert len(await post.inbox(post.alice)) == 1
    assert len(await post.inbox(post.bob)) == 1


def copies(job: DeliverJob, count: int) -> list[DeliverJob]:
    """Return jobs like this one, each for another message."""
    found = []
    for _ in range(count):
        copy = DeliverJob.FromString(job.SerializeToString())
        for entry in copy.entries:
            entry.queue_id = new_ulid()
        found.append(copy)
    return found


async def test_a_whole_batch_delivered_again(post: Post) -> None:
    """As after a crash between the commit and the acknowledgements, in another order and together with other jobs."""
    await post.accept("alice@example.org", "bob@example.org")
    jobs = copies(await post.job(), 12)
    await post.queue.publish([Publication(SUBJECT, job.SerializeToString()) for job in jobs[:10]])
    async with post.delivery():
        await post.settled()
        first = [message.uid for message in await post.inbox(post.alice)]
        await post.queue.publish([Publication(SUBJECT, job.SerializeToString()) for job in reversed(jobs)])
        await post.settled()
    for account_id in (post.alice, post.bob):
        found = await post.inbox(account_id)
        assert len({message.email_id for message in found}) == len(found) == 13
        assert [message.uid for message in found[:11]] == first


async def test_two_processes_on_the_same_accounts(post: Post) -> None:
    """Their transactions lock the same accounts: none fails, and there is no deadlock."""
    to_alice, to_bob = await post.recipient("alice@example.org"), await post.recipient("bob@example.org")
    await post.accept(to_alice, to_bob)
    jobs = copies(await post.job(), 120)
    for job in jobs[::2]:
        job.entries[0].recipients.reverse()
    for start in range(0, len(jobs), 40):
        batch = [Publication(SUBJECT, job.SerializeToString()) for job in jobs[start : start + 40]]
        await post.queue.publish(batch)
    few = {"PAQUEBOT_DELIVERY_JOBS": "3", "PAQUEBOT_DELIVERY_WORKERS": "3"}
    failed = value("paquebot_delivery_unbatched_jobs_total")
    async with post.delivery(**few), post.delivery(**few):
        await post.settled()
    assert value("paquebot_delivery_unbatched_jobs_total") == failed
    for account_id in (post.alice, post.bob):
        found = await post.inbox(account_id)
        assert len({message.email_id for message in found}) == len(found) == 121
    connection = await asyncpg.connect(post.admin_dsn)
    sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert await connection.fetchval(sql) == 0
    await connection.close()


async def test_jobs_share_a_transaction_under_load(post: Post) -> None:
    """The first job is delivered immediately; the jobs that arrive during its transaction share the next one."""
    async with post.delivery(PAQUEBOT_DELIVERY_PACE="1s"):
        await post.accept("alice@example.org")
        await post.arrived(post.alice)
        for _ in range(3):
            await post.accept("alice@example.org")
        first, second, *_ = await post.arrived(post.alice, 2)
        await post.settled()
    # The first batch began a little before its transaction.
    assert second.save_date - first.save_date > datetime.timedelta(seconds=0.5)


async def test_killed_in_its_transaction(post: Post) -> None:
    """A process is killed while its transaction waits. Whether the engine commits it or not, the next process delivers
    exactly once."""
    await post.mailstore.accounts.ensure(post.alice)
    await post.accept("alice@example.org")
    blocker = await asyncpg.connect(post.admin_dsn)
    async with blocker.transaction():
        await blocker.execute("SELECT 1 FROM mailstore.accounts FOR UPDATE")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "paquebot", "delivery"),
            env={**post.environ, "PATH": os.environ["PATH"]},
            stdout=asyncio.subprocess.DEVNULL,
        )

        async def is_waiting() -> bool:
            return bool(await post_waits(post.admin_dsn))

        await eventually(is_waiting, "delivery waits for the account's lock")
        process.kill()
        await process.wait()
    await blocker.close()
    await shorten_ack_wait(post.queue)
    async with post.delivery():
        await post.arrived(post.alice)
        await post.settled()
    assert len(await post.inbox(post.alice)) == 1


async def post_waits(dsn: str) -> int:
    """Return how many of delivery's statements wait for a lock."""
    connection = await asyncpg.connect(dsn)
    try:
        sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'delivery' AND wait_event_type = 'Lock'"
        return int(await connection.fetchval(sql))
    finally:
        await connection.close()


async def shorten_ack_wait(queue: Queue) -> None:
    """Make the jobs of a killed process available immediately; the next process sets the usual wait again."""
    name = queue.settings.stream
    info = await queue.api(f"CONSUMER.INFO.{name}.delivery")
    config = {**info["config"], "ack_wait": 100_000_000}
    await queue.api(f"CONSUMER.CREATE.{name}.delivery.deliver.ready.>", {"stream_name": name, "config": config})

    async def is_back() -> bool:
        found = await queue.api(f"CONSUMER.INFO.{name}.delivery")
        return int(found["num_redelivered"]) > 0 or int(found["num_pending"]) > 0 or await _expired(queue, name)

    await eventually(is_back, "the job is to be handed out again")


async def _expired(queue: Queue, name: str) -> bool:
    """Return whether the acknowledgement wait of all delivered jobs has passed."""
    found = await queue.api(f"CONSUMER.INFO.{name}.delivery")
    return time.time() - _when(found["delivered"]["last_active"]) > 0.3


def _when(text: str) -> float:
    return datetime.datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00").timestamp()


def with_bad_entry(job: DeliverJob) -> DeliverJob:
    """Return the job with an additional first entry that no row can hold."""
    bad = DeliverJob(pack=job.pack, domain=job.domain, entries=[job.entries[0], *job.entries])
    bad.entries[0].queue_id = new_ulid()
    bad.entries[0].blob.offset = 2**64 - 1
    return bad


_DAMAGE = """
CREATE FUNCTION public.damaged() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN IF NEW.account_id = %d THEN RAISE EXCEPTION 'invalid page' USING ERRCODE = '%s'; END IF; RETURN NEW; END $$;
CREATE TRIGGER damaged BEFORE INSERT ON mailstore.messages FOR EACH ROW EXECUTE FUNCTION public.damaged()
"""


async def test_one_bad_entry_does_not_fail_the_others(post: Post) -> None:
    await post.accept("alice@example.org")
    bad = with_bad_entry(await post.job())
    await post.accept("bob@example.org")
    await post.queue.publish([Publication(SUBJECT, bad.SerializeToString())])
    failed = value("paquebot_delivery_deferred_jobs_total", reason="failed") or 0.0
    async with post.delivery(PAQUEBOT_DELIVERY_TRIES="2"):
        await post.arrived(post.alice)
        await post.arrived(post.bob)
        await post.settled()
    assert len(await post.inbox(post.alice)) == 1
    [held] = await post.held()
    assert held.subject == SUBJECT
    assert "PostgresRefused" in held.reason
    kept = DeliverJob.FromString(held.payload)
    assert [entry.queue_id for entry in kept.entries] == [bad.entries[0].queue_id]
    assert (value("paquebot_delivery_deferred_jobs_total", reason="failed") or 0.0) == failed, (
        "a permanent failure is not retried"
    )


async def test_a_recipient_that_always_fails_does_not_fail_the_others(post: Post) -> None:
    for account_id in (post.alice, post.bob):
        await post.mailstore.accounts.ensure(account_id)
    admin = await asyncpg.connect(post.admin_dsn)
    await admin.execute(_DAMAGE % (post.alice, "22003"))
    await admin.close()
    await post.accept("alice@example.org", "bob@example.org")
    async with post.delivery(PAQUEBOT_DELIVERY_TRIES="2"):
        await post.arrived(post.bob)
        await post.settled()
    [held] = await post.held()
    kept = DeliverJob.FromString(held.payload)
    assert [one.account_id for entry in kept.entries for one in entry.recipients] == [post.alice]


async def test_a_deferral_for_an_outage_is_no_attempt(post: Post) -> None:
    """PostgreSQL was away as often as a job may fail; the job's own first failure does not exhaust its attempts."""
    await post.mailstore.accounts.ensure(post.bob)
    admin = await asyncpg.connect(post.admin_dsn)
    await admin.execute(_DAMAGE % (post.bob, "P0001"))
    await admin.close()
    await post.accept("alice@example.org", "bob@example.org")
    consumer = Consumer(post.queue, "delivery", DELIVER)
    for _ in range(3):
        for _ in range(2):
            [job] = await consumer.fetch(1, SECONDS)
            await job.nak()
    await consumer.close()
    failed = value("paquebot_delivery_deferred_jobs_total", reason="failed") or 0.0
    async with post.delivery(PAQUEBOT_DELIVERY_TRIES="2"):
        await post.arrived(post.alice)
        await post.settled()
    assert value("paquebot_delivery_deferred_jobs_total", reason="failed") == failed + 1
    assert len(await post.held()) == 1


@pytest.mark.parametrize("code", ["XX001", "58030"])
async def test_damaged_rows_of_one_account_delay_no_other(post: Post, code: str) -> None:
    """The account's own mail waits, however often it fails, until the data are repaired."""
    for account_id in (post.alice, post.bob):
        await post.mailstore.accounts.ensure(account_id)
    admin = await asyncpg.connect(post.admin_dsn)
    try:
        await admin.execute(_DAMAGE % (post.alice, code))
        await post.accept("alice@example.org", "bob@example.org")
        await post.accept("alice@example.org")
        await post.accept("bob@example.org")
        async with post.delivery(PAQUEBOT_DELIVERY_TRIES="1"):
            await post.arrived(post.bob)
            assert await post.inbox(post.alice) == []
            await admin.execute("DROP TRIGGER damaged ON mailstore.messages")
            await post.arrived(post.alice, 2)
            await post.arrived(post.bob, 2)
            await post.settled()
    finally:
        await admin.close()
    assert await post.held() == []


async def test_an_unreadable_job_is_held_whole(post: Post) -> None:
    await post.queue.publish([Publication(SUBJECT, b"\xff\xff no job")])
    await post.accept("alice@example.org")
    async with post.delivery(PAQUEBOT_DELIVERY_TRIES="1"):
        await post.arrived(post.alice)
        await post.settled()
    [held] = await post.held()
    assert held.payload == b"\xff\xff no job"
    assert "DecodeError" in held.reason
    assert held.held_at_ms > 0


async def over_quota(post: Post, **fields: Any) -> LocalRecipient:
    recipient = await post.recipient("alice@example.org")
    recipient.MergeFrom(LocalRecipient(quota_bytes=10, **fields))
    return recipient


async def test_over_quota_is_reported_to_the_sender(post: Post) -> None:
    await post.accept(await over_quota(post, orcpt="rfc822;alice@example.org"), "bob@example.org")
    async with post.delivery():
        first, second = await post.arrived(post.bob, 2)
        await post.settled()
    report = first if b"delivery-status" in await whole(post, first) else second
    text = await whole(post, report)
    assert text.startswith(b"Return-Path: <>\r\nDelivered-To: bob@example.org\r\n")
    for line in (
        b"Reporting-MTA: dns; mail.example.org",
        b"Original-Recipient: rfc822; alice@example.org",
        b"Final-Recipient: rfc822; alice@example.org",
        b"Action: failed",
        b"Status: 5.2.2",
        b"X-Own: kept",
        b"How do you do?",
    ):
        assert line in text
    assert await post.mailstore.accounts.usage(post.alice) == await post.mailstore.accounts.usage(-1)


async def test_a_refused_message_stays_refused(post: Post) -> None:
    """Space that becomes free after the notification changes nothing; the sender gets one notification."""
    await post.accept(await over_quota(post))
    job = await post.job()
    async with post.delivery():
        await post.arrived(post.bob)
        await post.settled()
        job.entries[0].recipients[0].quota_bytes = 0
        await post.queue.publish([Publication(SUBJECT, job.SerializeToString())])
        await post.settled()
        await post.settled()
    assert await post.inbox(post.alice) == []
    assert len(await post.inbox(post.bob)) == 1


@pytest.mark.parametrize(("reverse_path", "notify"), [("", []), ("bob@example.org", [NOTIFY_NEVER])])
async def test_no_notification_is_due(post: Post, reverse_path: str, notify: Sequence[int]) -> None:
    await post.accept(await over_quota(post, notify=notify), reverse_path=reverse_path)
    async with post.delivery():
        await post.settled()
    await post.mailstore.accounts.ensure(post.bob)
    assert (await stream.counts(post.queue)).total() == 0
    assert await post.inbox(post.bob) == []


async def test_over_quota_can_be_deferred(post: Post) -> None:
    await post.accept("alice@example.org", raw=RAW + b"x" * 1000)
    environ = {"PAQUEBOT_DELIVERY_OVER_QUOTA": "defer", "PAQUEBOT_DELIVERY_RETRY": "1s"}
    async with post.delivery(**environ):
        [first] = await post.arrived(post.alice)
        recipient = await post.recipient("alice@example.org")
        recipient.quota_bytes = 1100
        queue_id = await post.accept(recipient, "bob@example.org")
        await post.arrived(post.bob)

        async def is_later() -> bool:
            return (await stream.counts(post.queue)).total("deliver.later.") == 1

        await eventually(is_later, "the recipient over quota waits in the stream")
        await post.mailstore.messages.remove(post.alice, INBOX_ID, [first.uid])
        [second] = await post.arrived(post.alice)
        await post.settled()
    assert second.email_id == queue_id
    assert len(await post.inbox(post.bob)) == 1
    assert (await stream.counts(post.queue)).total() == 0


async def test_deferral_ends(post: Post) -> None:
    await post.accept(await over_quota(post))
    environ = {"PAQUEBOT_DELIVERY_OVER_QUOTA": "defer", "PAQUEBOT_DELIVERY_LIFETIME": "0"}
    async with post.delivery(**environ):
        [report] = await post.arrived(post.bob)
        await post.settled()
    assert b"Status: 5.2.2" in await whole(post, report)
    assert (await stream.counts(post.queue)).total() == 0


async def test_a_message_that_can_never_fit_is_not_deferred(post: Post) -> None:
    recipient = await post.recipient("alice@example.org")
    recipient.quota_bytes = len(RAW) - 1
    await post.accept(recipient)
    async with post.delivery(PAQUEBOT_DELIVERY_OVER_QUOTA="defer"):
        [report] = await post.arrived(post.bob)
        await post.settled()
    assert b"Action: failed" in await whole(post, report)
    assert (await stream.counts(post.queue)).total() == 0


async def test_success_is_reported_when_asked_for(post: Post) -> None:
    """RFC 3461 §4.1: NOTIFY=SUCCESS; a job delivered again sends no second notification."""
    recipient = await post.recipient("alice@example.org")
    recipient.notify.append(NOTIFY_SUCCESS)
    await post.accept(recipient)
    job = await post.job()
    await post.queue.publish([Publication(SUBJECT, job.SerializeToString())])
    async with post.delivery():
        await post.arrived(post.alice)
        [report] = await post.arrived(post.bob)
        await post.settled()
    text = await whole(post, report)
    assert b"Action: delivered" in text
    assert b"Status: 2.0.0" in text
    assert b"How do you do?" not in text  # RFC 3461 §4.3: the whole message is for failures only
    assert len(await post.inbox(post.bob)) == 1
    assert len(await post.inbox(post.alice)) == 1


async def test_an_account_that_was_deleted(post: Post) -> None:
    await post.accept("alice@example.org")
    await post.mailstore.accounts.delete(post.alice)
    async with post.delivery():
        [report] = await post.arrived(post.bob)
        await post.settled()
    assert b"Status: 5.1.1" in await whole(post, report)
    assert all(mailbox.messages == 0 for mailbox in await post.mailstore.mailboxes.list_all(post.alice))


async def test_a_sender_that_cannot_be_notified(post: Post, caplog: pytest.LogCaptureFixture) -> None:
    """The sender is over quota too: after failed attempts the job is held; a release sends the notification later."""
    await post.accept("bob@example.org")
    async with post.delivery(PAQUEBOT_DELIVERY_TRIES="2"):
        [first] = await post.arrived(post.bob)
        await post.directory.set_account("bob@example.org", quota_bytes=first.size)
        await post.accept(await over_quota(post))
        await post.settled()
        [held] = await post.held()
        assert "the sender cannot be notified: VERDICT_OVER_QUOTA" in held.reason
        assert "job_held" in caplog.messages, "the event that the runbook names"
        assert len(await post.inbox(post.bob)) == 1

        await post.directory.set_account("bob@example.org", quota_bytes=0)
        await backlog.release(post.queue, [item async for item in backlog.list_jobs(post.queue, state="held")])
        await post.arrived(post.bob, 2)
        await post.settled()
    assert (await stream.counts(post.queue)).total() == 0


async def test_the_notification_waits_for_the_directory(post: Post) -> None:
    """The message is delivered; the job stays in the queue until the directory is back and the notification is sent."""
    await post.accept(await over_quota(post), await post.recipient("bob@example.org"))
    nowhere = f"127.0.0.1:{free_port()}"
    environ = {"PAQUEBOT_RECIPIENT_VALIDATION": nowhere, "PAQUEBOT_RECIPIENT_VALIDATION_TIMEOUT": "200ms"}

    async def was_redelivered() -> bool:
        info = await post.queue.api(f"CONSUMER.INFO.{post.queue.settings.stream}.delivery")
        return int(info["num_redelivered"]) > 0

    async with post.delivery(**environ):
        await post.arrived(post.bob)
        await eventually(was_redelivered, "the job is handed out again")
    assert (await stream.counts(post.queue)).total("deliver.") == 1
    async with post.delivery():
        await post.arrived(post.bob, 2)
        await post.settled()
    assert len(await post.inbox(post.bob)) == 2


async def test_delivery_survives_an_outage_of_postgres(post: Post) -> None:
    admin = await asyncpg.connect(post.admin_dsn)
    async with post.delivery(PAQUEBOT_DELIVERY_TRIES="1") as context:
        await post.accept("alice@example.org")
        await post.arrived(post.alice)
        await admin.execute(f"ALTER ROLE {ROLE} NOLOGIN")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", ROLE)

        async def is_unready() -> bool:
            return any(reason.startswith("postgres") for reason in await context.health.unready())

        await post.accept("bob@example.org")
        await eventually(is_unready, "the probe sees that PostgreSQL is away")
        await admin.execute(f"ALTER ROLE {ROLE} LOGIN")
        await post.arrived(post.bob)
        await post.settled()
    await admin.close()
    assert await post.held() == []


async def test_the_role_may_do_no_more_than_deliver(post: Post) -> None:
    async with post.delivery():
        await post.accept("alice@example.org")
        await post.arrived(post.alice)
    connection = await asyncpg.connect(post.environ["PAQUEBOT_POSTGRES_DSN"])
    for statement in (
        "SELECT * FROM directory.accounts",
        "DELETE FROM mailstore.messages",
        "UPDATE mailstore.messages SET flags = 1",
        "DELETE FROM mailstore.deliveries",
        "SELECT * FROM mailstore.maildrop_locks",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    await connection.close()


async def test_the_log_has_no_content(post: Post) -> None:
    """One line links the queue id to the place of the message, and shows nothing of its content."""
    queue_id = await post.accept("alice@example.org")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "paquebot", "delivery"),
        env={**post.environ, "PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
    )
    await post.arrived(post.alice)
    await post.settled()
    process.terminate()
    output, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    assert process.returncode == 0
    lines = [json.loads(line) for line in output.splitlines()]
    [delivered] = [line for line in lines if line["event"] == "delivered"]
    assert (delivered["queue_id"], delivered["account_id"], delivered["uid"]) == (queue_id, post.alice, 1)
    assert b"hello" not in output
    assert b"bob@" not in output
