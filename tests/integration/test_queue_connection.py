"""The connection to NATS: it is made in the background, replaced whatever ended it, and hints arrive on each one."""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from paquebot.cli.engines.engine import start_engine
from paquebot.cli.engines.nats import MAX_PAYLOAD, NatsAccess, NatsEngine
from paquebot.cli.engines.process import ManagedProcess
from paquebot.queue import ClaimedJob, Consumer, Publication, Queue, QueueRefused, QueueUnavailable, stream
from paquebot.queue.errors import NO_MESSAGE
from paquebot.queue.stream import ensure_stream
from paquebot.queue.subjects import DELIVER, RELAY
from paquebot.runtime.engine_settings import NatsSettings
from paquebot.runtime.settings import Seconds, Secret
from tests.support.counted import errors, value
from tests.support.loopback import engine_set

SECONDS = 60.0
JOB = Publication("deliver.ready.example", b"job")


class PrivateNats:
    """A nats-server of one test, which can be killed and restarted on the same port and data."""

    def __init__(self, directory: Path) -> None:
        self.engine: NatsEngine = engine_set(directory).nats
        self._log_dir = directory / "log"
        self._process: ManagedProcess | None = None

    @property
    def process(self) -> ManagedProcess:
        assert self._process is not None
        return self._process

    def settings(self) -> NatsSettings:
        login = self.engine.accesses[0]
        password = Secret(login.password)
        return NatsSettings(url=(self.engine.url,), user=login.name, password=password, timeout=Seconds(2.0))

    async def start(self, engine: NatsEngine | None = None) -> None:
        self._process = await start_engine(engine or self.engine, self._log_dir)

    async def kill(self) -> None:
        if self._process is not None:
            await self._process.kill()

    async def reload(self, engine: NatsEngine) -> None:
        """Let the running server read another configuration."""
        await engine.prepare()
        self.process.send(signal.SIGHUP)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[PrivateNats]:
    server = PrivateNats(tmp_path)
    yield server
    await server.kill()
    shutil.rmtree(tmp_path)


@pytest.fixture
async def opened(server: PrivateNats) -> AsyncIterator[Queue]:
    """A queue on the private server, with its stream."""
    await server.start()
    queue = await Queue.open(server.settings(), "tests")
    await ensure_stream(queue)
    yield queue
    await queue.close()


async def works(call: Callable[[], Awaitable[object]]) -> None:
    """Wait until `call` succeeds."""
    async with asyncio.timeout(SECONDS):
        while True:
            with contextlib.suppress(QueueUnavailable):
                await call()
                return
            await asyncio.sleep(0.02)


async def fails(call: Callable[[], Awaitable[object]]) -> None:
    """Wait until `call` raises QueueUnavailable."""
    async with asyncio.timeout(SECONDS):
        with contextlib.suppress(QueueUnavailable):
            while True:
                await call()
                await asyncio.sleep(0.02)


async def fetch_one(consumer: Consumer) -> bytes:
    """Fetch and acknowledge the next job, despite failed fetches before; return its payload."""
    found: list[bytes] = []

    async def fetch() -> None:
        for job in await consumer.fetch(1, 1.0):
            found.append(job.payload)
            await job.ack()
        if not found:
            raise QueueUnavailable("no job yet")

    await works(fetch)
    return found[0]


async def hint_received(sender: Queue, receiver: asyncio.Queue[int], account_id: int) -> None:
    """Send hints until one arrives: one may be lost while the receiver connects."""

    async def hint() -> None:
        await sender.hint_mailbox(account_id)
        try:
            async with asyncio.timeout(0.5):
                assert await receiver.get() == account_id
        except TimeoutError:
            raise QueueUnavailable("no hint received") from None

    await works(hint)


@pytest.mark.parametrize("name", ["mail.paquebot", "two words", "all.*", "a..b"])
async def test_login_of_any_name(server: PrivateNats, name: str) -> None:
    """A login's name may have characters that a subject may not have."""
    server.engine = replace(server.engine, accesses=(NatsAccess(name, "secret"),))
    await server.start()
    queue = await Queue.open(server.settings(), "tests")
    try:
        await works(lambda: ensure_stream(queue))
    finally:
        await queue.close()


