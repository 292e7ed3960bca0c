"""Logins with one password wait for the first of them, and for nobody else."""

from __future__ import annotations

import asyncio

import pytest

from paquebot.recipient_validation.concurrent_logins import ConcurrentLogins


async def test_others_wait_for_the_first_but_not_for_each_other() -> None:
    same = ConcurrentLogins(most=2)
    go_on = asyncio.Event()
    inside: list[str] = []

    async def log_in(key: bytes, name: str) -> None:
        async with same.turn(key):
            inside.append(name)
            await go_on.wait()

    async with asyncio.TaskGroup() as tasks:
        for key, name in ((b"a", "first"), (b"a", "second"), (b"a", "third"), (b"b", "other"), (b"a", "too many")):
            tasks.create_task(log_in(key, name))
            await asyncio.sleep(0)
        assert inside == ["first", "other", "too many"]  # two wait, and no more than that
        go_on.set()
    assert inside == ["first", "other", "too many", "second", "third"]
    assert len(same) == 0


async def test_a_first_that_fails_lets_the_others_go() -> None:
    same = ConcurrentLogins(most=2)
    with pytest.raises(RuntimeError):
        async with same.turn(b"a"):
            raise RuntimeError
    async with same.turn(b"a"):
        assert len(same) == 1
