"""IMAP clients that watch a mailbox through all faults: what the server announced once must stay so.

For a mailbox: UIDVALIDITY never changes, UIDNEXT and HIGHESTMODSEQ never go back, no message appears below a UIDNEXT
that was announced, no UID goes away (no client expunges here), none changes its bytes, no message's MODSEQ goes back,
and a flag whose STORE was answered with OK stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tests.chaos.imap import Bad, Fetched, Imap, No, Selected
from tests.chaos.ledger import Ledger, number_of
from tests.chaos.place import Place
from tests.chaos.smtp import Cut

IMAP = "IMAP"
"""The way of messages that watchers were given."""
AGAIN_SECONDS = 0.3
IDLE_SECONDS = 2.0
_FACTS = "UID MODSEQ FLAGS"
_SAMPLE = 8
_KEYWORDS = ("$Chaos1", "$Chaos2", "\\Flagged", "\\Seen")


@dataclass(slots=True)
class Known:
    """A message as the server announced it."""

    digest: bytes
    mod_seq: int
    number: str
    flags: set[str] = field(default_factory=set)
    """Those that we set and that were acknowledged."""


@dataclass(slots=True)
class Watcher:
    """One mailbox of one account."""

    account: str
    mailbox: str
    place: Place
    ledger: Ledger
    chance: random.Random
    announced: Selected | None = None
    messages: dict[int, Known] = field(default_factory=dict)
    cuts: int = 0
    refusals: int = 0
    looks: int = 0
    stopping: bool = False
    stored: int = 0
    """Flags whose STORE was acknowledged."""
    _complete_below: int = 0
    """Every message below this UID is known."""

    async def run(self) -> None:
        """Until `stopping`."""
        while not self.stopping:
            try:
                async with Imap.session(self.place.ports.services.imaps, self.place.tls(), self.account) as client:
                    await self._watch(client)
            except Cut:
                self.cuts += 1
            except No as refusal:
                self.refusals += 1
                if not refusal.temporary:
                    self._find(f"a permanent refusal: {refusal}")
            except Bad as fault:
                self._find(str(fault))
            await asyncio.sleep(AGAIN_SECONDS)

    async def _watch(self, client: Imap) -> None:
        await self.look(client)
        while not self.stopping:
            try:
                await self._news(client)
                await self._sample(client)
                await self._store(client)
            except No as refusal:
                if not refusal.temporary:
                    raise
                self.refusals += 1
                await asyncio.sleep(AGAIN_SECONDS)
            await client.idle(IDLE_SECONDS)

    async def look(self, client: Imap) -> None:
        """All that this watcher knows, compared with what is there now."""
        now = await client.select(self.mailbox)
        self._compare(now)
        await self._news(client)
        found = {one.uid: one for one in await client.fetch("1:*", _FACTS)}
        for uid, known in self.messages.items():
            if uid not in found:
                self._find(f"UID {uid} ({known.number}) is gone")
            else:
                self._same(known, found[uid])
        last = max(self.messages, default=0)
        for uid in found.keys() - self.messages.keys():
            if uid < last:
                self._find(f"UID {uid} appeared after UID {last}")
        self._complete_below = max(self._complete_below, now.uid_next)
        self.looks += 1

    async def _news(self, client: Imap) -> None:
        last = max(self.messages, default=0)
        for one in await client.fetch(f"{last + 1}:*", f"{_FACTS} BODY.PEEK[]"):
            self._compare_bytes(one)
            known = self.messages.get(one.uid)
            if known is not None:  # `n:*` gives the last message when there is none from n on
                self._same(known, one)
            elif one.content is not None:
                self._new(one)

    def _new(self, one: Fetched) -> None:
        assert one.content is not None
        if one.uid < self._complete_below:
            self._find(f"UID {one.uid} appeared below the UIDNEXT {self._complete_below} that was announced")
        number = number_of(one.content)
        self.messages[one.uid] = Known(hashlib.sha256(one.content).digest(), one.mod_seq, number)
        if number not in self.ledger.seen:
            self.ledger.seen[number] = time.monotonic()
            self.ledger.notify()

    def _compare_bytes(self, one: Fetched) -> None:
        if one.content is not None:
            self.ledger.compare(IMAP, f"{self.account} {self.mailbox} UID {one.uid}", one.content)

    async def _sample(self, client: Imap) -> None:
        """Some messages, byte by byte."""
        if self.messages:
            uids = self.chance.sample(sorted(self.messages), min(_SAMPLE, len(self.messages)))
            for one in await client.fetch(",".join(map(str, uids)), f"{_FACTS} BODY.PEEK[]"):
                self._compare_bytes(one)
                if one.uid in self.messages:
                    self._same(self.messages[one.uid], one)

    async def _store(self, client: Imap) -> None:
        """Set a flag: it counts once it is acknowledged."""
        if not self.messages or self.chance.random() < 0.5:
            return
        uid, flag = self.chance.choice(sorted(self.messages)), self.chance.choice(_KEYWORDS)
        await client.command(f"UID STORE {uid} +FLAGS ({flag})")
        self.messages[uid].flags.add(flag)
        self.stored += 1

    def _compare(self, now: Selected) -> None:
        before, self.announced = self.announced, now
        if before is None:
            return
        if now.uid_validity != before.uid_validity:
            self._find(f"UIDVALIDITY {before.uid_validity} became {now.uid_validity}")
        if now.uid_next < before.uid_next:
            self._find(f"UIDNEXT went back from {before.uid_next} to {now.uid_next}")
        if now.highest_mod_seq < before.highest_mod_seq:
            self._find(f"HIGHESTMODSEQ went back from {before.highest_mod_seq} to {now.highest_mod_seq}")

    def _same(self, known: Known, now: Fetched) -> None:
        if now.content is not None and hashlib.sha256(now.content).digest() != known.digest:
            self._find(f"UID {now.uid} ({known.number}) changed its bytes")
        if now.mod_seq < known.mod_seq:
            self._find(f"UID {now.uid} ({known.number}): MODSEQ went back from {known.mod_seq} to {now.mod_seq}")
        known.mod_seq = max(known.mod_seq, now.mod_seq)
        missing = {flag.casefold() for flag in known.flags} - {flag.casefold() for flag in now.flags}
        if missing:
            self._find(f"UID {now.uid} ({known.number}) lost the flags {sorted(missing)}, whose STORE was acknowledged")

    def _find(self, text: str) -> None:
        self.ledger.find(f"{self.account} {self.mailbox}: {text}")


class Reader(Protocol):
    """A client that works until it is stopped."""

    stopping: bool

    async def run(self) -> None: ...


async def last_look(watcher: Watcher) -> None:
    """Compare once more, with the platform healed. Raises Cut, No, Bad."""
    async with Imap.session(watcher.place.ports.services.imaps, watcher.place.tls(), watcher.account) as client:
        await watcher.look(client)


@contextlib.asynccontextmanager
async def watching(watchers: Sequence[Reader]) -> AsyncIterator[None]:
    """All of them, until the end of the block."""
    tasks = [asyncio.create_task(watcher.run()) for watcher in watchers]
    try:
        yield
    finally:
        for watcher in watchers:
            watcher.stopping = True
        await asyncio.gather(*tasks)