async def test_all_works_again_after_nats_was_killed(server: PrivateNats, opened: Queue) -> None:
    consumer = Consumer(opened, "delivery", DELIVER)
    await opened.publish([JOB])
    assert await fetch_one(consumer) == b"job"
    received: asyncio.Queue[int] = asyncio.Queue()
    await opened.subscribe_mailbox(42, received.put_nowait)
    waiting = asyncio.ensure_future(consumer.fetch(1, 60.0))  # a fetch is under way when the server dies

    assert value("paquebot_nats_connected") == 1
    lost = value("paquebot_nats_connections_total", result="lost") or 0.0
    await server.kill()
    with pytest.raises(QueueUnavailable):
        await waiting
    await fails(opened.probe)
    assert value("paquebot_nats_connected") == 0
    assert value("paquebot_nats_connections_total", result="lost") == lost + 1
    with pytest.raises(QueueUnavailable):
        await opened.publish([JOB])
    await opened.hint_mailbox(42)  # never raises
    await server.start()

    await works(lambda: opened.publish([replace(JOB, payload=b"again"), JOB]))
    assert value("paquebot_nats_connected") == 1
    assert await fetch_one(consumer) == b"again"
    await hint_received(opened, received, 42)
    await consumer.close()


async def test_without_a_connection_a_publish_is_refused(server: PrivateNats, opened: Queue) -> None:
    await server.kill()
    async with asyncio.timeout(SECONDS):
        while opened.connection._client.is_connected:
            await asyncio.sleep(0.02)
    with pytest.raises(QueueRefused, match="not connected"):
        await opened.publish([JOB])


async def test_a_fetch_ends_with_its_connection(server: PrivateNats, opened: Queue) -> None:
    """Otherwise the consumer would wait for an impossible answer, long after NATS is back."""
    consumer = Consumer(opened, "delivery", DELIVER)
    assert await consumer.fetch(1, 0.1) == []
    waiting = asyncio.ensure_future(consumer.fetch(1, 300.0))
    await asyncio.wait((waiting,), timeout=0.1)  # the pull is under way
    await server.kill()
    with pytest.raises(QueueUnavailable):
        await asyncio.wait_for(waiting, SECONDS)
    await server.start()
    await works(lambda: opened.publish([JOB]))
    assert await fetch_one(consumer) == b"job"
    await consumer.close()


async def test_a_job_of_a_lost_store_acknowledges_no_new_job(server: PrivateNats, opened: Queue) -> None:
    """A server without its store counts from 1 again: the old job's acknowledgement would remove the new job."""
    consumer = Consumer(opened, "delivery", DELIVER)
    await opened.publish([JOB])
    [lost] = await consumer.fetch(1, SECONDS)
    await server.kill()
    shutil.rmtree(server.engine.data_dir / "jetstream")
    await server.start()
    await works(lambda: ensure_stream(opened))
    await opened.publish([Publication(JOB.subject, b"another")])
    found: list[ClaimedJob] = []

    async def fetch() -> None:
        found.extend(await consumer.fetch(1, 1.0))
        if not found:
            raise QueueUnavailable("no job yet")

    await works(fetch)
    assert (found[0].sequence, found[0].payload) == (lost.sequence, b"another")
    for acknowledge in (lost.ack, lost.ack_soon):
        with pytest.raises(QueueUnavailable):
            await acknowledge()
    assert (await stream.counts(opened)).total() == 1
    await found[0].ack()
    assert (await stream.counts(opened)).total() == 0
    await consumer.close()


