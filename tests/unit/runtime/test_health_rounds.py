"""One round of probes answers all waiting requests."""

from __future__ import annotations

import asyncio

import pytest

from paquebot.runtime.process import health


async def test_a_request_that_waited_for_a_round_starts_no_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """However late the event loop runs it: a further round would last two seconds more than a kubelet waits."""
    monkeypatch.setattr(health, "_ANSWER_AGE", 0.0)
    rounds = 0

    async def probe() -> None:
        nonlocal rounds
        rounds += 1

    asked = health.Health(started=True)
    asked.depend("engine", probe)
    assert await asyncio.gather(*(asked.unready() for _ in range(5))) == [[]] * 5
    assert rounds == 1
