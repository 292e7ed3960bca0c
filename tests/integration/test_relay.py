"""The relay on the real engines: from a job in the stream to other hosts, to a later attempt, or to a notification."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default as parsing_policy
from pathlib import Path

import asyncpg
import pytest
from prometheus_client import REGISTRY

from paquebot.blobs import BlobStore
from paquebot.cli.engines.nats import NatsEngine
from paquebot.cli.engines.s3 import S3Engine
from paquebot.queue import ClaimedJob, Consumer, Publication, Queue, QueueUnavailable, relay_ready, stream
from paquebot.queue.subjects import RELAY, RELAY_AHEAD, relay_ahead
from paquebot.relay.outcome import deferred
from paquebot.relay.queue.ahead import BacklogBypass
from paquebot.relay.queue.destinations import Destinations
from paquebot.relay.queue.publisher import JobPublisher
from paquebot.relay.routing.routes import Routes
from paquebot.relay.service import main
from paquebot.relay.settings import RelayLoadSettings, RelaySettings, RetrySettings
from paquebot.runtime.process.health import Health
from paquebot.runtime.process.service import Context
from paquebot.runtime.settings import load
from paquebot.spool import Spool
from paquebot.spool.outcomes import RecipientOutcome
from paquebot.v1.mail_pb2 import NOTIFY_DELAY, NOTIFY_NEVER, NOTIFY_SUCCESS, RET_HDRS, Client, Envelope, RemoteRecipient
from paquebot.v1.queue_pb2 import DeliverEntry, DeliverJob, HeldJob, RelayJob
from tests.support.directory_service import DirectoryService, directory_service
from tests.support.dns_server import DnsServer
from tests.support.loopback import free_port
from tests.support.lying_s3 import Lie, LyingS3
from tests.support.remote_host import DROP, SILENT, RemoteHost
from tests.support.roles import let_roles_log_in, role_dsn

ROLE = "paquebot_relay"
RAW = b"From: alice@example.org\r\nTo: a@example.net\r\nSubject: hello\r\n\r\nHow do you do?\r\n"
ZONE = "@ MX 10 mx\nmx A 127.0.0.1"
SECONDS = 60.0


async def eventually(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = SECONDS) -> None:
    """Poll until the condition holds; fail at the deadline."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Post:
    """Engines, a directory with alice@example.org, name servers for example.net; the test starts the relay."""

    directory: DirectoryService
    spool: Spool
    queue: Queue
    dns: DnsServer
    environ: dict[str, str]
    admin_dsn: str
    port: int

    async def accept(
        self, *to: str | RemoteRecipient, reverse_path: str = "alice@example.org", raw: bytes = RAW, **fields: object
    ) -> str:
        recipients = [
            RemoteRecipient(forward_path=one, domain=one.rpartition("@")[2]) if isinstance(one, str) else one
            for one in to
        ]
        envelope = Envelope(reverse_path=reverse_path, remote=recipients, **fields)  # type: ignore[arg-type]
        return await self.spool.accept(envelope, raw)

    @contextlib.asynccontextmanager
    async def relay(self, **environ: str) -> AsyncIterator[Context]:
        """Run the service as `paquebot relay` does for the time of the block; drain it at the end."""
        settings = load(RelaySettings, {**self.environ, **environ})
        context = Context("relay", Health(), asyncio.Event())
        async with asyncio.TaskGroup() as group:
            task = group.create_task(main(context, settings))
            try:
                yield context
            finally:
                context.draining.set()
            await asyncio.wait_for(task, SECONDS)

    def host(self, on: dict[str, object] | None = None, **options: object) -> RemoteHost:
        """Return the mail exchanger of example.net."""
        return RemoteHost(on, port=self.port, **options)  # type: ignore[arg-type]

    async def outcomes(self) -> dict[str, RecipientOutcome]:
        connection = await asyncpg.connect(self.admin_dsn)
        try:
            rows = await connection.fetch("SELECT forward_path, outcome FROM spool.outcomes")
        finally:
            await connection.close()
        return {row["forward_path"].partition("@")[0]: RecipientOutcome(row["outcome"]) for row in rows}

    async def until_outcomes(self, expected: dict[str, RecipientOutcome], seconds: float = SECONDS) -> None:
        async def there() -> bool:
            return await self.outcomes() == expected

        await eventually(there, f"outcomes {expected}", seconds)

    async def settled(self) -> None:
        """Wait until no relay job is left, ready or scheduled."""

        async def empty() -> bool:
            return (await stream.counts(self.queue)).total("relay.") == 0

        await eventually(empty, "no relay job")

    async def later(self) -> RelayJob:
        """Wait for the only scheduled job."""

        async def scheduled() -> bool:
            return (await stream.counts(self.queue)).total("relay.later.") == 1

        await eventually(scheduled, "a job for later")
        [stored] = [job async for job in stream.jobs(self.queue, "relay.later.*")]
        return RelayJob.FromString(stored.payload)

    async def reports(self, blobs: BlobStore, count: int) -> list[EmailMessage]:
        """Wait for `count` notifications to accounts of example.org."""

        entries: list[DeliverEntry] = []

        async def there() -> bool:
            jobs = [job async for job in stream.jobs(self.queue, "deliver.ready.example_org")]
            entries[:] = [entry for job in jobs for entry in DeliverJob.FromString(job.payload).entries]
            return len(entries) >= count

        await eventually(there, f"{count} notifications")
        found = []
        for entry in entries:
            assert entry.reverse_path == "", "RFC 3464 §2: from the null reverse-path"
            raw = await blobs.read(entry.blob)
            found.append(BytesParser(policy=parsing_policy).parsebytes(raw))
        assert len(found) == count
        return found


