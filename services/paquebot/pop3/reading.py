"""The messages a client retrieves, read a little ahead: while one is written, the following are on their way.

Clients take messages in the order of their numbers, and messages that arrived together lie in one pack, where one
request reads them all. What is read ahead is bounded per session, counted at the process's gate before it is read,
and dropped when the client pauses.
"""

import asyncio
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from paquebot.blobs import BadPack, BlobMissing, BlobStore
from paquebot.blobs.store import MessageOutcome
from paquebot.mailstore import MailboxReader
from paquebot.pop3 import metrics
from paquebot.pop3.maildrop import OpenMaildrop
from paquebot.runtime.shares.account_gate import Hold, Share
from paquebot.v1.mail_pb2 import BlobRef

_GROUP_MESSAGES = 32
_GROUP_BYTES = 1024 * 1024
_LONGEST_AHEAD = 1024 * 1024  # a single message above this is read when it is asked for
_PLACES = 64  # messages whose places are asked of PostgreSQL at once
_GATE_SECONDS = 30.0


class MessageGone(Exception):
    """Another session, over IMAP, removed the message after this maildrop was opened."""


class MessageUnreadable(Exception):
    """The message's row in the mailstore cannot be read."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message is: this recipient's header lines, and the bytes that all recipients share."""

    prefix: bytes
    blob: BlobRef


@dataclass(frozen=True, slots=True)
class MessageText:
    """`prefix` is CRLF-ended or empty; `raw` is the message as it was accepted."""

    prefix: bytes
    raw: bytes


Outcome = MessageText | Exception


@dataclass(slots=True)
class _Group:
    """Messages that are read together; each is held until it is taken, or dropped and not being read any more."""

    numbers: list[int]
    reading: asyncio.Task[dict[int, Outcome]]
    waiting: set[int]
    hold: Hold

    def drop(self) -> None:
        """What reads it goes on, in a thread, and is held so long."""
        if self.reading.done():
            self.hold.release()
        else:
            self.reading.add_done_callback(lambda _: self.hold.release())


