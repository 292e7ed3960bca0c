"""Lookups joined while others are under way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from paquebot.recipient_validation.gathering import MAX_KEYS, LookupBatcher
from paquebot.runtime.postgres.pool import PostgresUnavailable


class Statements:
    """Doubles each key; holds the first statement until `go`, and fails where told."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.go = asyncio.Event()
        self.away = False

    async def __call__(self, keys: Sequence[int]) -> Mapping[int, int]:
        self.asked.append(list(keys))
        await self.go.wait()
        if self.away:
            raise PostgresUnavailable("look")
        if -1 in keys:
            raise ValueError("a key that cannot be looked up")
        return {key: key * 2 for key in keys}


@contextlib.asynccontextmanager
async def gathering(statements: Statements) -> AsyncIterator[LookupBatcher[int, int]]:
    """With one worker."""
    joined = LookupBatcher("test", statements)
    async with asyncio.TaskGroup() as group:
        worker = group.create_task(joined.work())
        yield joined
        worker.cancel()


async def begun(joined: LookupBatcher[int, int], statements: Statements, *calls: list[int]) -> list[asyncio.Task]:
    """Tasks of `calls`, the first of which is under way alone."""
    tasks = []
    for number, keys in enumerate(calls):
        tasks.append(asyncio.ensure_future(joined(keys)))
        async with asyncio.timeout(5.0):
            while number == 0 and not statements.asked:
                await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_a_lone_lookup_waits_for_nobody() -> None:
    statements = Statements()
    statements.go.set()
    async with gathering(statements) as joined:
        assert (await joined([1, 2]))[2] == 4
        assert (await joined([3]))[3] == 6
    assert statements.asked == [[1, 2], [3]]


async def test_those_who_come_meanwhile_share_one_statement() -> None:
    statements = Statements()
    async with gathering(statements) as joined:
        tasks = await begun(joined, statements, [1], [2, 3], [3, 4], [5])
        statements.go.set()
        answers = await asyncio.gather(*tasks)
    assert statements.asked == [[1], [2, 3, 4, 5]]
    assert [answer[key] for answer, key in zip(answers, (1, 2, 4, 5), strict=True)] == [2, 4, 8, 10]


async def test_one_callers_fault_is_no_others() -> None:
    statements = Statements()
    async with gathering(statements) as joined:
        tasks = await begun(joined, statements, [1], [2], [-1], [3])
        statements.go.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers[2], ValueError)
        assert answers[1] == {2: 4}
        assert answers[3] == {3: 6}
        assert (await joined([9]))[9] == 18


async def test_an_engine_away_is_told_to_all_at_once() -> None:
    statements = Statements()
    async with gathering(statements) as joined:
        tasks = await begun(joined, statements, [1], [2], [3])
        statements.away = True
        statements.go.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(answer, PostgresUnavailable) for answer in answers)
        assert statements.asked == [[1], [2, 3]]
        statements.away = False
        assert await joined([4]) == {4: 8}


async def test_who_went_away_is_not_looked_up() -> None:
    statements = Statements()
    async with gathering(statements) as joined:
        tasks = await begun(joined, statements, [1], [2], [3])
        tasks[0].cancel()
        tasks[1].cancel()
        await asyncio.sleep(0)
        statements.go.set()
        assert await tasks[2] == {3: 6}
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
    assert statements.asked == [[1], [3]]


async def test_a_statement_is_bounded_unless_one_caller_asks_for_more() -> None:
    statements = Statements()
    many = list(range(MAX_KEYS + 1))
    async with gathering(statements) as joined:
        tasks = await begun(joined, statements, [1], [2], many, many[:-1], [3])
        statements.go.set()
        await asyncio.gather(*tasks)
    assert [len(keys) for keys in statements.asked] == [1, 1, MAX_KEYS + 1, MAX_KEYS, 1]
