"""Lookups joined while others are under way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from paquebot.recipient_validation.lookups import MAX_KEYS, lookup_batcher
from paquebot.runtime.batching import Batcher
from paquebot.runtime.postgres.pool import PostgresUnavailable

Lookups = Batcher[Sequence[int], Mapping[int, int]]


class Statements:
    """Doubles each key; holds the first statement until `go`, and fails when `away` is set or a key is -1."""

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


def batcher(statements: Statements) -> Lookups:
    """With one statement at a time."""
    found = lookup_batcher("address", statements)
    found._calls = 1
    return found


async def begun(joined: Lookups, statements: Statements, *calls: list[int]) -> list[asyncio.Task[Mapping[int, int]]]:
    """Tasks of `calls`, the first of which is under way alone."""
    tasks = []
    for number, keys in enumerate(calls):
        tasks.append(asyncio.ensure_future(joined.ask(keys)))
        async with asyncio.timeout(5.0):
            while number == 0 and not statements.asked:
                await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_a_lone_lookup_does_not_wait() -> None:
    statements = Statements()
    statements.go.set()
    joined = batcher(statements)
    assert (await joined.ask([1, 2]))[2] == 4
    assert (await joined.ask([3]))[3] == 6
    assert statements.asked == [[1, 2], [3]]


async def test_lookups_that_come_meanwhile_share_one_statement() -> None:
    statements = Statements()
    joined = batcher(statements)
    tasks = await begun(joined, statements, [1], [2, 3], [3, 4], [5])
    statements.go.set()
    answers = await asyncio.gather(*tasks)
    assert statements.asked == [[1], [2, 3, 4, 5]]
    assert [answer[key] for answer, key in zip(answers, (1, 2, 4, 5), strict=True)] == [2, 4, 8, 10]


async def test_a_bad_key_fails_its_caller_alone() -> None:
    statements = Statements()
    joined = batcher(statements)
    tasks = await begun(joined, statements, [1], [2], [-1], [3])
    statements.go.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[2], ValueError)
    assert answers[1] == {2: 4}
    assert answers[3] == {3: 6}
    assert (await joined.ask([9]))[9] == 18


async def test_when_the_engine_is_away_all_callers_fail_at_once() -> None:
    statements = Statements()
    joined = batcher(statements)
    tasks = await begun(joined, statements, [1], [2], [3])
    statements.away = True
    statements.go.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(answer, PostgresUnavailable) for answer in answers)
    assert statements.asked == [[1], [2, 3]]
    statements.away = False
    assert await joined.ask([4]) == {4: 8}


async def test_a_cancelled_caller_is_not_looked_up() -> None:
    statements = Statements()
    joined = batcher(statements)
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
    joined = batcher(statements)
    tasks = await begun(joined, statements, [1], [2], many, many[:-1], [3])
    statements.go.set()
    await asyncio.gather(*tasks)
    assert [len(keys) for keys in statements.asked] == [1, 1, MAX_KEYS + 1, MAX_KEYS, 1]