def fields(report: EmailMessage) -> list[dict[str, str]]:
    """Return the fields of the delivery-status part: the message's group, then one for each recipient."""
    [status] = [part for part in report.walk() if part.get_content_type() == "message/delivery-status"]
    return [dict(group.items()) for group in status.get_payload()]  # type: ignore[union-attr]


@pytest.fixture
async def post(
    queue: Queue, spool: Spool, database: str, bucket: str, nats_engine: NatsEngine, s3_engine: S3Engine
) -> AsyncIterator[Post]:
    login, access = nats_engine.accesses[0], s3_engine.accesses[0]
    async with directory_service(database) as directory, DnsServer({"example.net": ZONE}) as dns:
        await directory.domain("example.org")
        await directory.account("alice@example.org")
        await let_roles_log_in(database, ROLE)
        dsn = role_dsn(database, ROLE)
        port = free_port()
        environ = {
            "PAQUEBOT_NATS_URL": nats_engine.url,
            "PAQUEBOT_NATS_USER": login.name,
            "PAQUEBOT_NATS_PASSWORD": login.password,
            "PAQUEBOT_S3_ENDPOINT": f"http://{s3_engine.endpoint}",
            "PAQUEBOT_S3_BUCKET": bucket,
            "PAQUEBOT_S3_ACCESS_KEY": access.access_key,
            "PAQUEBOT_S3_SECRET_KEY": access.secret_key,
            "PAQUEBOT_POSTGRES_DSN": dsn,
            "PAQUEBOT_RECIPIENT_VALIDATION": directory.target,
            "PAQUEBOT_HOSTNAME": "relay.example.org",
            "PAQUEBOT_METRICS_LISTEN": "127.0.0.1:0",
            "PAQUEBOT_RELAY_DNS": f"127.0.0.1:{dns.port}",
            "PAQUEBOT_RELAY_PORT": str(port),
            "PAQUEBOT_RELAY_ALLOW_NETWORKS": "127.0.0.0/8",
            "PAQUEBOT_RELAY_RETRY": "1s",
            "PAQUEBOT_RELAY_RETRY_JITTER": "0",
            "PAQUEBOT_RELAY_BACK_OFF": "500ms",
            "PAQUEBOT_DRAIN": "8s",
        }
        yield Post(directory, spool, queue, dns, environ, database, port)


async def test_a_message_goes_to_its_domains(post: Post) -> None:
    post.dns.set_zone("example.com", "@ A 127.0.0.1")
    async with post.host() as host, post.relay() as context:
        await post.accept("a@example.net", "b@example.net", "c@example.com")
        await host.until(lambda: len(host.messages) == 2)
        await post.settled()
        by_size = sorted(host.messages, key=lambda message: len(message.rcpt))
        assert by_size[0].rcpt == ("RCPT TO:<c@example.com>",)
        assert by_size[1].rcpt == ("RCPT TO:<a@example.net>", "RCPT TO:<b@example.net>")
        assert all(message.content == RAW for message in host.messages)
        assert all(message.mail.startswith("MAIL FROM:<alice@example.org>") for message in host.messages)
        assert await post.outcomes() == dict.fromkeys("abc", RecipientOutcome.RELAYED)
        assert await context.health.unready() == []


async def test_each_recipient_has_its_own_outcome(post: Post, blobs: BlobStore) -> None:
    later = "451 4.2.0 Greylisted"

    def rcpt(line: str) -> str:
        return {"a": "250 2.1.5 Ok", "b": later, "c": "550 5.1.1 No such user", "d": "550 5.1.1 No"}[line[9]]

    wishes = RemoteRecipient(forward_path="d@example.net", domain="example.net", orcpt="rfc822;old+d@example.com")
    async with post.host({"RCPT": rcpt}) as host, post.relay():
        await post.accept("a@example.net", "b@example.net", "c@example.net", wishes, envid="id+1", ret=RET_HDRS)
        await post.until_outcomes(
            {"a": RecipientOutcome.RELAYED, "c": RecipientOutcome.BOUNCED, "d": RecipientOutcome.BOUNCED}
        )
        job = await post.later()
        assert [recipient.forward_path for recipient in job.recipients] == ["b@example.net"]
        assert (job.attempt, job.last_reply) == (1, later)

        [report] = await post.reports(blobs, 1)  # one notification for all failed recipients of a job
        message, one, two = fields(report)
        assert report["To"] == "alice@example.org"
        assert message["Original-Envelope-Id"] == "id+1"
        assert message["Reporting-MTA"] == "dns; relay.example.org"
        assert (one["Final-Recipient"], one["Action"]) == ("rfc822; c@example.net", "failed")
        assert (one["Status"], one["Remote-MTA"]) == ("5.1.1", "dns; mx.example.net")
        assert one["Diagnostic-Code"] == "smtp; 550 5.1.1 No such user"
        assert two["Original-Recipient"] == "rfc822; old+d@example.com"
        assert b"How do you do?" not in report.as_bytes(), "RET=HDRS"

        del host.on["RCPT"]
        await host.until(lambda: len(host.messages) == 2)
        await post.settled()
        assert [message.rcpt for message in host.messages] == [
            ("RCPT TO:<a@example.net>",),
            ("RCPT TO:<b@example.net>",),
        ]


