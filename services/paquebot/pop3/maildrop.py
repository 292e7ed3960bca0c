"""A maildrop as its session sees it: numbers that never change, and deletions that only QUIT applies (RFC 1939 §5).

Columns instead of objects: 10,000 messages take 120 KB.
"""

from array import array
from collections.abc import Iterator

from paquebot.mailstore import Maildrop


class NoSuchMessage(Exception):
    """No message has this number, or the message is marked as deleted."""


class OpenMaildrop:
    """Message numbers count from 1."""

    def __init__(self, account_id: int, maildrop: Maildrop) -> None:
        self.account_id = account_id
        self.mailbox_id = maildrop.mailbox_id
        self._uid_validity = maildrop.uid_validity
        self._uids = array("I", (message.uid for message in maildrop.messages))
        self._sizes = array("Q", (message.size for message in maildrop.messages))
        self._total_size = sum(self._sizes)
        self._deleted: set[int] = set()
        self._retrieved: set[int] = set()

    def __len__(self) -> int:
        """Messages that are not marked as deleted."""
        return len(self._uids) - len(self._deleted)

    @property
    def total_size(self) -> int:
        """Of the messages that are not marked as deleted."""
        return self._total_size

    def numbers(self, start: int = 1) -> Iterator[int]:
        """The numbers from `start` on that are not marked as deleted."""
        return (number for number in range(start, len(self._uids) + 1) if number not in self._deleted)

    def check(self, number: int) -> None:
        """Raises NoSuchMessage, also for a message marked as deleted (RFC 1939 §5)."""
        if not 1 <= number <= len(self._uids) or number in self._deleted:
            raise NoSuchMessage

    def uid(self, number: int) -> int:
        return self._uids[number - 1]

    def size(self, number: int) -> int:
        """Bytes of the recipient's prefix and the message, each line ended with CRLF: what RETR sends."""
        return self._sizes[number - 1]

    def unique_id(self, number: int) -> str:
        """RFC 1939 §7: 16 characters that name this message alone, the same in every session and process."""
        return f"{self._uid_validity:08x}{self.uid(number):08x}"

    def delete(self, number: int) -> None:
        """Mark as deleted. Raises NoSuchMessage."""
        self.check(number)
        self._deleted.add(number)
        self._total_size -= self.size(number)

    def reset(self) -> None:
        """Unmark all messages."""
        self._total_size += sum(self.size(number) for number in self._deleted)
        self._deleted.clear()

    def mark_retrieved(self, number: int) -> None:
        """The client has the whole message."""
        self._retrieved.add(number)

    def deleted_uids(self) -> list[int]:
        return [self.uid(number) for number in sorted(self._deleted)]

    def retrieved_uids(self) -> list[int]:
        return [self.uid(number) for number in sorted(self._retrieved)]
