"""Reads the messages that a client retrieves a little ahead: while one is written, the next are being read.

Clients retrieve messages in the order of their numbers, and messages that arrived together lie in one pack, where one
request reads them all. What is read ahead is bounded per session, reserved in the account's share before it is read,
and dropped when the client pauses.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from paquebot.pop3 import metrics
from paquebot.pop3.maildrop import OpenMaildrop
from paquebot.pop3.reading import MaildropReader, ReadResult, RetrievedMessage
from paquebot.runtime.shares.account_shares import AccountReservation, AccountShare

_GROUP_MESSAGES = 32
_GROUP_BYTES = 1024 * 1024
_MAX_AHEAD = 1024 * 1024  # bytes of a single message; a larger one is read when it is asked for
_PLACES = 64  # messages whose places are asked of PostgreSQL at once
_GATE_SECONDS = 30.0


@dataclass(slots=True)
class _Group:
    """Messages that are read together. Its memory is reserved until each is written, or, if it is dropped, until the
    read under way ends."""

    numbers: list[int]
    reading: asyncio.Task[dict[int, ReadResult]]
    waiting: set[int]
    hold: AccountReservation

    def drop(self) -> None:
        """Release the memory. A read under way goes on in its thread, and keeps its memory reserved until it ends."""
        if self.reading.done():
            self.hold.release()
        else:
            self.reading.add_done_callback(lambda _: self.hold.release())


class MessagePrefetch:
    """One for a session."""

    def __init__(
        self, reader: MaildropReader, share: AccountShare, maildrop: OpenMaildrop, end: Callable[[], None]
    ) -> None:
        """`end`: ends the session, as in `AccountReservation.revoke_when_late`."""
        self._reader = reader
        self._share = share
        self._maildrop = maildrop
        self._end = end
        self._groups: list[_Group] = []  # at most two: the one in use, and the next

    async def begin(self, number: int) -> RetrievedMessage:
        """Read a message and start on those behind it; call `finish` when it is written.

        Raises NoSuchMessage, MessageGone, MessageUnreadable, BlobMissing, BadPack, OverBudget (no room in memory), and
        what the engines raise when they are away.
        """
        self._maildrop.check(number)
        group = self._group_of(number)
        metrics.PREFETCH.labels("miss" if group is None else "hit").inc()
        if group is None:
            self.forget()
            size = self._maildrop.size(number)
            # A large message takes more while it is read: the stored bytes, and the message in parts and as a whole.
            needed = 3 * size if size > _GROUP_BYTES else size
            hold = await self._share.reserve(needed, _GATE_SECONDS)
            group = self._start([number], hold)
        try:
            result = (await asyncio.shield(group.reading))[number]
        except Exception:
            self.forget()  # the next command reads it again
            raise
        group.hold.shrink(sum(map(self._maildrop.size, group.waiting)))
        if math.isinf(group.hold.due):  # its first message goes to the client now
            group.hold.revoke_when_late(self._end)
        self._read_ahead()
        if isinstance(result, Exception):
            self.finish(number)
            raise result
        return result

    def finish(self, number: int) -> None:
        """The message was written, or will not be: release its memory."""
        group = self._group_of(number)
        if group is None:
            return
        group.waiting.discard(number)
        group.hold.shrink(sum(map(self._maildrop.size, group.waiting)))
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

    def _group_of(self, number: int) -> _Group | None:
        return next((group for group in self._groups if number in group.waiting), None)

    def _start(self, numbers: list[int], hold: AccountReservation) -> _Group:
        """Read the messages, whose memory is reserved already."""
        group = _Group(numbers, asyncio.create_task(self._read(numbers)), set(numbers), hold)
        group.reading.add_done_callback(_ignore_exception)
        self._groups.append(group)
        return group

    async def _read(self, numbers: list[int]) -> dict[int, ReadResult]:
        following = [self._maildrop.uid(number) for number in islice(self._maildrop.numbers(numbers[-1] + 1), _PLACES)]
        found = await self._reader.read([self._maildrop.uid(number) for number in numbers], following)
        return {number: found[self._maildrop.uid(number)] for number in numbers}

    def _read_ahead(self) -> None:
        """Start on the messages behind the last group, if there is room for them."""
        if len(self._groups) != 1:
            return
        numbers = self._following(self._groups[0].numbers[-1])
        hold = self._share.try_reserve(sum(map(self._maildrop.size, numbers))) if numbers else None
        if hold is not None:
            self._start(numbers, hold)

    def _following(self, last: int) -> list[int]:
        found: list[int] = []
        size = 0
        for number in islice(self._maildrop.numbers(last + 1), _GROUP_MESSAGES):
            size += self._maildrop.size(number)
            if size > (_GROUP_BYTES if found else _MAX_AHEAD):
                break
            found.append(number)
        return found


def _ignore_exception(task: asyncio.Task[dict[int, ReadResult]]) -> None:
    """`begin` raises a failure; without this, asyncio would log one that no command asks for."""
    if not task.cancelled():
        task.exception()
