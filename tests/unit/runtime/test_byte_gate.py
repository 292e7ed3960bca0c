"""The byte gate keeps its limit through waits, cancellations and releases."""

import asyncio
import contextlib

from prometheus_client import REGISTRY

from paquebot.runtime.shares.gate import ByteGate
from paquebot.runtime.shares.in_flight import byte_gate


async def test_first_come_first_served() -> None:
    gate = ByteGate(10)
    await gate.reserve(8)
    order: list[int] = []

    async def reader(size: int) -> None:
        await gate.reserve(size)
        order.append(size)
        gate.release(size)

    tasks = [asyncio.create_task(reader(size)) for size in (5, 1, 7)]
    await asyncio.sleep(0)
    assert not gate.try_reserve(1), "others wait"
    gate.release(8)
    await asyncio.gather(*tasks)
    assert order == [5, 1, 7]
    assert gate.used == 0


async def test_a_reservation_larger_than_the_limit_is_granted_alone() -> None:
    gate = ByteGate(10)
    await gate.reserve(1000)
    assert not gate.try_reserve(1)
    gate.release(1000)
    assert gate.try_reserve(10)


async def test_a_cancelled_wait_reserves_nothing() -> None:
    gate = ByteGate(10)
    await gate.reserve(10)
    waiting = asyncio.create_task(gate.reserve(5))
    behind = asyncio.create_task(gate.reserve(5))
    await asyncio.sleep(0)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    gate.release(10)
    await behind
    assert gate.used == 5


async def test_a_wait_cancelled_as_it_is_admitted_reserves_nothing() -> None:
    gate = ByteGate(10)
    await gate.reserve(10)
    waiting = asyncio.create_task(gate.reserve(5))
    await asyncio.sleep(0)
    gate.release(10)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    assert gate.used == 0


def test_the_gauges_show_the_bytes_in_flight() -> None:
    before = REGISTRY.get_sample_value("paquebot_in_flight_bytes") or 0.0
    gate = byte_gate(100)
    assert gate.try_reserve(60)
    assert not gate.try_reserve(41)
    assert REGISTRY.get_sample_value("paquebot_in_flight_limit_bytes") == 100
    assert REGISTRY.get_sample_value("paquebot_in_flight_bytes") == before + 60
    gate.release(60)
    assert REGISTRY.get_sample_value("paquebot_in_flight_bytes") == before
