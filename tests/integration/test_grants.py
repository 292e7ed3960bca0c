"""The rights of each service's login at the bundled NATS and S3: what the service's code needs, and no more."""

from __future__ import annotations

import asyncio
import io
import shutil
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import nats
import pytest
from minio.error import S3Error

from paquebot.blobs import BlobStore, BlobsUnavailable
from paquebot.cli.engines.engine import start_engine
from paquebot.cli.engines.grants import NATS_USERS, S3_USERS, nats_access, s3_access
from paquebot.cli.engines.nats import NatsEngine
from paquebot.cli.engines.s3 import S3Engine
from paquebot.queue import Consumer, Publication, Queue, stream
from paquebot.queue.hints import DirectoryHint
from paquebot.queue.observation import observe
from paquebot.queue.stream import ensure_stream
from paquebot.queue.subjects import DELIVER, RELAY
from paquebot.runtime.engine_settings import NatsSettings, S3Settings
from paquebot.runtime.settings import Seconds, Secret
from paquebot.runtime.ulid import new_ulid
from tests.support.loopback import EngineSet, engine_set

DELIVER_JOB = Publication("deliver.ready.example_org", b"job")
RELAY_JOB = Publication("relay.ready.example_net", b"job")
LATER_JOB = replace(RELAY_JOB, later_subject="relay.later.1", at=time.time() + 3600)
HELD_JOB = Publication("hold.poison.1", b"job")
SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Granted:
    """Engines where each service has its own login."""

    nats: NatsEngine
    s3: S3Engine

    async def queue(self, user: str) -> Queue:
        settings = NatsSettings(
            url=(self.nats.url,), user=user, password=Secret(f"nats of {user}"), timeout=Seconds(SECONDS)
        )
        return await Queue.open(settings, user)

    def blobs(self, user: str) -> BlobStore:
        return BlobStore(
            S3Settings(
                endpoint=f"http://{self.s3.endpoint}",
                bucket=self.s3.bucket,
                access_key=f"key-{user}",
                secret_key=Secret(f"secret-of-{user}"),
                timeout=Seconds(SECONDS),
            )
        )


@pytest.fixture(scope="module")
async def granted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Granted]:
    directory = tmp_path_factory.mktemp("granted")
    plain: EngineSet = engine_set(directory)
    logins = tuple(nats_access(user, f"nats of {user}") for user in NATS_USERS)
    keys = tuple(s3_access(user, f"key-{user}", f"secret-of-{user}", plain.s3.bucket) for user in S3_USERS)
    engines = Granted(
        replace(plain.nats, accesses=(*plain.nats.accesses, *logins)),
        replace(plain.s3, accesses=(*plain.s3.accesses, *keys)),
    )
    async with asyncio.TaskGroup() as group:
        starts = [group.create_task(start_engine(engine, directory / "log")) for engine in (engines.nats, engines.s3)]
    yield engines
    for start in starts:
        await start.result().kill()
    shutil.rmtree(directory)
    for socket in engines.s3.stray_sockets():
        socket.unlink(missing_ok=True)


@pytest.fixture
async def opened(granted: Granted) -> AsyncIterator[Callable[[str], Queue]]:
    """A queue for each user, on a stream that `migrate` made."""
    queues = {user: await granted.queue(user) for user in NATS_USERS}
    await ensure_stream(queues["migrate"])
    yield queues.__getitem__
    await asyncio.gather(*(queue.close() for queue in queues.values()))


async def test_a_round_trip_with_each_services_own_login(opened: Callable[[str], Queue]) -> None:
    await ensure_stream(opened("migrate"))  # once more: an upgrade
    await opened("smtp_ingress").publish([DELIVER_JOB, RELAY_JOB])
    await opened("smtp_ingress").probe()

    received = asyncio.Event()
    await opened("imap").subscribe_mailbox(7, lambda _: received.set())
    for user, subject in (("delivery", DELIVER), ("relay", RELAY)):
        queue = opened(user)
        consumer = Consumer(queue, user, subject)
        [job] = await consumer.fetch(1, SECONDS)
        await job.in_progress()
        await observe(queue)
        await queue.publish([replace(LATER_JOB, later_subject=f"{user.replace('delivery', 'deliver')}.later.1")])
        await queue.publish([HELD_JOB])
        await job.ack()
        await consumer.close()
    await opened("relay").publish([DELIVER_JOB])  # a notification to a local account
    await opened("delivery").publish([RELAY_JOB])  # an alias with a remote target

    for user in ("delivery", "pop3", "imap"):
        received.clear()
        await opened(user).hint_mailbox(7)
        await asyncio.wait_for(received.wait(), SECONDS)

    hints: asyncio.Queue[DirectoryHint] = asyncio.Queue()
    for user in ("smtp_ingress", "imap", "pop3"):
        await opened(user).subscribe_directory(hints.put_nowait)
    await opened("recipient_validation").hint_directory((7,), "enabled")
    for _ in range(3):
        assert await asyncio.wait_for(hints.get(), SECONDS) == DirectoryHint(frozenset((7,)), "enabled")

    janitor = opened("janitor")
    waiting = [stored async for stored in stream.jobs(janitor)]
    assert sorted(stored.subject for stored in waiting) == [
        "deliver.later.1",
        "deliver.ready.example_org",
        "hold.poison.1",
        "hold.poison.1",
        "relay.later.1",
        "relay.ready.example_net",
    ]
    held = next(stored for stored in waiting if stored.subject == "hold.poison.1")
    await stream.move(janitor, held, DELIVER_JOB)
    for left in [stored async for stored in stream.jobs(janitor)]:
        assert await stream.delete(janitor, left.sequence)
    assert (await stream.counts(janitor)).total() == 0