async def test_a_damaged_description_of_the_stream_is_repaired(server: PrivateNats, opened: Queue) -> None:
    await opened.publish([JOB])
    await server.kill()
    [description] = (server.engine.data_dir / "jetstream").rglob("meta.inf")
    data = bytearray(description.read_bytes())
    data[len(data) // 2] ^= 0xFF
    description.write_bytes(data)
    await server.start()
    await works(lambda: opened.api("INFO"))
    with pytest.raises(QueueRefused, match="stream not found"):
        await stream.counts(opened)
    await ensure_stream(opened)
    assert (await stream.counts(opened)).total() == 1, "its messages were not lost"
    await server.kill()
    await server.start()
    await works(lambda: opened.api("INFO"))
    assert (await stream.counts(opened)).total() == 1


async def test_nats_may_start_after_its_clients(server: PrivateNats, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "paquebot.queue")
    settings = replace(server.settings(), timeout=Seconds(0.5))
    queue = await Queue.open(settings, "early")
    assert [record.msg for record in caplog.records] == ["nats_unavailable"]
    received: asyncio.Queue[int] = asyncio.Queue()
    await queue.subscribe_mailbox(7, received.put_nowait)
    with pytest.raises(QueueUnavailable):
        await queue.publish([JOB])
    await server.start()
    await works(lambda: ensure_stream(queue))
    await queue.publish([JOB])
    await hint_received(queue, received, 7)
    await queue.close()
    assert [record.msg for record in caplog.records] == ["nats_unavailable", "nats_connected"]


async def test_a_login_refused_for_a_while_works_again(server: PrivateNats, opened: Queue) -> None:
    """The server closes such a connection with -ERR, after which a client of the library stays closed."""
    received: asyncio.Queue[int] = asyncio.Queue()
    await opened.subscribe_mailbox(42, received.put_nowait)
    changed = replace(server.engine, accesses=(NatsAccess("test", "another-secret"),))
    await server.reload(changed)
    await fails(opened.probe)
    await server.reload(server.engine)
    await works(opened.probe)
    await works(lambda: opened.publish([JOB]))
    await hint_received(opened, received, 42)


async def test_a_protocol_error_is_survived(opened: Queue) -> None:
    """A subject that the server cannot parse: it answers -ERR and closes."""
    client = opened.client
    await client._send_command(b"NONSENSE\r\n")
    await client._flush_pending()
    async with asyncio.timeout(SECONDS):
        while client.is_connected:
            await asyncio.sleep(0.02)
    await works(opened.probe)
    assert opened.client is not client


async def test_many_subscribers_share_one_subscription(server: PrivateNats, opened: Queue) -> None:
    other = await Queue.open(server.settings(), "other")
    received: list[int] = []
    last = asyncio.Event()
    await asyncio.gather(*(other.subscribe_mailbox(account, received.append) for account in range(1, 20)))
    await other.subscribe_mailbox(99, lambda _: last.set())
    for account in (*range(1, 20), 99):  # each gets one hint, immediately: the server knows the subscribers by now
        await opened.hint_mailbox(account)
    async with asyncio.timeout(SECONDS):
        await last.wait()
    assert received == list(range(1, 20))
    await other.close()


async def test_one_message_hints_many_subscribers(server: PrivateNats, opened: Queue) -> None:
    other = await Queue.open(server.settings(), "other")
    received: list[tuple[int, str, bytes]] = []
    last = asyncio.Event()
    for account_id in (1, 2, 3):
        await other.subscribe_mailbox(
            account_id, lambda account: received.append((account, other.hint_trace, other.hint_source))
        )
    await other.subscribe_mailbox(99, lambda _: last.set())
    await opened.hint_mailboxes({1: "", 2: "trace of 2", 4: "", 3: ""})
    await opened.hint_mailboxes({3: ""}, source=b"us")
    await opened.hint_mailboxes({1: "", 2: ""}, source=b"us")
    await opened.hint_mailbox(99)
    async with asyncio.timeout(SECONDS):
        await last.wait()
    plain, named = (
        [(1, "", b""), (2, "trace of 2", b""), (3, "", b"")],
        [(1, "", b"us"), (2, "", b"us"), (3, "", b"us")],
    )
    assert sorted(received) == sorted(plain + named)
    await other.close()


async def test_unsubscribed_callbacks_are_not_called(server: PrivateNats, opened: Queue) -> None:
    received: list[int] = []
    last = asyncio.Event()
    await opened.subscribe_mailbox(1, received.append)
    await opened.subscribe_mailbox(2, lambda _: last.set())
    opened.unsubscribe_mailbox(1, received.append)
    await opened.hint_mailbox(1)
    await opened.hint_mailbox(2)
    async with asyncio.timeout(SECONDS):
        await last.wait()
    assert received == []


async def test_closing_is_quick_while_nats_is_away(server: PrivateNats) -> None:
    queue = await Queue.open(replace(server.settings(), timeout=Seconds(0.1)), "never")
    async with asyncio.timeout(2):
        await queue.close()
    with pytest.raises(QueueUnavailable):
        _ = queue.client


async def test_refusals_have_their_code(opened: Queue) -> None:
    with pytest.raises(QueueRefused) as refused:
        await opened.api("STREAM.MSG.GET.MAIL", {"seq": 1})
    assert refused.value.code == NO_MESSAGE
    with pytest.raises(QueueRefused) as refused:
        await opened.publish([JOB] * 1001)
    assert refused.value.code == 0
    assert not await stream.delete(opened, 1)


async def test_no_message_is_an_answer_and_not_an_error_of_nats(opened: Queue) -> None:
    before = errors("nats", "api")
    assert await stream.job(opened, 1) is None
    assert [job async for job in stream.jobs(opened)] == []
    assert errors("nats", "api") == before
    with pytest.raises(QueueRefused):
        await opened.api("STREAM.INFO.NO_SUCH_STREAM")
    assert errors("nats", "api") == before + 1


async def test_a_schedule_is_never_early(opened: Queue) -> None:
    at = math.floor(time.time()) + 1000.25
    await opened.publish([Publication("relay.ready.example", b"", later_subject="relay.later.x", at=at)])
    (waiting,) = [job async for job in stream.jobs(opened)]
    expected = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(math.ceil(at)))
    assert waiting.scheduled_for == expected