async def test_a_host_that_is_away_gets_its_mail_when_it_is_back(post: Post) -> None:
    async with post.relay():
        await post.accept("a@example.net")
        job = await post.later()
        assert "connection refused" in job.last_reply
        async with post.host() as host:
            await host.until(lambda: len(host.messages) == 1)
            await post.settled()
    assert await post.outcomes() == {"a": RecipientOutcome.RELAYED}


async def test_no_job_is_tried_before_the_schema_is_there(post: Post) -> None:
    """A relay newer than the database waits and is not ready: a missing table must not use up a job's attempts."""
    connection = await asyncpg.connect(post.admin_dsn)
    await connection.execute("ALTER SCHEMA spool RENAME TO absent")
    await post.accept("a@example.net")
    async with post.host() as host, post.relay(PAQUEBOT_RELAY_TRIES="1") as context:
        await asyncio.sleep(2.0)  # far longer than an attempt takes
        assert not context.health.started
        assert (await stream.counts(post.queue)).total("hold.") == 0
        await connection.execute("ALTER SCHEMA absent RENAME TO spool")
        await connection.close()
        await host.until(lambda: len(host.messages) == 1)
        await post.settled()
    assert await post.outcomes() == {"a": RecipientOutcome.RELAYED}


async def test_after_a_lost_reply_the_message_is_sent_again(post: Post) -> None:
    """RFC 1047: the relay does not know whether the host has the message, so it sends it again rather than lose it."""
    async with post.host({"MESSAGE": DROP}) as host, post.relay():
        await post.accept("a@example.net")
        await post.later()
        host.on.clear()
        await host.until(lambda: len(host.messages) == 1)
        await post.settled()
    assert await post.outcomes() == {"a": RecipientOutcome.RELAYED}


async def test_a_job_delivered_again_sends_nothing_twice(post: Post) -> None:
    async with post.host() as host:
        await post.accept("a@example.net", "b@example.net")
        [stored] = [job async for job in stream.jobs(post.queue, "relay.>")]
        async with post.relay():
            await host.until(lambda: len(host.messages) == 1)
            await post.settled()
        job = RelayJob.FromString(stored.payload)
        extra = RemoteRecipient(forward_path="c@example.net", domain="example.net")
        job.recipients.append(extra)  # as after a crash in the middle: two recipients are done, one is not
        await post.queue.publish([Publication(relay_ready("example.net"), job.SerializeToString())])
        async with post.relay():
            await host.until(lambda: len(host.messages) == 2)
            await post.settled()
        assert host.messages[1].rcpt == ("RCPT TO:<c@example.net>",)


async def test_an_attempt_settled_twice_is_scheduled_and_reported_once(post: Post, blobs: BlobStore) -> None:
    """After a crash between the later job and the acknowledgement, the relay gets the job again from the start."""
    await post.accept("a@example.net", "b@example.net")
    [stored] = [job async for job in stream.jobs(post.queue, "relay.>")]
    rcpt = {"a": "451 4.2.0 Later", "b": "550 5.1.1 No"}
    async with post.host({"RCPT": lambda line: rcpt[line[9]]}) as host:
        async with post.relay(PAQUEBOT_RELAY_RETRY="1h"):
            await post.until_outcomes({"b": RecipientOutcome.BOUNCED})
            assert (await post.later()).attempt == 1
            await post.queue.publish([Publication(relay_ready("example.net"), stored.payload)])
            await host.until(lambda: sum(line.startswith("MAIL") for line in host.all_commands) == 2)

            async def acknowledged() -> bool:
                return (await stream.counts(post.queue)).total("relay.ready.") == 0

            await eventually(acknowledged, "the job done again")
        assert sum("<b@example.net>" in line for line in host.all_commands) == 1, "its outcome is recorded"
    assert (await stream.counts(post.queue)).total("relay.later.") == 1
    assert len(await post.reports(blobs, 1)) == 1


async def test_an_expired_message_is_returned_to_its_sender(post: Post, blobs: BlobStore) -> None:
    async with post.host({"RCPT": "451 4.2.0 Later"}), post.relay(PAQUEBOT_RELAY_LIFETIME="2s"):
        await post.accept("a@example.net")
        await post.until_outcomes({"a": RecipientOutcome.BOUNCED})
        [report] = await post.reports(blobs, 1)
        _, one = fields(report)
        assert (one["Action"], one["Status"]) == ("failed", "4.4.7")
        assert one["Diagnostic-Code"] == "smtp; 451 4.2.0 Later"
        await post.settled()


async def test_a_delay_is_reported_once_where_notify_asks_for_it(post: Post, blobs: BlobStore) -> None:
    never = RemoteRecipient(forward_path="n@example.net", domain="example.net", notify=[NOTIFY_NEVER])
    wanted = RemoteRecipient(forward_path="d@example.net", domain="example.net", notify=[NOTIFY_DELAY])
    async with post.host({"RCPT": "451 4.2.0 Later"}) as host, post.relay(PAQUEBOT_RELAY_WARN_AFTER="1s"):
        await post.accept("a@example.net", never, wanted)
        [report] = await post.reports(blobs, 1)
        _, *recipients = fields(report)
        assert [one["Final-Recipient"] for one in recipients] == ["rfc822; a@example.net", "rfc822; d@example.net"]
        assert {one["Action"] for one in recipients} == {"delayed"}
        assert all("Will-Retry-Until" in one for one in recipients)
        attempts = sum(line.startswith("MAIL") for line in host.all_commands)
        await host.until(lambda: sum(line.startswith("MAIL") for line in host.all_commands) > attempts)
        assert (await post.later()).delay_reported
        assert len(await post.reports(blobs, 1)) == 1
        host.on.clear()
        await post.settled()


