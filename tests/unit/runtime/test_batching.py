"""Batches: requests that share a call, the order of the answers, and the callers that get a failure."""

import asyncio
from collections.abc import Sequence

import pytest

from paquebot.runtime.batching import Batcher


class Engine:
    """Doubles numbers. A call waits while the gate is closed; the engine refuses -1, and 0 makes the call fail."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def call(self, batch: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(batch))
        await self.gate.wait()
        if 0 in batch:
            raise ConnectionError
        return [ValueError("no") if number == -1 else number * 2 for number in batch]


async def test_concurrent_requests_share_a_call() -> None:
    engine = Engine()
    batcher = Batcher(engine.call, calls=1, limit=100)
    assert await asyncio.gather(*(batcher.ask(n) for n in (3, 1, 2))) == [6, 2, 4]
    assert engine.batches == [[3, 1, 2]]
    assert await batcher.ask(5) == 10


async def test_requests_during_a_call_share_the_next_call() -> None:
    engine = Engine()
    engine.gate.clear()
    batcher = Batcher(engine.call, calls=1, limit=2)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(batcher.ask(1))
        while not engine.batches:
            await asyncio.sleep(0)
        others = [group.create_task(batcher.ask(n)) for n in (2, 3, 4)]
        await asyncio.sleep(0)
        assert engine.batches == [[1]]
        engine.gate.set()
    assert [first.result(), *(task.result() for task in others)] == [2, 4, 6, 8]
    assert engine.batches == [[1], [2, 3], [4]]


async def test_several_concurrent_calls() -> None:
    engine = Engine()
    engine.gate.clear()
    batcher = Batcher(engine.call, calls=2, limit=1)
    async with asyncio.TaskGroup() as group:
        for number in (1, 2, 3):
            group.create_task(batcher.ask(number))
        while len(engine.batches) < 2:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert engine.batches == [[1], [2]]
        engine.gate.set()
    assert engine.batches == [[1], [2], [3]]


async def test_failures_reach_only_their_callers() -> None:
    batcher = Batcher(Engine().call, calls=1, limit=100)
    mixed = await asyncio.gather(*(batcher.ask(n) for n in (1, -1)), return_exceptions=True)
    assert mixed[0] == 2
    assert isinstance(mixed[1], ValueError)
    both = await asyncio.gather(*(batcher.ask(n) for n in (0, 1)), return_exceptions=True)
    assert [type(one) for one in both] == [ConnectionError, ConnectionError]


async def test_a_cancelled_caller_does_not_fail_the_others() -> None:
    engine = Engine()
    engine.gate.clear()
    batcher = Batcher(engine.call, calls=1, limit=100)
    cancelled, other = asyncio.create_task(batcher.ask(1)), asyncio.create_task(batcher.ask(2))
    while not engine.batches:
        await asyncio.sleep(0)
    cancelled.cancel()
    engine.gate.set()
    assert await other == 4
    with pytest.raises(asyncio.CancelledError):
        await cancelled


async def test_sizes_bound_a_batch_and_a_large_request_has_its_own() -> None:
    engine = Engine()
    engine.gate.clear()
    batcher = Batcher(engine.call, calls=1, limit=5, size=lambda number: number)
    async with asyncio.TaskGroup() as group:
        group.create_task(batcher.ask(1))
        while not engine.batches:
            await asyncio.sleep(0)
        for number in (2, 3, 9, 4):
            group.create_task(batcher.ask(number))
        await asyncio.sleep(0)
        engine.gate.set()
    assert engine.batches == [[1], [2, 3], [9], [4]]


async def test_a_failed_batch_is_retried_one_by_one_where_that_can_help() -> None:
    engine = Engine()
    batcher = Batcher(engine.call, calls=1, limit=100, retries_alone=lambda error: isinstance(error, ConnectionError))
    answers = await asyncio.gather(*(batcher.ask(n) for n in (1, 0, 2)), return_exceptions=True)
    assert answers[::2] == [2, 4]
    assert isinstance(answers[1], ConnectionError)
    assert engine.batches == [[1, 0, 2], [1], [0], [2]]
