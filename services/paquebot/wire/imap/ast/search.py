"""The keys of SEARCH as values; strings are the client's octets, in the charset of their Search.

RFC 3501 §6.4.4; RFC 4731, RFC 5032, RFC 5182, RFC 7162 §3.1.5, RFC 8474 §5, RFC 8514 §4.
"""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass
from typing import TypeAlias

from paquebot.wire.imap.sequence_set import SequenceSet


class DateField(enum.Enum):
    INTERNAL = "internal"  # BEFORE / ON / SINCE
    SENT = "sent"  # SENTBEFORE / SENTON / SENTSINCE: the Date: header
    SAVED = "saved"  # SAVEDBEFORE / SAVEDON / SAVEDSINCE: RFC 8514


class DateOp(enum.Enum):
    BEFORE = "before"
    ON = "on"
    SINCE = "since"


class SizeOp(enum.Enum):
    LARGER = "larger"
    SMALLER = "smaller"


class AgeOp(enum.Enum):
    OLDER = "older"
    YOUNGER = "younger"


class ObjectKind(enum.Enum):
    EMAIL = "emailid"
    THREAD = "threadid"


class EntryType(enum.Enum):
    """SEARCH MODSEQ's entry-type-req (RFC 7162 §3.1.5)."""

    SHARED = "shared"
    PRIVATE = "priv"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class SearchAll:
    """ALL"""


@dataclass(frozen=True, slots=True)
class SearchFlag:
    """A flag or keyword is set (present) or not: ANSWERED, UNANSWERED, KEYWORD x, RECENT, OLD, ...

    OLD is \\Recent absent; NEW is written as SearchAnd(\\Recent present, \\Seen absent).
    """

    flag: str
    present: bool


@dataclass(frozen=True, slots=True)
class SearchSequence:
    """Message sequence numbers (or `$`)."""

    sequence_set: SequenceSet


@dataclass(frozen=True, slots=True)
class SearchUid:
    """UID sequence-set"""

    sequence_set: SequenceSet


@dataclass(frozen=True, slots=True)
class SearchDate:
    """Dates disregard time and zone (RFC 3501 §6.4.4)."""

    field: DateField
    op: DateOp
    date: datetime.date


@dataclass(frozen=True, slots=True)
class SearchAge:
    """OLDER / YOUNGER n seconds than now, by internal date (RFC 5032)."""

    op: AgeOp
    seconds: int


@dataclass(frozen=True, slots=True)
class SearchSize:
    """RFC822.SIZE strictly larger or smaller."""

    op: SizeOp
    octets: int


@dataclass(frozen=True, slots=True)
class SearchHeader:
    """HEADER, and FROM, TO, CC, BCC, SUBJECT; `field` in lower case, `value` in the search's charset.

    An empty value asks for the field's presence.
    """

    field: str
    value: bytes


@dataclass(frozen=True, slots=True)
class SearchBody:
    """BODY: the text of the message's parts."""

    value: bytes


@dataclass(frozen=True, slots=True)
class SearchText:
    """TEXT: header or body."""

    value: bytes


@dataclass(frozen=True, slots=True)
class SearchModSeq:
    """MODSEQ [entry-name entry-type] n: mod-sequence n or higher (RFC 7162 §3.1.5)."""

    mod_seq: int
    entry_name: str | None = None
    entry_type: EntryType | None = None


@dataclass(frozen=True, slots=True)
class SearchObjectId:
    """EMAILID / THREADID (RFC 8474 §5.3, §5.4)."""

    kind: ObjectKind
    object_id: str


@dataclass(frozen=True, slots=True)
class SearchSaveDateSupported:
    """SAVEDATESUPPORTED (RFC 8514 §4.3)"""


@dataclass(frozen=True, slots=True)
class SearchNot:
    key: SearchKey


@dataclass(frozen=True, slots=True)
class SearchOr:
    left: SearchKey
    right: SearchKey


@dataclass(frozen=True, slots=True)
class SearchAnd:
    """A parenthesised list, or the command's own list if it has several keys."""

    keys: tuple[SearchKey, ...]


SearchKey: TypeAlias = (
    SearchAll
    | SearchFlag
    | SearchSequence
    | SearchUid
    | SearchDate
    | SearchAge
    | SearchSize
    | SearchHeader
    | SearchBody
    | SearchText
    | SearchModSeq
    | SearchObjectId
    | SearchSaveDateSupported
    | SearchNot
    | SearchOr
    | SearchAnd
)


class SearchReturn(enum.Enum):
    """RETURN options (RFC 4731, RFC 5182)."""

    MIN = b"MIN"
    MAX = b"MAX"
    ALL = b"ALL"
    COUNT = b"COUNT"
    SAVE = b"SAVE"