async def test_notify_never_is_honoured(post: Post) -> None:
    never = RemoteRecipient(forward_path="n@example.net", domain="example.net", notify=[NOTIFY_NEVER])
    async with post.host({"RCPT": "550 5.1.1 No"}), post.relay():
        await post.accept(never)
        await post.until_outcomes({"n": RecipientOutcome.BOUNCED})
        await post.settled()
        assert (await stream.counts(post.queue)).by_subject == {}


@pytest.mark.parametrize("dsn", [True, False])
async def test_success_is_reported_where_the_next_host_has_no_dsn(post: Post, blobs: BlobStore, *, dsn: bool) -> None:
    wanted = RemoteRecipient(forward_path="s@example.net", domain="example.net", notify=[NOTIFY_SUCCESS])
    async with post.host(extensions=("DSN",) if dsn else ()) as host, post.relay():
        await post.accept(wanted)
        await post.until_outcomes({"s": RecipientOutcome.RELAYED})
        await post.settled()
        if dsn:
            assert host.messages[0].rcpt == ("RCPT TO:<s@example.net> NOTIFY=SUCCESS",)
            assert (await stream.counts(post.queue)).by_subject == {}
        else:
            [report] = await post.reports(blobs, 1)
            assert fields(report)[1]["Action"] == "relayed"


async def test_a_failed_notification_is_dropped(post: Post) -> None:
    async with post.host({"RCPT": "550 5.1.1 No"}), post.relay():
        await post.accept("a@example.net", reverse_path="")
        await post.until_outcomes({"a": RecipientOutcome.DROPPED})
        await post.settled()
        assert (await stream.counts(post.queue)).by_subject == {}


async def test_a_failed_notification_can_go_to_the_postmaster(post: Post, blobs: BlobStore) -> None:
    async with post.host({"RCPT": "550 5.1.1 No"}):
        async with post.relay(PAQUEBOT_RELAY_DOUBLE_BOUNCE_TO="alice@example.org"):
            await post.accept("a@example.net", reverse_path="")
            await post.until_outcomes({"a": RecipientOutcome.DROPPED})
            [report] = await post.reports(blobs, 1)
            assert report["To"] == "alice@example.org"


async def test_a_notification_to_a_sender_elsewhere_is_relayed(post: Post) -> None:
    post.dns.set_zone("example.com", "@ A 127.0.0.1")
    async with post.host({"RCPT": lambda line: "550 5.1.1 No" if "example.net" in line else "250 Ok"}) as host:
        async with post.relay():
            await post.accept("a@example.net", reverse_path="s@example.com")
            await host.until(lambda: len(host.messages) == 1)
            await post.settled()
            assert host.messages[0].mail.startswith("MAIL FROM:<>")
            assert host.messages[0].rcpt == ("RCPT TO:<s@example.com>",)
            assert b"multipart/report" in host.messages[0].content


async def test_a_domain_without_mail_bounces_immediately(post: Post, blobs: BlobStore) -> None:
    post.dns.set_zone("example.com", "@ MX 0 .")  # RFC 7505
    async with post.relay():
        await post.accept("a@example.com")
        await post.until_outcomes({"a": RecipientOutcome.BOUNCED})
        [report] = await post.reports(blobs, 1)
        assert fields(report)[1]["Status"] == "5.1.10"


BROKEN = (b"\xff\xff\xff", RelayJob(queue_id="A", domain="example.net", reverse_path="a\0b").SerializeToString())


@pytest.mark.parametrize("payload", BROKEN)
async def test_an_unreadable_job_is_held(post: Post, payload: bytes) -> None:
    await post.queue.publish([Publication(relay_ready("example.net"), payload)])
    async with post.relay():

        async def is_held() -> bool:
            return (await stream.counts(post.queue)).total("hold.unreadable.") == 1

        await eventually(is_held, "a held job")
        [held] = [HeldJob.FromString(job.payload) async for job in stream.jobs(post.queue, "hold.>")]
        assert (held.subject, held.payload) == (relay_ready("example.net"), payload)
        await post.settled()


async def test_a_host_gets_a_message_that_it_supports(post: Post, blobs: BlobStore) -> None:
    """8-bit text and long lines, to a host with neither 8BITMIME nor CHUNKING that closes at STARTTLS."""
    text = "Grüße\r\n" + "wort " * 500 + "\r\n"
    signed = b"DKIM-Signature: v=1; b=x\r\n" + RAW + b"x" * 999 + b"\r\n"
    async with post.host({"STARTTLS": DROP}, extensions=("STARTTLS",)) as host, post.relay():
        await post.accept("a@example.net", raw=b"Subject: x\r\n\r\n" + text.encode())
        await post.accept("b@example.net", raw=signed)
        await post.until_outcomes({"a": RecipientOutcome.RELAYED, "b": RecipientOutcome.BOUNCED})
        [taken] = host.messages
        assert BytesParser(policy=parsing_policy).parsebytes(taken.content).get_payload(decode=True) == text.encode()
        assert taken.content.isascii()
        [report] = await post.reports(blobs, 1)
        assert fields(report)[1]["Status"] == "5.6.2"
        assert max(map(len, report.as_bytes().split(b"\n"))) <= 998
        await post.settled()


async def test_a_job_without_its_message_is_held(
    post: Post, blobs: BlobStore, caplog: pytest.LogCaptureFixture
) -> None:
    await post.accept("a@example.net")
    await blobs.delete([info.pack async for info in blobs.list_packs()])
    async with post.host() as host, post.relay(PAQUEBOT_RELAY_TRIES="1"):

        async def is_held() -> bool:
            return (await stream.counts(post.queue)).total("hold.blob.") == 1

        await eventually(is_held, "a held job")
        await post.settled()
        assert not any(line.startswith("MAIL") for line in host.all_commands), (
            "no MAIL for a message that cannot be sent"
        )
    assert "job_held" in caplog.messages, "the event that the runbook names"
    assert await post.outcomes() == {}


