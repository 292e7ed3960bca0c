"""Equal logins wait for the first of them, and for no other."""

from __future__ import annotations

import asyncio

import pytest

from paquebot.recipient_validation.concurrent_logins import ConcurrentLogins


async def test_others_wait_for_the_first_but_not_for_each_other() -> None:
    logins = ConcurrentLogins(maximum=2)
    go_on = asyncio.Event()
    inside: list[str] = []

    async def log_in(key: bytes, name: str) -> None:
        async with logins.turn(key):
            inside.append(name)
            await go_on.wait()

    async with asyncio.TaskGroup() as tasks:
        for key, name in ((b"a", "first"), (b"a", "second"), (b"a", "third"), (b"b", "other"), (b"a", "too many")):
            tasks.create_task(log_in(key, name))
            await asyncio.sleep(0)
        assert inside == ["first", "other", "too many"]  # two wait, and no more
        go_on.set()
    assert inside == ["first", "other", "too many", "second", "third"]
    assert len(logins) == 0


async def test_a_first_login_that_fails_does_not_block_the_others() -> None:
    logins = ConcurrentLogins(maximum=2)
    with pytest.raises(RuntimeError):
        async with logins.turn(b"a"):
            raise RuntimeError
    async with logins.turn(b"a"):
        assert len(logins) == 1
