"""Whose hash is made next: a guesser with many hashes waiting does not keep others waiting."""

import asyncio

import pytest

from paquebot.recipient_validation.boundary import Overloaded
from paquebot.recipient_validation.hashing import HashClient, Hashing
from paquebot.recipient_validation.settings import HashSettings
from paquebot.runtime.settings import ByteSize

GUESSER = HashClient("198.51.100.1", stranger=True)
OTHER = HashClient("198.51.100.2", stranger=True)
KNOWN = HashClient("192.0.2.1", stranger=False)


async def test_a_guesser_takes_a_share_and_those_who_are_known_come_in_turn() -> None:
    hashing = Hashing(HashSettings(passes=1, memory=ByteSize(64 * 1024), lanes=1, threads=1, waiting=16, per_client=4))
    ended: list[HashClient] = []

    async def verify(lane: HashClient) -> None:
        await hashing.verify(None, "guess", lane)
        ended.append(lane)

    waiting = [asyncio.ensure_future(verify(GUESSER)) for _ in range(5)]  # one of them is made at once
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await hashing.verify(None, "guess", GUESSER)
    waiting += [asyncio.ensure_future(verify(lane)) for lane in (OTHER, KNOWN)]
    await asyncio.gather(*waiting)
    assert ended == [GUESSER, KNOWN, GUESSER, OTHER, GUESSER, GUESSER, GUESSER]
    hashing.close()


async def test_strangers_together_leave_places_to_those_who_are_known() -> None:
    hashing = Hashing(HashSettings(passes=1, memory=ByteSize(64 * 1024), lanes=1, threads=1, waiting=4, per_client=1))
    strangers = [HashClient(f"198.51.100.{number}", stranger=True) for number in range(4)]
    waiting = [asyncio.ensure_future(hashing.verify(None, "guess", lane)) for lane in strangers]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await hashing.verify(None, "guess", OTHER)
    waiting.append(asyncio.ensure_future(hashing.verify(None, "right", KNOWN)))
    await asyncio.gather(*waiting)
    hashing.close()
