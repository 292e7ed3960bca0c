"""A client that pipelines and does not read gets no more replies, and loses its connection."""

import asyncio

import pytest

from paquebot.runtime.net.connection import PeerGone
from paquebot.smtp_ingress.connection import SmtpConnection
from paquebot.wire.smtp.replies import Reply

_REPLY = Reply(250, "2.0.0", "x" * 100)


class Wire(asyncio.Transport):
    """Accepts writes, and is full from `most` bytes on."""

    def __init__(self, protocol: SmtpConnection, most: int) -> None:
        super().__init__()
        self._protocol = protocol
        self._most = most
        self.written = 0
        self.aborted = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Ignore the limits: `most` applies."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += len(data)
        if self.written > self._most:
            self._protocol.pause_writing()

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


def connected(most: int) -> tuple[SmtpConnection, Wire]:
    connection = SmtpConnection(write_timeout=0.05)
    wire = Wire(connection, most)
    connection.connection_made(wire)
    return connection, wire


async def _answer_all(connection: SmtpConnection) -> None:
    for _ in range(2000):
        await connection.line(100, 1.0)
        connection.reply(_REPLY)


async def test_replies_to_a_long_group_do_not_wait_for_its_end() -> None:
    connection, wire = connected(most=10**9)
    connection.data_received(b"NOOP\r\n" * 2000)
    for number in range(2000):
        await connection.line(100, 1.0)
        connection.reply(_REPLY)
        assert number * len(_REPLY.encode()) - wire.written < 16 * 1024


async def test_a_client_that_does_not_read_loses_the_connection() -> None:
    connection, wire = connected(most=20_000)
    connection.data_received(b"NOOP\r\n" * 2000)
    with pytest.raises(PeerGone):
        await _answer_all(connection)
    assert wire.aborted
    assert wire.written < 40_000
