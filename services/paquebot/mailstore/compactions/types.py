"""When compaction is worth it, what it would move, and what it moved."""

from dataclasses import dataclass

from paquebot.v1.mail_pb2 import BlobRef


@dataclass(frozen=True, slots=True)
class CompactionRule:
    """The rule for accounts whose messages lie in enough packs to be worth writing together."""

    saved_packs: int
    """Minimum number of packs by which the reading of all of them must become cheaper."""
    pack_bytes: int
    """Size of the packs to write."""
    message_bytes: int
    """Larger messages (as stored) are not moved."""

    @property
    def share_bytes(self) -> int:
        """A pack with more of the account's bytes is compact enough."""
        return self.pack_bytes // 4

    @property
    def floor_bytes(self) -> int:
        """Packs with no more of them, such as one message, are always worth putting together."""
        return min(self.message_bytes, self.share_bytes)

    def text(self) -> str:
        return f"{self.saved_packs},{self.pack_bytes},{self.message_bytes}"


@dataclass(frozen=True, slots=True)
class Fragmentation:
    """The bytes and messages that compaction would move of an account: zeros when that is not worth it."""

    account_id: int
    packs: int
    """The number of packs that the messages come from."""
    messages: int
    stored_size: int
    """In bytes, as stored."""


@dataclass(frozen=True, slots=True)
class CompactionCandidate:
    """An account whose message rows were not read yet."""

    account_id: int
    stored: int
    """Messages in all its mailboxes."""
    arrivals: int
    """Grows with every message put into one of its mailboxes."""
    known: Fragmentation | None
    """The result of the last measurement, when it still holds."""


@dataclass(frozen=True, slots=True)
class Relocation:
    """An entry that was written again in another pack."""

    old: BlobRef
    new: BlobRef
