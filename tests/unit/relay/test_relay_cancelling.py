"""Cancelled loops end, even one that lost the first cancellation."""

import asyncio

import pytest

from paquebot.relay.queue import consumer
from paquebot.relay.queue.consumer import _end


async def deaf(times: int) -> None:
    """Swallow `count` cancellations, as `asyncio.wait_for` of Python 3.11 may."""
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            times -= 1
            if times < 0:
                raise


async def failing() -> None:
    raise OSError("gone")


@pytest.mark.parametrize("times", [0, 1, 3])
async def test_a_loop_that_loses_a_cancellation_ends(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "_CANCEL_AGAIN_SECONDS", 0.01)
    tasks = [asyncio.create_task(deaf(times)), asyncio.create_task(deaf(0))]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await _end(tasks)
    assert all(task.cancelled() for task in tasks)


async def test_a_failure_is_raised_when_all_have_ended() -> None:
    tasks = [asyncio.create_task(failing()), asyncio.create_task(deaf(0))]
    await asyncio.sleep(0)
    with pytest.raises(OSError, match="gone"):
        await _end(tasks)
    assert all(task.done() for task in tasks)
