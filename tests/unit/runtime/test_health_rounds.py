"""One round of probes answers all who wait for it."""

from __future__ import annotations

import asyncio

import pytest

from paquebot.runtime.process import health


async def test_who_waited_for_a_round_asks_no_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """However late the loop lets it run: each further round would be two seconds more than a kubelet waits."""
    monkeypatch.setattr(health, "_ANSWER_AGE", 0.0)
    rounds = 0

    async def probe() -> None:
        nonlocal rounds
        rounds += 1

    asked = health.Health(started=True)
    asked.depend("engine", probe)
    assert await asyncio.gather(*(asked.unready() for _ in range(5))) == [[]] * 5
    assert rounds == 1
