"""Recordings over a real NATS: orders expire, lines that cannot be sent are counted, and no session waits."""

from __future__ import annotations

import asyncio

import pytest

from paquebot.directory.errors import InvalidValue
from paquebot.queue import Queue, QueueUnavailable
from paquebot.recipient_validation.recording import record
from paquebot.rpc.recordings import ORDER_SECONDS, ORDERS, Recordings, TranscriptRecorder, order
from paquebot.runtime.engine_settings import NatsSettings
from paquebot.runtime.settings import Seconds
from paquebot.v1.directory_pb2 import TranscriptLine
from paquebot.wire.transcript import SmtpTranscriptFilter
from tests.support.manual_clock import ManualClock

ACCOUNT = 7
SECONDS = 60.0


async def ordered(recordings: Recordings, recording_id: str) -> None:
    """Wait until the order has arrived."""
    async with asyncio.timeout(SECONDS):
        while recordings.recording_of(ACCOUNT) != recording_id:
            await asyncio.sleep(0)


async def test_a_session_is_recorded_from_its_next_command_to_the_end_of_the_order(queue: Queue) -> None:
    clock = ManualClock()
    recordings = Recordings(queue, "smtp", clock=clock)
    await recordings.listen()
    recorder = TranscriptRecorder(recordings, ACCOUNT, "192.0.2.1", SmtpTranscriptFilter)
    other = TranscriptRecorder(recordings, ACCOUNT + 1, "192.0.2.1", SmtpTranscriptFilter)
    assert recorder.look() is None
    await queue.send(ORDERS, order("01R", ACCOUNT, ORDER_SECONDS))
    await ordered(recordings, "01R")
    assert recorder.transcript is None
    assert recorder.look() is recorder.look() is not None
    assert other.look() is None
    clock.now += ORDER_SECONDS + 1
    assert recorder.look() is None


async def test_only_its_own_recording_ends_an_order(queue: Queue) -> None:
    recordings = Recordings(queue, "imap")
    await recordings.listen()
    for words in (b"", b"01R 7", b"01R seven 9", b"\xff 7 9", b"0-1 7 9"):
        await queue.send(ORDERS, words)
    await queue.send(ORDERS, order("01R", ACCOUNT, ORDER_SECONDS))
    await ordered(recordings, "01R")
    await queue.send(ORDERS, order("01S", ACCOUNT, 0))
    await queue.send(ORDERS, order("01S", ACCOUNT, ORDER_SECONDS))
    await queue.send(ORDERS, order("01T", ACCOUNT + 1, ORDER_SECONDS))
    async with asyncio.timeout(SECONDS):
        while not recordings.recording_of(ACCOUNT + 1):
            await asyncio.sleep(0)
    assert recordings.recording_of(ACCOUNT) == "01R"
    await queue.send(ORDERS, order("01R", ACCOUNT, 0))
    await ordered(recordings, "")


async def test_the_recorder_gets_the_lines_of_sessions(queue: Queue) -> None:
    recordings = Recordings(queue, "smtp")
    await recordings.listen()
    sender = asyncio.ensure_future(recordings.run())
    lines = record(queue, ACCOUNT, 60)
    begun = await anext(lines)
    assert begun.WhichOneof("what") is None
    await ordered(recordings, begun.recording_id)
    recorder = TranscriptRecorder(recordings, ACCOUNT, "192.0.2.1", SmtpTranscriptFilter)
    transcript = recorder.look()
    assert transcript is not None
    transcript.from_client(transcript.filter.client_line(b"NOOP\r\n"))
    transcript.from_server(b"250 2.0.0 Ok\r\n")
    recorder.end()
    async with asyncio.timeout(SECONDS):
        found = [await anext(lines) for _ in range(4)]
    assert [line.WhichOneof("what") for line in found] == ["begun", "client", "server", "ended"]
    assert (found[0].begun.client, found[1].client, found[2].server) == ("192.0.2.1", b"NOOP", b"250 2.0.0 Ok")
    await lines.aclose()
    await ordered(recordings, "")
    sender.cancel()


async def test_unread_lines_are_limited_and_counted(queue: Queue) -> None:
    recordings = Recordings(queue, "smtp")
    await recordings.listen()
    recordings.publish(TranscriptLine(recording_id="01R", client=b"before the first order"))
    await queue.send(ORDERS, order("01R", ACCOUNT, ORDER_SECONDS))
    await ordered(recordings, "01R")
    for _ in range(100):
        recordings.publish(TranscriptLine(recording_id="01R", client=b"x" * 60_000))
    sender: asyncio.Queue[TranscriptLine] = asyncio.Queue()
    await queue.subscribe(
        "transcript.line.*", lambda message: sender.put_nowait(TranscriptLine.FromString(message.data))
    )
    running = asyncio.ensure_future(recordings.run())
    async with asyncio.timeout(SECONDS):
        kept = [await sender.get() for _ in range(2 * 2**20 // 60_200)]
        recordings.publish(TranscriptLine(recording_id="01R", ended=True))
        lost, ended = await sender.get(), await sender.get()
    assert {line.client for line in kept} == {b"x" * 60_000}
    assert lost.lost == 100 - len(kept)
    assert ended.ended
    running.cancel()


@pytest.mark.parametrize("seconds", [0, -1, 24 * 3600 + 1])
async def test_a_recording_is_limited(queue: Queue, seconds: int) -> None:
    with pytest.raises(InvalidValue):
        await anext(record(queue, ACCOUNT, seconds))


async def test_nothing_is_recorded_while_nats_is_away() -> None:
    away = Queue.begin(NatsSettings(url=("nats://127.0.0.1:9",), timeout=Seconds(1.0)), "tests")
    with pytest.raises(QueueUnavailable):
        await anext(record(away, ACCOUNT, 60))
    await away.close()
