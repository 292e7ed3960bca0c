"""One timer for all waits of a connection."""

import asyncio
import gc
import weakref

import pytest

from paquebot.runtime.net.connection import ClientConnection, Deadline


class Peer(ClientConnection):
    """A connection whose wait a test can call."""

    def __init__(self) -> None:
        super().__init__(write_timeout=1.0, read_high=1024)

    async def wait(self, seconds: float) -> None:
        await self._more(seconds)


async def test_a_wait_ends_in_time_also_after_a_longer_and_a_shorter_one() -> None:
    peer = Peer()
    for seconds, came in ((30.0, True), (0.02, False), (0.0, False), (-1.0, False), (30.0, True), (0.02, False)):
        waiting = asyncio.create_task(peer.wait(seconds))
        await asyncio.sleep(0)
        if came:
            peer.data_received(b"x")
            await waiting
        else:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(waiting, 10)


async def test_a_timer_that_fires_too_early_is_set_again() -> None:
    loop = asyncio.get_running_loop()
    expired = loop.create_future()
    deadline = Deadline(loop, lambda: expired.set_result(loop.time()))
    start = loop.time()
    deadline.set(start + 0.01)
    deadline.set(start + 0.05)
    assert await expired >= start + 0.05


async def test_a_lost_connection_leaves_nothing_for_the_garbage_collector() -> None:
    peer = Peer()
    waiting = asyncio.create_task(peer.wait(30.0))
    await asyncio.sleep(0)
    peer.connection_lost(None)
    await waiting
    assert peer.ended
    await peer.wait(30.0)
    gone = weakref.ref(peer)
    gc.disable()
    try:
        del peer, waiting
        assert gone() is None
    finally:
        gc.enable()