@pytest.mark.parametrize("lie", [Lie.FLIP, Lie.SHORT, Lie.SHIFTED])
async def test_damaged_content_from_s3_is_not_sent(post: Post, lying_s3: LyingS3, lie: Lie) -> None:
    """More attempts than a job has: it waits as long as S3 gives wrong answers, and is sent afterwards."""
    environ = {"PAQUEBOT_S3_ENDPOINT": lying_s3.endpoint, "PAQUEBOT_RELAY_TRIES": "2"}
    async with post.host() as host, post.relay(**environ):
        lying_s3.set_lie(lie)
        await post.accept("a@example.net")

        async def asked_often() -> bool:
            return lying_s3.lies >= 6  # each attempt reads twice

        await eventually(asked_often, "three tries", 60.0)
        assert host.messages == []
        assert (await stream.counts(post.queue)).total("hold.") == 0
        lying_s3.set_lie(Lie.NONE)
        await host.until(lambda: len(host.messages) == 1)
        await post.settled()
        assert host.messages[0].content == RAW
    assert await post.outcomes() == {"a": RecipientOutcome.RELAYED}


async def test_a_new_stream_may_reuse_the_number_of_a_claimed_job(post: Post) -> None:
    """A relay that confused the new job with the claimed one would acknowledge it and never send it."""
    async with post.host() as host, post.relay():
        release = asyncio.Event()
        host.hold["MESSAGE"] = release
        await post.accept("a@example.net")
        await host.until(lambda: "DATA" in host.all_commands)
        await stream.delete_stream(post.queue)
        await stream.ensure_stream(post.queue)
        await post.accept("b@example.net")

        async def handed_out() -> bool:
            with contextlib.suppress(QueueUnavailable):  # until the relay has created its consumer anew
                info = await post.queue.api(f"CONSUMER.INFO.{post.queue.settings.stream}.relay")
                return bool(info["num_ack_pending"])
            return False

        await eventually(handed_out, "the other job in the relay's hands")
        release.set()
        await post.until_outcomes({"a": RecipientOutcome.RELAYED, "b": RecipientOutcome.RELAYED})


async def test_a_drain_finishes_attempts_under_way_and_defers_the_rest(post: Post) -> None:
    async with post.host() as host:
        release = asyncio.Event()
        host.hold["MESSAGE"] = release
        async with post.relay(PAQUEBOT_RELAY_DESTINATION_CONCURRENCY="1") as context:
            await post.accept("a@example.net")
            await post.accept("b@example.net")
            await host.until(lambda: "DATA" in host.all_commands)
            context.draining.set()
            release.set()
            await post.until_outcomes({"a": RecipientOutcome.RELAYED})
        assert len(host.messages) == 1
        async with post.relay():
            await post.until_outcomes({"b": RecipientOutcome.RELAYED, "a": RecipientOutcome.RELAYED})
            await post.settled()


async def test_a_drain_does_not_wait_for_a_silent_host(post: Post) -> None:
    async with post.host({"MAIL": SILENT}) as host:
        async with post.relay(PAQUEBOT_DRAIN="4s") as context:
            await post.accept("a@example.net")
            await host.until(lambda: any(line.startswith("MAIL") for line in host.all_commands))
            started = time.monotonic()
            context.draining.set()
        assert time.monotonic() - started < 4
        host.on.clear()
        async with post.relay():
            await post.until_outcomes({"a": RecipientOutcome.RELAYED})


async def test_nothing_is_sent_while_it_could_not_be_recorded(post: Post) -> None:
    async with post.host() as host:
        async with post.relay() as context:

            async def is_started() -> bool:
                return context.health.started

            await eventually(is_started, "the relay has started")
            await _lock_out(post.admin_dsn)
            before = _count("paquebot_relay_attempts_total", result="engine_unavailable")
            await post.accept("a@example.net")

            async def is_deferred() -> bool:
                return _count("paquebot_relay_attempts_total", result="engine_unavailable") > before

            await eventually(is_deferred, "the job deferred")
            assert [reason.partition(":")[0] for reason in await context.health.unready()] == ["postgres"]
        assert host.connections == []
        await let_roles_log_in(post.admin_dsn, ROLE)
        async with post.relay():
            await post.until_outcomes({"a": RecipientOutcome.RELAYED})
            await post.settled()


async def test_a_bounce_waits_for_the_directory(post: Post, blobs: BlobStore) -> None:
    async with post.host({"RCPT": lambda line: "250 Ok" if "<a@" in line else "550 5.1.1 No"}) as host:
        await post.accept("a@example.net", "b@example.net")
        async with post.relay(
            PAQUEBOT_RECIPIENT_VALIDATION=f"127.0.0.1:{free_port()}", PAQUEBOT_RECIPIENT_VALIDATION_TIMEOUT="1s"
        ):
            before = _count("paquebot_relay_settlement_retries_total")

            async def waits() -> bool:
                return _count("paquebot_relay_settlement_retries_total") > before

            await eventually(waits, "a settlement that waits")
            assert await post.outcomes() == {"a": RecipientOutcome.RELAYED}, "recorded before anything else"
        async with post.relay():
            await post.until_outcomes({"a": RecipientOutcome.RELAYED, "b": RecipientOutcome.BOUNCED})
            await post.settled()
        assert len(await post.reports(blobs, 1)) == 1
        assert len(host.messages) == 1


