"""An IMAP client that files: it appends numbered drafts and moves them on. What was answered with OK is there once;
what was cut off is there at most once, and a MOVE never leaves two or none."""

from __future__ import annotations

import asyncio
import random
import re
from dataclasses import dataclass, field

from tests.chaos.imap import Bad, Imap, No
from tests.chaos.ledger import Attempt, End, Ledger, digest_of
from tests.chaos.place import Place
from tests.chaos.smtp import Cut

AGAIN_SECONDS = 0.3
PAUSE_SECONDS = 0.5
DRAFTS, FILED = "Drafts", "Archive"
_APPEND_UID = re.compile(rb"\[APPENDUID (\d+) (\d+)\]")


@dataclass(slots=True)
class Filer:
    """One account's."""

    account: str
    place: Place
    ledger: Ledger
    chance: random.Random
    appended: list[int] = field(default_factory=list)
    """UIDs in Drafts that were not moved yet, as far as we know."""
    moved: int = 0
    cuts: int = 0
    stopping: bool = False
    _numbers: int = 0

    async def run(self) -> None:
        """Until `stopping`."""
        while not self.stopping:
            try:
                async with Imap.session(self.place.ports.services.imaps, self.place.tls(), self.account) as client:
                    await client.select(DRAFTS)
                    while not self.stopping:
                        await self._append(client)
                        await self._move(client)
                        await asyncio.sleep(PAUSE_SECONDS)
            except Cut:
                self.cuts += 1
            except No as refusal:
                if not refusal.temporary:
                    self.ledger.find(f"{self.account} {DRAFTS}: a permanent refusal: {refusal}")
            except Bad as fault:
                self.ledger.find(f"{self.account} {DRAFTS}: {fault}")
            await asyncio.sleep(AGAIN_SECONDS)

    async def _append(self, client: Imap) -> None:
        self._numbers += 1
        number = f"append-{self.account.partition('@')[0]}-{self._numbers}"
        text = f"X-Chaos: {number}\r\nSubject: {number}\r\n\r\n{self.chance.getrandbits(400):x}\r\n".encode()
        attempt = Attempt(number, number, "", digest_of(text), frozenset((self.account,)), end=End.AMBIGUOUS)
        self.ledger.attempts[number] = attempt
        lines = await client.command(f"APPEND {DRAFTS}", literal=text)
        attempt.end = End.ACCEPTED
        found = _APPEND_UID.search(lines[-1])
        if found is None:
            raise Bad(f"APPEND without APPENDUID: {lines[-1]!r}")
        self.appended.append(int(found[2]))

    async def _move(self, client: Imap) -> None:
        if not self.appended or self.chance.random() < 0.3:
            return
        uid = self.appended.pop(self.chance.randrange(len(self.appended)))
        await client.command(f"UID MOVE {uid} {FILED}")
        self.moved += 1