class MessagePrefetch:
    """One for a session."""

    def __init__(
        self, mailbox_reader: MailboxReader, blobs: BlobStore, share: Share, drop: OpenMaildrop, end: Callable[[], None]
    ) -> None:
        """`end` the session: as of `Hold.until_late`."""
        self._mailbox_reader = mailbox_reader
        self._blobs = blobs
        self._share = share
        self._drop = drop
        self._end = end
        self._places: dict[int, Place | None] = {}
        self._unreadable: set[int] = set()  # UIDs
        self._groups: list[_Group] = []  # at most two: the one in use, and the next

    async def begin(self, number: int) -> MessageText:
        """Read a message and start on those behind it; call `finish` when it is written.

        Raises NoSuchMessage, MessageGone, MessageUnreadable, BlobMissing, BadPack, OverBudget (no room in memory), and
        what the engines raise when they are away.
        """
        self._drop.check(number)
        group = self._holding(number)
        metrics.PREFETCH.labels("miss" if group is None else "hit").inc()
        if group is None:
            self.forget()
            size = self._drop.size(number)
            # A long message takes more while it is read: what came from S3, whole and in parts.
            octets = 3 * size if size > _GROUP_BYTES else size
            hold = await self._share.take(octets, _GATE_SECONDS)
            group = self._start([number], hold)
        try:
            outcome = (await asyncio.shield(group.reading))[number]
        except Exception:
            self.forget()  # the next time it is read anew
            raise
        group.hold.shrink(sum(map(self._drop.size, group.waiting)))
        if math.isinf(group.hold.due):  # the first of it goes to the client
            group.hold.until_late(self._end)
        self._read_ahead()
        if isinstance(outcome, Exception):
            self.finish(number)
            raise outcome
        return outcome

    def finish(self, number: int) -> None:
        """The message was written, or will not be."""
        group = self._holding(number)
        if group is None:
            return
        group.waiting.discard(number)
        group.hold.shrink(sum(map(self._drop.size, group.waiting)))
        if group.reading.done() and not group.reading.cancelled() and not group.reading.exception():
            group.reading.result().pop(number, None)
        if not group.waiting:
            group.drop()
            self._groups.remove(group)
        self._read_ahead()

    def forget(self) -> None:
        """Drop everything that was read ahead."""
        for group in self._groups:
            group.drop()
        self._groups.clear()

    def _holding(self, number: int) -> _Group | None:
        return next((group for group in self._groups if number in group.waiting), None)

    def _start(self, numbers: list[int], hold: Hold) -> _Group:
        """Read the messages, which are reserved already."""
        group = _Group(numbers, asyncio.create_task(self._load(numbers)), set(numbers), hold)
        group.reading.add_done_callback(_seen)
        self._groups.append(group)
        return group

    def _read_ahead(self) -> None:
        """Start on the messages behind the last group, if there is room for them."""
        if len(self._groups) != 1:
            return
        numbers = self._following(self._groups[0].numbers[-1])
        octets = sum(map(self._drop.size, numbers))
        hold = self._share.try_take(octets) if numbers else None
        if hold is not None:
            self._start(numbers, hold)

    def _following(self, last: int) -> list[int]:
        found: list[int] = []
        octets = 0
        for number in islice(self._drop.numbers(last + 1), _GROUP_MESSAGES):
            octets += self._drop.size(number)
            if octets > (_GROUP_BYTES if found else _LONGEST_AHEAD):
                break
            found.append(number)
        return found

    async def _load(self, numbers: list[int]) -> dict[int, Outcome]:
        places = await self._places_of(numbers)
        found: dict[int, Outcome] = {number: self._why_none(number) for number, at in places.items() if at is None}
        there = {number: place for number, place in places.items() if place is not None}
        for group in await asyncio.gather(*(self._load_pack(group) for group in _by_pack(there))):
            found.update(group)
        return found

    async def _places_of(self, numbers: list[int]) -> dict[int, Place | None]:
        """Where the messages are, asked together with those behind them."""
        known = {number: self._places[number] for number in numbers if number in self._places}
        if len(known) < len(numbers):
            behind = islice(self._drop.numbers(numbers[-1] + 1), _PLACES)
            asked = await self._ask([*(number for number in numbers if number not in known), *behind])
            known = self._places = known | asked
        return {number: known[number] for number in numbers}

    async def _ask(self, numbers: list[int]) -> dict[int, Place | None]:
        """None: the message is gone."""
        by_uid = {self._drop.uid(number): number for number in numbers}
        found: dict[int, Place | None] = dict.fromkeys(numbers)
        left_out: list[int] = []
        rows = self._mailbox_reader.messages(
            self._drop.account_id, self._drop.mailbox_id, list(by_uid), with_summary=False, left_out=left_out
        )
        async for row in rows:
            found[by_uid[row.uid]] = Place(row.prefix, row.blob)
        self._unreadable.update(left_out)
        return found

    def _why_none(self, number: int) -> Exception:
        """Why the message has no place."""
        return MessageUnreadable() if self._drop.uid(number) in self._unreadable else MessageGone()

    async def _load_pack(self, places: dict[int, Place]) -> dict[int, Outcome]:
        """Messages of one pack; a bad one does not take its neighbours with it."""
        bodies = await self._blobs.read_each([place.blob for place in places.values()])
        return {
            number: await self._outcome(number, place, read)
            for (number, place), read in zip(places.items(), bodies, strict=True)
        }

    async def _outcome(self, number: int, place: Place, read: MessageOutcome) -> Outcome:
        if isinstance(read, BadPack | BlobMissing):
            return await self._load_moved(number, place, read)
        return read if isinstance(read, Exception) else MessageText(place.prefix, read)

    async def _load_moved(self, number: int, place: Place, error: Exception) -> Outcome:
        """A pack goes away when its messages were written again into another: look where this one is now."""
        now = (await self._ask([number]))[number]
        if now is None:
            return self._why_none(number)
        if now.blob == place.blob:
            return error
        self._places[number] = now
        try:
            return MessageText(now.prefix, await self._blobs.read(now.blob))
        except (BadPack, BlobMissing) as again:
            return again


def _by_pack(places: dict[int, Place]) -> Iterator[dict[int, Place]]:
    packs: dict[str, dict[int, Place]] = {}
    for number, place in places.items():
        packs.setdefault(place.blob.pack, {})[number] = place
    yield from packs.values()


def _seen(task: asyncio.Task[dict[int, Outcome]]) -> None:
    """Whoever asks for one of the messages gets the failure; nobody may."""
    if not task.cancelled():
        task.exception()