def _count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_many_jobs_for_one_domain_do_not_delay_another(post: Post) -> None:
    """The relay puts jobs above the limit of a destination back into the stream for later, unchanged."""
    post.dns.set_zone("example.com", "@ A 127.0.0.1")
    async with post.host({"RCPT": lambda line: SILENT if "example.net" in line else "250 Ok"}) as host:
        settings = {"PAQUEBOT_RELAY_DESTINATION_CONCURRENCY": "1", "PAQUEBOT_RELAY_DESTINATION_WAITING": "1"}
        for name in ("a", "b", "c", "d"):
            await post.accept(f"{name}@example.net")
        await post.accept("z@example.com")
        before = _count("paquebot_relay_requeued_jobs_total", reason="over_share")
        async with post.relay(**settings, PAQUEBOT_DRAIN="4s"):
            await host.until(lambda: len(host.messages) == 1)
            assert host.messages[0].rcpt == ("RCPT TO:<z@example.com>",)

            async def put_back() -> bool:
                return _count("paquebot_relay_requeued_jobs_total", reason="over_share") - before >= 2

            await eventually(put_back, "jobs put back for later")
            ready = relay_ready("example.net")
            jobs = [RelayJob.FromString(job.payload) async for job in stream.jobs(post.queue, ready)]
            assert [job.attempt for job in jobs] == [0] * 4
    assert await post.outcomes() == {"z": RecipientOutcome.RELAYED}


# --- shares ---


