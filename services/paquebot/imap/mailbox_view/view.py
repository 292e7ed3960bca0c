"""A session's view of the selected mailbox: message sequence numbers to UIDs, and the flags of each message.

The view changes only when `apply` or `release` is called, so that a sequence number means the same message from the
client's command to its completion. Expunged messages keep their number until `release`, because EXPUNGE may not be sent
at any time (RFC 3501 §7.4.1).

Invariants: UIDs ascend strictly; expunged UIDs are a subset of them; the client knows the number `exists`.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

from paquebot.mailstore import NO_FLAGS, Flag, FlagRows, RecentRange
from paquebot.wire.imap.sequence_set import SequenceSet

SYSTEM_FLAG_BITS = {
    "\\Answered": Flag.ANSWERED,
    "\\Flagged": Flag.FLAGGED,
    "\\Deleted": Flag.DELETED,
    "\\Seen": Flag.SEEN,
    "\\Draft": Flag.DRAFT,
}
SYSTEM_FLAGS = tuple(SYSTEM_FLAG_BITS)
_FLAG_COMBINATIONS = tuple(
    tuple(name for name, flag in SYSTEM_FLAG_BITS.items() if flag.value & bits)
    for bits in range(1 << len(SYSTEM_FLAG_BITS))
)
_FEW = 16  # up to this number, deleting rows one by one costs less than building the columns again


class NoSuchSequenceNumber(Exception):
    """A message sequence number above EXISTS: a client error (RFC 3501 §9, seq-number)."""


@dataclass(frozen=True, slots=True)
class Updates:
    """The changes that the client does not know yet."""

    arrived: int = 0  # messages after the last one known
    changed: tuple[int, ...] = ()  # UIDs of known messages whose flags changed


@dataclass(frozen=True, slots=True)
class Released:
    """Messages that left the view, in the order of their EXPUNGE responses."""

    numbers: tuple[int, ...] = ()  # descending, so that each is right after those before it
    uids: tuple[int, ...] = ()  # the same messages, ascending


def parse_flags(names: Iterable[str]) -> tuple[Flag, tuple[str, ...]]:
    """System flags and keywords of a flag list; skips \\Recent, which a client cannot store."""
    flags = NO_FLAGS
    keywords: list[str] = []
    for name in names:
        if name in SYSTEM_FLAG_BITS:
            flags |= SYSTEM_FLAG_BITS[name]
        elif not name.startswith("\\"):
            keywords.append(name)
    return flags, tuple(keywords)


class View:
    """Sequence numbers, UIDs, flags and mod-sequences of one mailbox in one session."""

    __slots__ = (
        "_expunged",
        "_flags",
        "_highest_mod_seq",
        "_keywords",
        "_mod_seq_before_expunged",
        "_mod_seqs",
        "_recent",
        "_uids",
        "keywords_reported",
        "mod_seq",
        "recent_reported",
    )

    def __init__(self, rows: FlagRows, mod_seq: int, keywords: Iterable[str] = ()) -> None:
        self._uids = array("I", rows.uids)
        self._mod_seqs = array("Q", rows.mod_seqs)
        self._flags = bytearray(rows.flags)
        self._keywords = dict(rows.keywords)
        self._expunged: set[int] = set()
        self._mod_seq_before_expunged = self._highest_mod_seq = mod_seq
        self._recent: list[RecentRange] = []
        self.mod_seq = mod_seq
        """Every change up to here is in the view."""
        self.keywords_reported = tuple(keywords)
        """The keywords of the last FLAGS response (RFC 3501 §7.2.6)."""
        self.recent_reported = 0
        """The count of the last RECENT response (RFC 3501 §7.3.2)."""

    # --- numbers -----------------------------------------------------------------------------------------

    @property
    def exists(self) -> int:
        """Messages as the client counts them."""
        return len(self._uids)

    @property
    def last_uid(self) -> int:
        """`*` of a UID set; 0 when the mailbox is empty."""
        return self._uids[-1] if self._uids else 0

    @property
    def uids(self) -> Sequence[int]:
        """All UIDs by sequence number, expunged ones too."""
        return self._uids

    def uid(self, number: int) -> int:
        """The UID of a message sequence number."""
        return self._uids[number - 1]

    def number(self, uid: int) -> int | None:
        """The message sequence number of a UID."""
        index = bisect_left(self._uids, uid)
        return index + 1 if index < len(self._uids) and self._uids[index] == uid else None

    def is_expunged(self, uid: int) -> bool:
        """Was the message expunged, and no EXPUNGE sent yet?"""
        return uid in self._expunged

    @property
    def reported_mod_seq(self) -> int:
        """Every change up to this mod-sequence was reported to the client, or will be with what `apply` returned. While
        expunged messages wait for `release`, it is below theirs."""
        return self._mod_seq_before_expunged if self._expunged else self.mod_seq

    @property
    def client_may_be_ahead(self) -> bool:
        """Are changes above `reported_mod_seq` in the view, so that the client may have seen a higher mod-sequence?"""
        return self.reported_mod_seq < self._highest_mod_seq

    def select(self, sequence_set: SequenceSet, *, uid: bool) -> list[int]:
        """Ascending sequence numbers of the messages that the set names.

        Skips unknown UIDs (RFC 3501 §6.4.8). Raises NoSuchSequenceNumber, but not for "1:*" or "*" in an empty mailbox:
        clients send that without checking EXISTS, and it names nothing.
        """
        if uid:
            return self._by_uid(sequence_set)
        if not self.exists and sequence_set.is_open():
            return []
        if sequence_set.highest() > self.exists or (sequence_set.has_star() and not self.exists):
            raise NoSuchSequenceNumber
        return list(sequence_set.iterate(self.exists))

    def knows_all(self, sequence_set: SequenceSet) -> bool:
        """Does the view have each UID of the set?"""
        if sequence_set.has_star() or sequence_set.highest() > self.last_uid:
            return False
        spans = sequence_set.resolve(self.last_uid)
        return all(
            bisect_right(self._uids, high) - bisect_left(self._uids, low) == high - low + 1 for low, high in spans
        )

    def gaps(self, spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """The UIDs in the sorted spans that no message here has, as spans. Loops over messages, not over UIDs."""
        uids = self._uids
        for low, high in spans:
            for index in range(bisect_left(uids, low), len(uids)):
                uid = uids[index]
                if uid > high:
                    break
                if low < uid:
                    yield low, uid - 1
                low = uid + 1
            if low <= high:
                yield low, high

    def _by_uid(self, sequence_set: SequenceSet) -> list[int]:
        # `*` is the largest UID in use; UIDs above it name nothing, unless a range includes it.
        numbers: list[int] = []
        for low, high in sequence_set.resolve(self.last_uid):
            numbers.extend(range(bisect_left(self._uids, low) + 1, bisect_right(self._uids, high) + 1))
        return numbers

    # --- messages ----------------------------------------------------------------------------------------

    def flags(self, number: int) -> Flag:
        """The stored system flags of a message."""
        return Flag(self._flags[number - 1])

    def flag_names(self, number: int) -> tuple[str, ...]:
        """The flags of a message in this session, as IMAP writes them."""
        names = _FLAG_COMBINATIONS[self._flags[number - 1]]
        keywords = self._keywords.get(self._uids[number - 1])
        if keywords:
            names = (*names, *keywords)
        return (*names, "\\Recent") if self.is_recent(number) else names

    def keywords(self, number: int) -> tuple[str, ...]:
        """The keywords of a message."""
        return self._keywords.get(self._uids[number - 1], ())

    def mod_seq_of(self, number: int) -> int:
        """The mod-sequence of a message (RFC 7162 §3.1)."""
        return self._mod_seqs[number - 1]

    def is_recent(self, number: int) -> bool:
        """Is the message \\Recent in this session (RFC 3501 §2.3.2)?"""
        if not self._recent:
            return False
        uid = self._uids[number - 1]
        at = bisect_right(self._recent, uid, key=attrgetter("first"))  # claims ascend
        return at > 0 and uid < self._recent[at - 1].until

    @property
    def recent(self) -> int:
        """How many messages are \\Recent in this session."""
        return sum(
            bisect_left(self._uids, claimed.until) - bisect_left(self._uids, claimed.first) for claimed in self._recent
        )

    def first_unseen(self) -> int | None:
        """The lowest sequence number without \\Seen (RFC 3501 §7.1, UNSEEN)."""
        return next((i for i, flags in enumerate(self._flags, 1) if not flags & Flag.SEEN), None)

    # --- changes -----------------------------------------------------------------------------------------

    def claim(self, claimed: RecentRange) -> None:
        """These messages are \\Recent here."""
        if claimed.first >= claimed.until:
            return
        if self._recent and self._recent[-1].until >= claimed.first:
            claimed = RecentRange(self._recent.pop().first, claimed.until)
        self._recent.append(claimed)

    def apply(self, rows: FlagRows, expunged: Iterable[int], mod_seq: int | None = None) -> Updates:
        """Add new messages, update changed ones, and mark expunged ones, which wait for `release`.

        `mod_seq`: `rows` and `expunged` have every change of the mailbox up to here; None: they have changes of this
        session alone, and other sessions may have made changes before them.
        """
        before = self.exists
        if not self._expunged:
            self._mod_seq_before_expunged = self.mod_seq
        self._expunged.update(uid for uid in expunged if self.number(uid) is not None)
        changed: list[int] = []
        for index, uid in enumerate(rows.uids):
            number = self.number(uid)
            if number is None:
                # Own changes are of known messages; UIDs only grow (invariant 6), so a higher one is a new message.
                if mod_seq is not None and uid > self.last_uid:
                    self._append(rows, index)
            elif self._mod_seqs[number - 1] < rows.mod_seqs[index]:
                self._replace(number - 1, rows, index)
                changed.append(uid)
        if mod_seq is not None:
            self.mod_seq = max(self.mod_seq, mod_seq)
        self._highest_mod_seq = max(self._highest_mod_seq, self.mod_seq, max(rows.mod_seqs, default=0))
        return Updates(self.exists - before, tuple(changed))

    def _append(self, rows: FlagRows, index: int) -> None:
        uid = rows.uids[index]
        self._uids.append(uid)
        self._mod_seqs.append(rows.mod_seqs[index])
        self._flags.append(rows.flags[index])
        if uid in rows.keywords:
            self._keywords[uid] = rows.keywords[uid]

    def _replace(self, place: int, rows: FlagRows, index: int) -> None:
        uid = rows.uids[index]
        self._mod_seqs[place] = rows.mod_seqs[index]
        self._flags[place] = rows.flags[index]
        if uid in rows.keywords:
            self._keywords[uid] = rows.keywords[uid]
        else:
            self._keywords.pop(uid, None)

    def release(self) -> Released:
        """Remove the expunged messages; the caller reports them now. Numbers descend, so that each stays valid."""
        if not self._expunged:
            return Released()
        expunged, self._expunged = self._expunged, set()
        numbers = sorted((self._number_of(uid) for uid in expunged), reverse=True)
        if len(numbers) <= _FEW:
            for number in numbers:
                del self._uids[number - 1], self._mod_seqs[number - 1], self._flags[number - 1]
        else:
            kept = [index for index, uid in enumerate(self._uids) if uid not in expunged]
            self._uids = array("I", (self._uids[index] for index in kept))
            self._mod_seqs = array("Q", (self._mod_seqs[index] for index in kept))
            self._flags = bytearray(self._flags[index] for index in kept)
        for uid in expunged:
            self._keywords.pop(uid, None)
        return Released(tuple(numbers), tuple(sorted(expunged)))

    def _number_of(self, uid: int) -> int:
        number = self.number(uid)
        assert number is not None
        return number
