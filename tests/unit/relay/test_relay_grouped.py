"""Grouped calls: who shares one, in what order answers come back, and how failures are told."""

import asyncio
from collections.abc import Sequence

import pytest

from paquebot.relay.queue.grouped import Grouped


class Engine:
    """Doubles numbers; a call may be kept waiting at the gate, and -1 is refused, 0 makes the call fail."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def call(self, group: Sequence[int]) -> list[int | Exception]:
        self.groups.append(list(group))
        await self.gate.wait()
        if 0 in group:
            raise ConnectionError
        return [ValueError("no") if number == -1 else number * 2 for number in group]


async def test_what_is_asked_together_shares_a_call() -> None:
    engine = Engine()
    grouped = Grouped(engine.call, calls=1, most=100)
    assert await asyncio.gather(*(grouped.ask(n) for n in (3, 1, 2))) == [6, 2, 4]
    assert engine.groups == [[3, 1, 2]]
    assert await grouped.ask(5) == 10


async def test_what_is_asked_meanwhile_shares_the_next() -> None:
    engine = Engine()
    engine.gate.clear()
    grouped = Grouped(engine.call, calls=1, most=2)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(grouped.ask(1))
        while not engine.groups:
            await asyncio.sleep(0)
        others = [group.create_task(grouped.ask(n)) for n in (2, 3, 4)]
        await asyncio.sleep(0)
        assert engine.groups == [[1]]
        engine.gate.set()
    assert [first.result(), *(task.result() for task in others)] == [2, 4, 6, 8]
    assert engine.groups == [[1], [2, 3], [4]]


async def test_several_calls_at_once_where_allowed() -> None:
    engine = Engine()
    engine.gate.clear()
    grouped = Grouped(engine.call, calls=2, most=1)
    async with asyncio.TaskGroup() as group:
        for number in (1, 2, 3):
            group.create_task(grouped.ask(number))
        while len(engine.groups) < 2:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert engine.groups == [[1], [2]]
        engine.gate.set()
    assert engine.groups == [[1], [2], [3]]


async def test_failures_reach_those_they_concern() -> None:
    grouped = Grouped(Engine().call, calls=1, most=100)
    mixed = await asyncio.gather(*(grouped.ask(n) for n in (1, -1)), return_exceptions=True)
    assert mixed[0] == 2
    assert isinstance(mixed[1], ValueError)
    both = await asyncio.gather(*(grouped.ask(n) for n in (0, 1)), return_exceptions=True)
    assert [type(one) for one in both] == [ConnectionError, ConnectionError]


async def test_a_cancelled_asker_does_not_disturb_the_others() -> None:
    engine = Engine()
    engine.gate.clear()
    grouped = Grouped(engine.call, calls=1, most=100)
    leaver, stayer = asyncio.create_task(grouped.ask(1)), asyncio.create_task(grouped.ask(2))
    while not engine.groups:
        await asyncio.sleep(0)
    leaver.cancel()
    engine.gate.set()
    assert await stayer == 4
    with pytest.raises(asyncio.CancelledError):
        await leaver
