"""The order of hashes: an attacker with many waiting hashes does not delay others."""

import asyncio

import pytest

from paquebot.recipient_validation.boundary import Overloaded
from paquebot.recipient_validation.hashing import HashClient, Hashing
from paquebot.recipient_validation.settings import HashSettings
from paquebot.runtime.settings import ByteSize

ATTACKER = HashClient("198.51.100.1", is_known=False)
OTHER = HashClient("198.51.100.2", is_known=False)
KNOWN = HashClient("192.0.2.1", is_known=True)


async def test_an_attacker_has_a_share_and_known_clients_alternate_with_unknown_ones() -> None:
    hashing = Hashing(HashSettings(passes=1, memory=ByteSize(64 * 1024), lanes=1, threads=1, waiting=16, per_client=4))
    ended: list[HashClient] = []

    async def verify(client: HashClient) -> None:
        await hashing.verify(None, "guess", client)
        ended.append(client)

    waiting = [asyncio.ensure_future(verify(ATTACKER)) for _ in range(5)]  # one of them is made at once
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await hashing.verify(None, "guess", ATTACKER)
    waiting += [asyncio.ensure_future(verify(client)) for client in (OTHER, KNOWN)]
    await asyncio.gather(*waiting)
    assert ended == [ATTACKER, KNOWN, ATTACKER, OTHER, ATTACKER, ATTACKER, ATTACKER]
    hashing.close()


async def test_unknown_clients_leave_places_for_known_ones() -> None:
    hashing = Hashing(HashSettings(passes=1, memory=ByteSize(64 * 1024), lanes=1, threads=1, waiting=4, per_client=1))
    unknown = [HashClient(f"198.51.100.{number}", is_known=False) for number in range(4)]
    waiting = [asyncio.ensure_future(hashing.verify(None, "guess", client)) for client in unknown]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await hashing.verify(None, "guess", OTHER)
    waiting.append(asyncio.ensure_future(hashing.verify(None, "right", KNOWN)))
    await asyncio.gather(*waiting)
    hashing.close()
