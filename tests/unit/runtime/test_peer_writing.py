"""Writes to a peer that does not read, or reads slowly, and the waits of its session."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from paquebot.cli.up.certificate import ensure_certificate
from paquebot.runtime.net.connection import SLICE, ClientConnection, PeerGone
from paquebot.runtime.net.sockets import bound
from paquebot.runtime.net.write_allowance import WriteAllowance
from paquebot.runtime.settings import Listen
from tests.dialogues.dialogue import client_tls

_LONG = 45_000_000


class Peer(ClientConnection):
    def __init__(self, write_timeout: float) -> None:
        super().__init__(write_timeout=write_timeout, read_high=1024)
        self.stuck = asyncio.Event()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.stuck.set()


@contextlib.asynccontextmanager
async def pair(
    directory: Path, *, tls: bool, write_timeout: float
) -> AsyncIterator[tuple[Peer, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection as the servers have it, and its peer, which reads only when the test does."""
    ensure_certificate(directory / "c.pem", directory / "k.pem", ("localhost",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "c.pem", directory / "k.pem")
    with bound(Listen("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        client = asyncio.create_task(
            asyncio.open_connection("127.0.0.1", port, ssl=client_tls() if tls else None, limit=SLICE)
        )
        accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
    peer = Peer(write_timeout)
    await asyncio.get_running_loop().connect_accepted_socket(lambda: peer, accepted, ssl=context if tls else None)
    reader, writer = await client
    try:
        yield peer, reader, writer
    finally:
        peer.abort()
        writer.transport.abort()


@pytest.mark.parametrize("tls", [True, False])
async def test_little_is_written_to_a_peer_that_does_not_read(tmp_path: Path, tls: bool) -> None:
    """Without the limit the TLS transport took all data at once, and neither a wait nor a deadline began."""
    async with pair(tmp_path, tls=tls, write_timeout=600.0) as (peer, reader, _):
        sending = asyncio.create_task(peer.send(bytes(_LONG)))
        await asyncio.wait_for(peer.stuck.wait(), 30)
        assert not sending.done()
        assert peer.sent < _LONG // 4  # the kernel's buffers of both ends, and three slices
        assert await asyncio.wait_for(reader.readexactly(_LONG), 60) == bytes(_LONG)
        await sending
        assert peer.sent == _LONG


@pytest.mark.parametrize("tls", [True, False])
async def test_a_peer_that_does_not_read_in_time_is_gone(tmp_path: Path, tls: bool) -> None:
    async with pair(tmp_path, tls=tls, write_timeout=0.1) as (peer, _, _):
        with pytest.raises(PeerGone):
            await asyncio.wait_for(peer.send(bytes(_LONG)), 60)
        assert peer.gone


async def test_the_end_does_not_wait_for_a_peer_that_does_not_read(tmp_path: Path) -> None:
    async with pair(tmp_path, tls=False, write_timeout=0.1) as (peer, _, _):
        sending = asyncio.create_task(peer.send(bytes(_LONG)))
        await asyncio.wait_for(peer.stuck.wait(), 30)
        peer.close()
        with pytest.raises(PeerGone):
            await asyncio.wait_for(sending, 60)
        async with asyncio.timeout(60):
            while not peer.ended:  # a lost socket ends with `connection_lost`
                await asyncio.sleep(0)


def test_reading_compensates_for_pauses() -> None:
    patience = WriteAllowance(60.0, 8192)
    patience.waited(50.0)
    assert patience.seconds == 10.0
    patience.wrote(80 * 1024)
    assert patience.seconds == 20.0
    patience.wrote(10**9)
    assert patience.seconds == 60.0


@pytest.mark.parametrize(("rate", "whole"), [(1.0, False), (7_000.0, False), (9_000.0, True), (10**6, True)])
def test_a_peer_below_the_minimum_rate_is_disconnected(rate: float, whole: bool) -> None:
    """However it distributes its pauses: here it reads a slice and waits as long as the rate allows, repeatedly."""
    patience = WriteAllowance(60.0, 8192)
    slices = -(-_LONG // SLICE)
    taken = 0
    for _ in range(slices):
        patience.wrote(SLICE)
        pause = SLICE / rate
        if pause > patience.seconds:
            break
        patience.waited(pause)
        taken += 1
    assert (taken == slices) is whole
    assert taken * SLICE < 5_000_000 or whole


@pytest.mark.parametrize("seconds", [(0.05, 600.0, 300.0), (600.0, 0.05, 300.0)])
async def test_the_earliest_end_that_was_set_is_kept(tmp_path: Path, seconds: tuple[float, ...]) -> None:
    """A client over its share is displaced again with all that it still sends: that must not put off its end."""
    async with pair(tmp_path, tls=False, write_timeout=600.0) as (peer, reader, _):
        for one in seconds:
            peer.abort_after(one)
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        assert peer.gone