class Silent:
    """Hosts that accept connections and send nothing, one for each of `domains`, each at its own address."""

    def __init__(self, post: Post, count: int, *, one_address: bool = False) -> None:
        self.addresses = ["127.9.0.1"] if one_address else [f"127.9.0.{number}" for number in range(1, count + 1)]
        self.domains = [f"silent{number}.test" for number in range(count)]
        self.connected: dict[str, int] = dict.fromkeys(self.addresses, 0)
        self.open = 0
        self._port = post.port
        for number, domain in enumerate(self.domains):
            post.dns.set_zone(domain, f"@ MX 10 mx\nmx A {self.addresses[number % len(self.addresses)]}")

    async def __aenter__(self) -> Silent:
        self._server = await asyncio.start_server(self._hang, self.addresses, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _hang(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected[writer.get_extra_info("sockname")[0]] += 1
        self.open += 1
        with contextlib.suppress(OSError):
            await reader.read()
        self.open -= 1
        writer.close()


FEW = {
    "PAQUEBOT_RELAY_CONCURRENCY": "8",
    "PAQUEBOT_RELAY_UNPROVEN_CONCURRENCY": "6",
    "PAQUEBOT_RELAY_SLOW_AFTER": "300ms",
    "PAQUEBOT_DRAIN": "4s",
}


async def test_silent_hosts_do_not_delay_the_others(post: Post) -> None:
    """The silent hosts come first, exceed the slots, and do not answer, while the others get their mail."""
    async with Silent(post, 40) as silent, post.host() as host:
        for domain in silent.domains:
            await post.accept(f"a@{domain}", f"b@{domain}")
        await post.accept("first@example.net")  # a destination without a record
        async with post.relay(**FEW):
            await host.until(lambda: len(host.messages) == 1, 60.0)
            assert silent.open > 6, "more open connections than slots"
            for number in range(20):
                hanging = silent.open
                await post.accept(f"u{number}@example.net")
                await host.until(lambda: len(host.messages) >= number + 2)  # noqa: B023
                assert hanging
            assert max(silent.connected.values()) <= 2, "and the relay does not retry one repeatedly"


async def test_slow_attempts_make_room_for_newer_ones(post: Post) -> None:
    async with Silent(post, 40) as silent, post.host() as host:
        for domain in silent.domains:
            await post.accept(f"a@{domain}")
        await post.accept("first@example.net")
        few = {"PAQUEBOT_RELAY_SLOW_CONCURRENCY": "4", "PAQUEBOT_RELAY_SLOW_MIN": "500ms"}
        before = _count("paquebot_relay_displaced_attempts_total")
        async with post.relay(**FEW, **few, PAQUEBOT_RELAY_RETRY="1h"):
            await host.until(lambda: len(host.messages) == 1, 60.0)
            assert silent.open <= 8 + 4
            assert _count("paquebot_relay_displaced_attempts_total") > before

            async def deferred() -> bool:
                return (await stream.counts(post.queue)).total("relay.later.") >= 40 - 4

            await eventually(deferred, "every attempt ended except the last ones, whose slots are not needed", 60.0)
            [job, *_] = [RelayJob.FromString(job.payload) async for job in stream.jobs(post.queue, "relay.later.*")]
            assert job.attempt == 1
            assert job.last_reply


async def test_domains_behind_one_silent_host_are_one(post: Post) -> None:
    async with Silent(post, 30, one_address=True) as silent, post.host() as host:
        for domain in silent.domains:
            await post.accept(f"a@{domain}")
        await post.accept("first@example.net")
        before = _count("paquebot_relay_requeued_jobs_total", reason="busy")
        async with post.relay(**FEW, PAQUEBOT_RELAY_NEW_HOST_CONCURRENCY="3"):
            await host.until(lambda: len(host.messages) == 1)

            async def put_back() -> bool:
                return _count("paquebot_relay_requeued_jobs_total", reason="busy") - before >= 27

            await eventually(put_back, "the others put back")
            assert silent.connected == {"127.9.0.1": 3}
            jobs = [RelayJob.FromString(job.payload) async for job in stream.jobs(post.queue, "relay.>")]
            attempts = [job.attempt for job in jobs if job.domain in silent.domains]
            assert attempts == [0] * 30, "the relay attempted nothing"


async def test_jobs_of_a_resting_destination_are_not_tried_one_by_one(post: Post) -> None:
    async with post.host({"CONNECT": DROP}) as host:
        await post.accept("first@example.net")
        settings = {"PAQUEBOT_RELAY_RETRY": "1h", "PAQUEBOT_RELAY_BACK_OFF": "1h", "PAQUEBOT_RELAY_BACK_OFF_MAX": "1h"}
        async with post.relay(**settings):
            await post.later()
            before = _count("paquebot_relay_requeued_jobs_total", reason="resting")
            for number in range(40):
                await post.accept(f"u{number}@example.net")

            async def put_back() -> bool:
                return _count("paquebot_relay_requeued_jobs_total", reason="resting") - before == 40

            await eventually(put_back, "all put back")
            assert len(host.connections) == 1
            assert (await stream.counts(post.queue)).total("relay.ready.") == 40


async def test_a_host_that_closes_at_one_message_gets_all_others(post: Post) -> None:
    """A host, perhaps a smart host, that closes the connection at one message still gets all other messages."""
    async with post.host({"MAIL": DROP}) as host:
        await post.accept("first@example.net")
        settings = {"PAQUEBOT_RELAY_RETRY": "1h", "PAQUEBOT_RELAY_BACK_OFF": "1h", "PAQUEBOT_RELAY_BACK_OFF_MAX": "1h"}
        async with post.relay(**settings):
            await post.later()
            host.on.clear()
            await post.accept("second@example.net")
            await host.until(lambda: len(host.messages) == 1)
    assert host.messages[0].rcpt == ("RCPT TO:<second@example.net>",)


async def test_a_job_far_behind_is_taken_ahead_of_a_backlog(post: Post) -> None:
    """3,000 jobs for silent domains are before it; the consumer has fetched none of them."""
    retry = RetrySettings()
    destinations: Destinations[str] = Destinations(RelayLoadSettings(), retry, time.time)
    destinations.add("resting.test", "s", "work")
    turn = destinations.next()
    assert turn is not None
    destinations.unreachable("resting.test", deferred("4.4.1", "connection timed out"))
    destinations.done(turn)
    consumer = Consumer(post.queue, "relay", RELAY)
    assert await consumer.fetch(1, 0.01) == []  # creates the consumer
    backlog = [Publication(relay_ready(f"s{n % 30}.test"), b"") for n in range(3000)]
    for start in range(0, len(backlog), 500):
        await post.queue.publish(backlog[start : start + 500])
    for domain in ("resting.test", "example.net"):
        await post.queue.publish([Publication(relay_ready(domain), domain.encode())])
    bypass = BacklogBypass(
        post.queue, JobPublisher(post.queue), "relay", destinations, Routes([]), lambda others: others.sort()
    )
    assert await bypass.move_jobs() == 16, "a limited number of jobs for unknown destinations"
    ahead = [job async for job in stream.jobs(post.queue, "relay.ahead.>")]
    assert (relay_ahead("example.net"), b"example.net") in [(job.subject, job.payload) for job in ahead]
    left = (await stream.counts(post.queue)).by_subject
    assert left[relay_ready("resting.test")] == 1, "jobs of a resting destination are not moved"
    assert relay_ready("example.net") not in left, "moved, not copied"
    assert sum(left.values()) == 3002
    [job, *_] = await Consumer(post.queue, "relay-ahead", RELAY_AHEAD).fetch(20, 5.0)
    assert job.subject.startswith("relay.ahead.")
    await consumer.close()


async def test_a_job_that_is_claimed_meanwhile_is_not_moved_ahead(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes fetch the whole backlog between the query and the move: two processes would send the message."""
    consumer = Consumer(post.queue, "relay", RELAY)
    assert await consumer.fetch(1, 0.01) == []  # creates the consumer
    backlog = [Publication(relay_ready("silent.test"), b"") for _ in range(2100)]
    backlog.append(Publication(relay_ready("example.net"), b"job"))
    for start in range(0, len(backlog), 500):
        await post.queue.publish(backlog[start : start + 500])
    handed_out: list[ClaimedJob] = []
    oldest = stream.oldest

    async def oldest_while_others_fetch(queue: Queue, subject: str, *, after: int = 0) -> stream.StoredJob | None:
        handed_out.extend(await consumer.fetch(len(backlog), 5.0))
        return await oldest(queue, subject, after=after)

    monkeypatch.setattr(stream, "oldest", oldest_while_others_fetch)
    destinations: Destinations[str] = Destinations(RelayLoadSettings(), RetrySettings(), time.time)
    bypass = BacklogBypass(post.queue, JobPublisher(post.queue), "relay", destinations, Routes([]), lambda _: None)
    assert await bypass.move_jobs() == 0
    assert handed_out[-1].payload == b"job"
    assert (await stream.counts(post.queue)).total("relay.ahead.") == 0
    await consumer.close()


async def test_a_job_moved_ahead_is_relayed(post: Post) -> None:
    await post.accept("a@example.net")
    [stored] = [job async for job in stream.jobs(post.queue, "relay.>")]
    await stream.move(post.queue, stored, Publication(relay_ahead("example.net"), stored.payload))
    async with post.host() as host, post.relay():
        await host.until(lambda: len(host.messages) == 1)
        await post.settled()
    assert await post.outcomes() == {"a": RecipientOutcome.RELAYED}


# --- messages that must not be sent again, and addresses that get no connection ---


async def test_a_message_without_a_recorded_outcome_is_not_sent_again(post: Post) -> None:
    """PostgreSQL becomes unavailable after the message's last byte; then the relay is restarted."""
    async with post.host() as host:
        host.hold["MESSAGE"] = release = asyncio.Event()
        await post.accept("a@example.net", "b@example.net")
        async with post.relay():
            await host.until(lambda: "DATA" in host.all_commands)
            await _lock_out(post.admin_dsn)
            release.set()
            job = await post.later()
            assert sorted(job.relayed) == ["a@example.net", "b@example.net"]
            assert not job.recipients, "for a version that does not know `relayed`"
        await let_roles_log_in(post.admin_dsn, ROLE)
        async with post.relay():
            await post.until_outcomes({"a": RecipientOutcome.RELAYED, "b": RecipientOutcome.RELAYED})
            await post.settled()
        assert len(host.messages) == 1


async def _lock_out(dsn: str) -> None:
    """The relay's role loses its login and its connections."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(f"ALTER ROLE {ROLE} NOLOGIN")
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", ROLE)
    finally:
        await connection.close()


async def test_relay_connects_to_no_inner_address(post: Post, blobs: BlobStore) -> None:
    """Neither through an exchanger on loopback nor an address literal; the sender learns nothing of inner hosts."""
    async with post.host({"CONNECT": "554 secret banner of an inner host"}) as host:
        async with post.relay(PAQUEBOT_RELAY_ALLOW_NETWORKS=""):
            literal = RemoteRecipient(forward_path="b@[127.0.0.1]", domain="[127.0.0.1]")
            await post.accept("a@example.net", literal)
            await post.until_outcomes({"a": RecipientOutcome.BOUNCED, "b": RecipientOutcome.BOUNCED})
            for report in await post.reports(blobs, 2):
                assert fields(report)[1]["Status"] == "5.1.2"
                assert b"secret" not in report.as_bytes()
        assert host.connections == []


async def test_reports_of_success_to_strangers_are_limited(post: Post, blobs: BlobStore) -> None:
    wanted = RemoteRecipient(forward_path="s@example.net", domain="example.net", notify=[NOTIFY_SUCCESS])
    async with post.host(extensions=()) as host, post.relay(PAQUEBOT_REPORT_SUCCESS_PER_ADDRESS="2"):
        for _ in range(5):
            await post.accept(wanted)
        for _ in range(3):
            await post.accept(wanted, client=Client(login="alice@example.org"))
        await host.until(lambda: len(host.messages) == 8)
        await post.settled()
        reports = await post.reports(blobs, 5)
        assert {fields(report)[1]["Action"] for report in reports} == {"relayed"}


async def test_kill_9_in_the_middle_loses_nothing(post: Post) -> None:
    soon = {"PAQUEBOT_NATS_ACK_WAIT": "2s"}
    async with post.host({"MESSAGE": SILENT}) as host:
        await post.accept("a@example.net", "b@example.net")
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("paquebot"), "relay", env={**os.environ, **post.environ, **soon}
        )
        try:
            await host.until(lambda: "DATA" in host.all_commands, 30.0)
        finally:
            process.kill()
            await process.wait()
        host.on.clear()
        async with post.relay(**soon):
            # The queue delivers the job again after the acknowledgement wait without a heartbeat.
            await post.until_outcomes({"a": RecipientOutcome.RELAYED, "b": RecipientOutcome.RELAYED}, 60.0)
            await post.settled()
        assert [len(message.rcpt) for message in host.messages] == [2]


async def test_a_job_that_cannot_be_parked_is_stored_for_later(post: Post) -> None:
    """The consumer keeps a limited number of jobs for later; the relay puts the others back into the stream."""
    settings = {
        "PAQUEBOT_RELAY_PARKED": "0",
        "PAQUEBOT_RELAY_DESTINATION_CONCURRENCY": "1",
        "PAQUEBOT_RELAY_DESTINATION_WAITING": "1",
    }
    async with post.host({"RCPT": SILENT}):
        for name in ("a", "b", "c", "d"):
            await post.accept(f"{name}@example.net")
        async with post.relay(**settings, PAQUEBOT_DRAIN="4s"):

            async def scheduled() -> bool:
                return (await stream.counts(post.queue)).total("relay.later.") >= 2

            await eventually(scheduled, "jobs put back for later")
            jobs = [RelayJob.FromString(job.payload) async for job in stream.jobs(post.queue, "relay.later.*")]
            assert {job.attempt for job in jobs} == {0}


async def test_an_outage_of_an_engine_is_no_attempt_of_the_job(post: Post, blobs: BlobStore) -> None:
    """A job that was claimed many times during an outage of PostgreSQL still has all its attempts."""
    await post.accept("a@example.net")
    [stored] = [job async for job in stream.jobs(post.queue, "relay.>")]
    consumer = Consumer(post.queue, "relay", RELAY)
    for _ in range(5):
        [job] = await consumer.fetch(1, 5.0)
        await job.nak()
    await consumer.close()
    await blobs.delete([info.pack async for info in blobs.list_packs()])
    async with post.host(), post.relay(PAQUEBOT_RELAY_TRIES="2"):
        again = await post.later()
        assert (again.failures, again.attempt) == (1, 0)

        async def is_held() -> bool:
            return (await stream.counts(post.queue)).total("hold.blob.") == 1

        await eventually(is_held, "held after the second try")
    assert stored.payload