_STREAM = ("$JS.API.STREAM.MSG.GET.MAIL", "$JS.API.STREAM.PURGE.MAIL")
FORBIDDEN_TO_PUBLISH = {
    "smtp_ingress": ("hold.x.y", "relay.later.x", "hint.directory", "$JS.API.STREAM.MSG.GET.MAIL", "$JS.ACK.MAIL.x.1"),
    "recipient_validation": ("deliver.ready.x", "hint.mailbox.1", "$JS.API.STREAM.INFO.MAIL", "hint.directory.x"),
    "delivery": ("relay.later.x", "$JS.API.CONSUMER.MSG.NEXT.MAIL.relay", "$JS.API.STREAM.DELETE.MAIL"),
    "relay": ("deliver.later.x", "hint.mailbox.1", "hint.directory", "$JS.API.CONSUMER.MSG.NEXT.MAIL.delivery"),
    "imap": (
        "hint.directory",
        "deliver.ready.x",
        "relay.ready.x",
        "$JS.API.STREAM.MSG.GET.MAIL",
        "$JS.API.STREAM.PURGE.MAIL",
    ),
    "pop3": (
        "hint.directory",
        "deliver.ready.x",
        "relay.ready.x",
        "$JS.API.STREAM.MSG.GET.MAIL",
        "$JS.API.STREAM.PURGE.MAIL",
    ),
    "janitor": ("hint.mailbox.1", "$JS.API.CONSUMER.DELETE.MAIL.relay", "$JS.API.CONSUMER.CREATE.MAIL.x"),
    "migrate": ("deliver.ready.x", "relay.ready.x", "hold.x.y", "$JS.API.CONSUMER.DELETE.MAIL.relay"),
}


def test_every_login_has_its_limits_tried() -> None:
    assert set(FORBIDDEN_TO_PUBLISH) == set(NATS_USERS)


@pytest.mark.parametrize("user", NATS_USERS)
async def test_no_login_publishes_or_receives_more(granted: Granted, user: str) -> None:
    refusals: asyncio.Queue[str] = asyncio.Queue()

    async def note(error: Exception) -> None:
        await refusals.put(str(error).lower())

    client = await nats.connect(granted.nats.url, user=user, password=f"nats of {user}", error_cb=note)
    others = [f"_INBOX.{other}.>" for other in NATS_USERS if other != user]
    try:
        for subject in FORBIDDEN_TO_PUBLISH[user]:
            await client.publish(subject, b"")
            refused = await asyncio.wait_for(refusals.get(), SECONDS)
            assert f'permissions violation for publish to "{subject.lower()}"' in refused
        for subject in (">", "_INBOX.>", "deliver.ready.>", *others):
            await client.subscribe(subject)
            refused = await asyncio.wait_for(refusals.get(), SECONDS)
            assert f'permissions violation for subscription to "{subject.lower()}"' in refused
    finally:
        await client.close()


WRITES = {"smtp_ingress", "delivery", "relay", "imap", "janitor"}
READS = {"delivery", "relay", "imap", "pop3", "janitor"}


@pytest.mark.parametrize("user", S3_USERS)
async def test_each_key_reads_and_writes_packs_only_where_its_service_does(granted: Granted, user: str) -> None:
    operator = granted.s3.client()
    key, pack = "packs/2026/01/01/", new_ulid()
    operator.put_object(granted.s3.bucket, key + pack, io.BytesIO(b"object"), 6)
    blobs = granted.blobs(user)
    try:
        await blobs.probe()  # every service must be able to check that the bucket exists
        assert pack in [info.pack async for info in blobs.list_packs()]
        writing = blobs.put(new_ulid(), b"object")
        deleting = blobs.delete([new_ulid()])
        if user in WRITES:
            await writing
            await deleting
        else:
            for refused in (writing, deleting):
                with pytest.raises(BlobsUnavailable, match="AccessDenied"):
                    await refused
        client = blobs._bucket._client
        if user in READS:
            assert client.get_object(granted.s3.bucket, key + pack).read() == b"object"
        else:
            with pytest.raises(S3Error, match="AccessDenied"):
                client.get_object(granted.s3.bucket, key + pack)
        with pytest.raises(S3Error, match="AccessDenied"):
            client.make_bucket(f"of-{user}".replace("_", "-"))
        with pytest.raises(S3Error, match="AccessDenied"):
            client.remove_bucket(granted.s3.bucket)
    finally:
        await blobs.close()


async def test_migrate_finds_the_bucket_with_a_key_that_may_only_list(granted: Granted) -> None:
    blobs = granted.blobs("migrate")
    try:
        await blobs.make_bucket()
    finally:
        await blobs.close()
