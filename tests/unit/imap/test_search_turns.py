"""Searches take turns by account, and their work is bounded."""

import asyncio

import pytest

from paquebot.imap.search.turns import SearchTurns, SearchWork, TooMuchWork


async def test_accounts_take_turns_for_any_number_of_sessions() -> None:
    turns = SearchTurns()
    order: list[int] = []

    async def work(account_id: int) -> None:
        for _ in range(5):
            await turns.wait(account_id)
            order.append(account_id)

    await asyncio.gather(*(work(1) for _ in range(20)), work(2), work(3))
    assert sorted(order[:15]) == [1] * 5 + [2] * 5 + [3] * 5
    assert len(order) == 22 * 5


async def test_one_turn_in_an_iteration_of_the_loop() -> None:
    """All other ready tasks run between any two turns."""
    turns = SearchTurns()
    rounds, turn_in = 0, list[int]()

    async def count() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    async def work() -> None:
        for _ in range(10):
            await turns.wait(1)
            turn_in.append(rounds)

    counting = asyncio.create_task(count())
    await asyncio.gather(*(work() for _ in range(10)))
    counting.cancel()
    assert len(turn_in) == len(set(turn_in)) == 100


async def test_a_cancelled_wait_costs_no_turn() -> None:
    turns = SearchTurns()
    gone = [asyncio.create_task(turns.wait(1)) for _ in range(3)]
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    await asyncio.wait_for(turns.wait(1), 5)


async def test_work_is_counted_and_bounded() -> None:
    work = SearchWork(SearchTurns(), account_id=1, turn=10, limit=100)
    await work.begin()
    for _ in range(10):
        await work.spend(10)
    with pytest.raises(TooMuchWork):
        await work.spend(1)
