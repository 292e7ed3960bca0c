"""Reads messages of a maildrop: where each is, then its bytes.

Compaction may move a message after its row was read: what is not where the row says is looked up once more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paquebot.blobs import BadPack, BlobMissing, BlobStore
from paquebot.mailstore import MailboxReader
from paquebot.v1.mail_pb2 import BlobRef


class MessageGone(Exception):
    """Another session, over IMAP, removed the message after this maildrop was opened."""


class MessageUnreadable(Exception):
    """The message's row in the mailstore cannot be read."""


@dataclass(frozen=True, slots=True)
class _Place:
    """This recipient's header lines, and the place of the content that all recipients share."""

    prefix: bytes
    blob: BlobRef


@dataclass(frozen=True, slots=True)
class RetrievedMessage:
    """`prefix`: this recipient's header lines, each with its CRLF; `content`: the message as it was accepted."""

    prefix: bytes
    content: bytes


ReadResult = RetrievedMessage | Exception
"""A message, or why it cannot be read: MessageGone, MessageUnreadable, BlobMissing, BadPack, BlobsUnavailable."""


class MaildropReader:
    """Reads the messages of one maildrop by UID."""

    def __init__(self, mailbox_reader: MailboxReader, blobs: BlobStore, account_id: int, mailbox_id: int) -> None:
        self._mailbox_reader = mailbox_reader
        self._blobs = blobs
        self._account_id = account_id
        self._mailbox_id = mailbox_id
        self._places: dict[int, _Place | None] = {}
        self._unreadable: set[int] = set()

    async def read(self, uids: Sequence[int], following: Sequence[int] = ()) -> dict[int, ReadResult]:
        """The messages by UID. `following`: messages that will be read next, whose places are asked for too.

        Raises what the mailstore raises.
        """
        places = await self._places_of(uids, following)
        found = await self._read(places)
        lost = [uid for uid, result in found.items() if isinstance(result, BadPack | BlobMissing)]
        if lost:
            now = await self._ask(lost)
            moved = {uid: place for uid, place in now.items() if place != places[uid]}
            self._places.update(moved)
            found |= await self._read(moved)
        return found

    async def _read(self, places: Mapping[int, _Place | None]) -> dict[int, ReadResult]:
        found: dict[int, ReadResult] = {uid: self._why_no_place(uid) for uid, place in places.items() if place is None}
        there = {uid: place for uid, place in places.items() if place is not None}
        contents = await self._blobs.read_each([place.blob for place in there.values()])
        for (uid, place), content in zip(there.items(), contents, strict=True):
            found[uid] = RetrievedMessage(place.prefix, content) if isinstance(content, bytes) else content
        return found

    async def _places_of(self, uids: Sequence[int], following: Sequence[int]) -> dict[int, _Place | None]:
        known = {uid: self._places[uid] for uid in uids if uid in self._places}
        if len(known) < len(uids):
            asked = await self._ask([*(uid for uid in uids if uid not in known), *following])
            known = self._places = known | asked
        return {uid: known[uid] for uid in uids}

    async def _ask(self, uids: Sequence[int]) -> dict[int, _Place | None]:
        """None: the message is gone or its row is unreadable."""
        found: dict[int, _Place | None] = dict.fromkeys(uids)
        left_out: list[int] = []
        rows = self._mailbox_reader.messages(
            self._account_id, self._mailbox_id, list(uids), with_summary=False, left_out=left_out
        )
        async for row in rows:
            found[row.uid] = _Place(row.prefix, row.blob)
        self._unreadable.update(left_out)
        return found

    def _why_no_place(self, uid: int) -> Exception:
        return MessageUnreadable() if uid in self._unreadable else MessageGone()