async def test_a_job_too_large_for_the_server_is_refused_before_it_is_sent(opened: Queue) -> None:
    large = Publication("deliver.ready.example", bytes(MAX_PAYLOAD + 1))
    for publications in ([large], [JOB, large], [large, JOB]):
        with pytest.raises(QueueRefused):
            await opened.publish(publications)
    assert (await stream.counts(opened)).by_subject == {}


async def test_a_consumer_whose_file_is_damaged_is_kept_in_memory(server: PrivateNats, opened: Queue) -> None:
    """The server drops a consumer whose files it cannot read, and then refuses for ever to create one of that name."""
    consumer = Consumer(opened, "delivery", DELIVER)
    await opened.publish([JOB])
    assert await fetch_one(consumer) == b"job"
    await opened.publish([JOB])
    await server.kill()
    for file in (server.engine.data_dir / "jetstream").rglob("obs/delivery/*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    for _ in range(2):  # a consumer in memory is created anew, whatever the server has lost
        await server.start()
        assert await fetch_one(consumer) == b"job"
        await works(lambda: opened.publish([JOB]))
        await server.kill()
    await server.start()
    assert await fetch_one(Consumer(opened, "delivery", DELIVER)) == b"job"


LOST = Publication("relay.ready.example", b"lost")
RELAYED = Publication("relay.ready.example", b"relay")


async def take(consumer: Consumer, number: int) -> list[ClaimedJob]:
    """Fetch `count` jobs, despite failed fetches before."""
    taken: list[ClaimedJob] = []

    async def fetch() -> None:
        taken.extend(await consumer.fetch(number - len(taken), 1.0))
        if len(taken) < number:
            raise QueueUnavailable("not all yet")

    await works(fetch)
    return taken


async def lose_newest(server: PrivateNats, queue: Queue) -> None:
    """Make the server lose its newest messages and keep the positions of its consumers, although their configuration is
    unreadable: of four jobs, `relay` had acknowledged two and claimed two."""
    relay = Consumer(queue, "relay", RELAY)
    await works(lambda: ensure_stream(queue))
    assert await relay.fetch(1, 0.01) == []
    await server.process.stop()
    [messages] = (server.engine.data_dir / "jetstream").rglob("msgs")
    shutil.copytree(messages, before := messages.with_name("before"))
    await server.start()
    await works(lambda: queue.publish([LOST] * 4))
    for job in (await take(relay, 4))[:2]:
        await job.ack()
    await relay.close()
    await server.process.stop()
    shutil.rmtree(messages)
    before.rename(messages)
    [description] = messages.parent.glob("obs/relay/meta.inf")
    description.write_bytes(description.read_bytes()[:40])
    await server.start()


async def test_a_consumer_ahead_of_the_stream_is_created_anew(server: PrivateNats, opened: Queue) -> None:
    """New jobs get the sequence numbers of the lost ones, so the consumer's records of those numbers are wrong."""
    await lose_newest(server, opened)
    delivery, relay = Consumer(opened, "delivery", DELIVER), Consumer(opened, "relay", RELAY)
    await works(lambda: relay.fetch(1, 0.01))
    await opened.publish([RELAYED, JOB, JOB, RELAYED])
    assert [await fetch_one(relay) for _ in range(2)] == [b"relay"] * 2
    assert [await fetch_one(delivery) for _ in range(2)] == [b"job"] * 2
    assert (await stream.counts(opened)).total() == 0


async def test_a_job_misrouted_is_rejected(server: PrivateNats, caplog: pytest.LogCaptureFixture) -> None:
    """The stream grew past the position of `relay` before the check, so `relay` gets sequence numbers of other jobs."""
    await server.start()
    queue = await Queue.open(replace(server.settings(), ack_wait=Seconds(0.5)), "tests")
    await lose_newest(server, queue)
    delivery, relay = Consumer(queue, "delivery", DELIVER), Consumer(queue, "relay", RELAY)
    await works(relay._info)
    assert (await relay._info())["delivered"]["stream_seq"] == 4
    await queue.publish([JOB] * 8)

    async def nothing() -> None:
        assert await relay.fetch(8, 1.0) == []

    with caplog.at_level("ERROR"):
        await fails(nothing)
    assert "job_misrouted" in caplog.messages
    await queue.publish([RELAYED])
    assert await fetch_one(relay) == b"relay"
    assert [await fetch_one(delivery) for _ in range(8)] == [b"job"] * 8
    assert (await stream.counts(queue)).total() == 0
    await queue.close()
