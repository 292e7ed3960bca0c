"""What an IMAP client can say, as values: one frozen type per command, search key and fetch item.

Tags, mechanism payloads and search strings are bytes as received. Mailbox names and patterns are Unicode,
already decoded from modified UTF-7 (or UTF-8) and with INBOX in upper case. System flags have the standard's
spelling ("\\Seen"); keywords keep the client's. Numbers are checked against the grammar's ranges.

RFC 3501 §9 and the extensions named beside each type; shaped so that RFC 9051 needs no change here.
"""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass, field
from typing import TypeAlias

from paquebot.wire.imap.sequence_set import SequenceSet


class State(enum.Enum):
    """Connection states in which commands arrive (RFC 3501 §3)."""

    NOT_AUTHENTICATED = "not authenticated"
    AUTHENTICATED = "authenticated"
    SELECTED = "selected"


# --- search keys: RFC 3501 §6.4.4 ------------------------------------------------------------------------


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
    """A parenthesised list, or the command's own list when it has several keys."""

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


# --- fetch items: RFC 3501 §6.4.5 ------------------------------------------------------------------------


class FetchItem(enum.Enum):
    """Items without parameters; the value is the response's item name."""

    ENVELOPE = b"ENVELOPE"
    FLAGS = b"FLAGS"
    INTERNALDATE = b"INTERNALDATE"
    RFC822_SIZE = b"RFC822.SIZE"
    UID = b"UID"
    BODY = b"BODY"  # BODYSTRUCTURE without extension data
    BODYSTRUCTURE = b"BODYSTRUCTURE"
    MODSEQ = b"MODSEQ"  # RFC 7162
    EMAILID = b"EMAILID"  # RFC 8474
    THREADID = b"THREADID"  # RFC 8474
    SAVEDATE = b"SAVEDATE"  # RFC 8514


class SectionSpecifier(enum.Enum):
    HEADER = b"HEADER"
    HEADER_FIELDS = b"HEADER.FIELDS"
    HEADER_FIELDS_NOT = b"HEADER.FIELDS.NOT"
    TEXT = b"TEXT"
    MIME = b"MIME"


@dataclass(frozen=True, slots=True)
class Section:
    """section-spec: BODY[] is Section(()); `fields` as the client wrote them, for the two header lists."""

    path: tuple[int, ...] = ()
    specifier: SectionSpecifier | None = None
    fields: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Partial:
    """<offset.count> in octets; the response echoes only <offset>."""

    offset: int
    count: int


class SectionForm(enum.Enum):
    """Under which name a section was asked for, and so is answered; the value is the response's prefix."""

    BODY = b"BODY"
    RFC822 = b"RFC822"  # is BODY[]
    RFC822_HEADER = b"RFC822.HEADER"  # is BODY.PEEK[HEADER]
    RFC822_TEXT = b"RFC822.TEXT"  # is BODY[TEXT]


@dataclass(frozen=True, slots=True)
class FetchSection:
    """BODY[section]<partial>, BODY.PEEK[...], and the three RFC822 forms. Unless `peek`, sets \\Seen."""

    section: Section
    partial: Partial | None = None
    peek: bool = False
    form: SectionForm = SectionForm.BODY


@dataclass(frozen=True, slots=True)
class FetchBinary:
    """BINARY[path]<partial>: the part with its transfer encoding removed (RFC 3516)."""

    path: tuple[int, ...]
    partial: Partial | None = None
    peek: bool = False


@dataclass(frozen=True, slots=True)
class FetchBinarySize:
    """BINARY.SIZE[path] (RFC 3516)"""

    path: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FetchPreview:
    """PREVIEW or PREVIEW (LAZY) (RFC 8970)"""

    lazy: bool


FetchAttribute: TypeAlias = FetchItem | FetchSection | FetchBinary | FetchBinarySize | FetchPreview


# --- parts of other commands -----------------------------------------------------------------------------


class StatusItem(enum.Enum):
    MESSAGES = b"MESSAGES"
    RECENT = b"RECENT"
    UIDNEXT = b"UIDNEXT"
    UIDVALIDITY = b"UIDVALIDITY"
    UNSEEN = b"UNSEEN"
    DELETED = b"DELETED"  # RFC 9051 §6.3.11
    SIZE = b"SIZE"  # RFC 8438
    HIGHESTMODSEQ = b"HIGHESTMODSEQ"  # RFC 7162 §3.1.7
    APPENDLIMIT = b"APPENDLIMIT"  # RFC 7889
    MAILBOXID = b"MAILBOXID"  # RFC 8474 §4.3


class ListSelect(enum.Enum):
    """LIST selection options (RFC 5258 §3, RFC 6154 §3)."""

    SUBSCRIBED = b"SUBSCRIBED"
    REMOTE = b"REMOTE"
    RECURSIVEMATCH = b"RECURSIVEMATCH"
    SPECIAL_USE = b"SPECIAL-USE"


class ListReturn(enum.Enum):
    """LIST return options without parameters (RFC 5258 §3, RFC 6154 §3)."""

    SUBSCRIBED = b"SUBSCRIBED"
    CHILDREN = b"CHILDREN"
    SPECIAL_USE = b"SPECIAL-USE"


class StoreMode(enum.Enum):
    SET = "FLAGS"
    ADD = "+FLAGS"
    REMOVE = "-FLAGS"


@dataclass(frozen=True, slots=True)
class QResync:
    """SELECT's QRESYNC parameter (RFC 7162 §3.2.5)."""

    uid_validity: int
    mod_seq: int
    known_uids: SequenceSet | None = None
    known_sequence: SequenceSet | None = None  # seq-match-data: numbers ...
    known_sequence_uids: SequenceSet | None = None  # ... and the UIDs they had


@dataclass(frozen=True, slots=True)
class AppendMessage:
    """One message of APPEND; its octets went to the service as they arrived and are not kept here.

    `binary` is literal8 (RFC 3516), `utf8` the UTF8 (~{n}) form (RFC 6855 §4).
    """

    flags: tuple[str, ...]
    internal_date: datetime.datetime | None
    size: int
    binary: bool = False
    utf8: bool = False


# --- commands --------------------------------------------------------------------------------------------
# Any state: RFC 3501 §6.1


@dataclass(frozen=True, slots=True)
class Capability:
    tag: bytes


@dataclass(frozen=True, slots=True)
class Noop:
    tag: bytes


@dataclass(frozen=True, slots=True)
class Logout:
    tag: bytes


@dataclass(frozen=True, slots=True)
class Id:
    """RFC 2971; None is ID NIL."""

    tag: bytes
    parameters: tuple[tuple[bytes, bytes | None], ...] | None


# Not authenticated: RFC 3501 §6.2


@dataclass(frozen=True, slots=True)
class StartTls:
    tag: bytes


@dataclass(frozen=True, slots=True)
class Authenticate:
    """`mechanism` in upper case; `initial_response` decoded from base64, b"" for "=" (RFC 4959)."""

    tag: bytes
    mechanism: str
    initial_response: bytes | None = field(repr=False)  # may hold a password


@dataclass(frozen=True, slots=True)
class Login:
    tag: bytes
    userid: bytes
    password: bytes = field(repr=False)


# Authenticated: RFC 3501 §6.3


@dataclass(frozen=True, slots=True)
class Enable:
    """Capability names in upper case (RFC 5161)."""

    tag: bytes
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Select:
    """SELECT, with RFC 7162's CONDSTORE and QRESYNC parameters."""

    tag: bytes
    mailbox: str
    condstore: bool = False
    qresync: QResync | None = None


@dataclass(frozen=True, slots=True)
class Examine:
    """EXAMINE: SELECT, read-only."""

    tag: bytes
    mailbox: str
    condstore: bool = False
    qresync: QResync | None = None


@dataclass(frozen=True, slots=True)
class Create:
    """`mailbox` may end in the hierarchy delimiter; `special_use` as "\\Drafts" (RFC 6154 §3)."""

    tag: bytes
    mailbox: str
    special_use: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Delete:
    tag: bytes
    mailbox: str


@dataclass(frozen=True, slots=True)
class Rename:
    tag: bytes
    mailbox: str
    new_name: str


@dataclass(frozen=True, slots=True)
class Subscribe:
    tag: bytes
    mailbox: str


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    tag: bytes
    mailbox: str


@dataclass(frozen=True, slots=True)
class List:
    """LIST, basic and extended (RFC 5258). `extended` tells which form the client used: the basic form's
    single empty pattern asks for the delimiter (RFC 3501 §6.3.8)."""

    tag: bytes
    reference: str
    patterns: tuple[str, ...]
    select: frozenset[ListSelect] = frozenset()
    returns: frozenset[ListReturn] = frozenset()
    return_status: tuple[StatusItem, ...] = ()  # RFC 5819
    extended: bool = False


@dataclass(frozen=True, slots=True)
class Lsub:
    tag: bytes
    reference: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Namespace:
    """RFC 2342"""

    tag: bytes


@dataclass(frozen=True, slots=True)
class Status:
    tag: bytes
    mailbox: str
    items: tuple[StatusItem, ...]


@dataclass(frozen=True, slots=True)
class Append:
    """Several messages are MULTIAPPEND (RFC 3502); always at least one."""

    tag: bytes
    mailbox: str
    messages: tuple[AppendMessage, ...]


@dataclass(frozen=True, slots=True)
class Idle:
    """RFC 2177; the DONE line is read with `parse_done`."""

    tag: bytes


@dataclass(frozen=True, slots=True)
class Compress:
    """RFC 4978; `mechanism` in upper case, "DEFLATE"."""

    tag: bytes
    mechanism: str


# Selected: RFC 3501 §6.4


@dataclass(frozen=True, slots=True)
class Check:
    tag: bytes


@dataclass(frozen=True, slots=True)
class Close:
    tag: bytes


@dataclass(frozen=True, slots=True)
class Unselect:
    """RFC 3691"""

    tag: bytes


@dataclass(frozen=True, slots=True)
class Expunge:
    tag: bytes


@dataclass(frozen=True, slots=True)
class UidExpunge:
    """RFC 4315 §2.1"""

    tag: bytes
    sequence_set: SequenceSet


@dataclass(frozen=True, slots=True)
class Search:
    """`charset` in upper case, None when not given (US-ASCII, RFC 3501 §6.4.4). `returns` is None for a
    plain SEARCH; RETURN () is {ALL} (RFC 4731 §3.1). `key` is the whole program, a SearchAnd when several."""

    tag: bytes
    uid: bool
    charset: str | None
    key: SearchKey
    returns: frozenset[SearchReturn] | None = None


@dataclass(frozen=True, slots=True)
class Fetch:
    """Macros are expanded; UID FETCH has FetchItem.UID added when the client left it out (RFC 3501 §6.4.8),
    CHANGEDSINCE adds FetchItem.MODSEQ (RFC 7162 §3.1.4.1). Items are in the client's order, each once."""

    tag: bytes
    uid: bool
    sequence_set: SequenceSet
    attributes: tuple[FetchAttribute, ...]
    changed_since: int | None = None
    vanished: bool = False


@dataclass(frozen=True, slots=True)
class Store:
    """`unchanged_since` is RFC 7162 §3.1.3's modifier (0 is a value that no message can satisfy)."""

    tag: bytes
    uid: bool
    sequence_set: SequenceSet
    mode: StoreMode
    silent: bool
    flags: tuple[str, ...]
    unchanged_since: int | None = None


@dataclass(frozen=True, slots=True)
class Copy:
    tag: bytes
    uid: bool
    sequence_set: SequenceSet
    mailbox: str


@dataclass(frozen=True, slots=True)
class Move:
    """RFC 6851"""

    tag: bytes
    uid: bool
    sequence_set: SequenceSet
    mailbox: str


@dataclass(frozen=True, slots=True)
class UnknownCommand:
    """A well-formed tag and a name that no table knows ("X-FOO", "UID X-FOO"); answer tagged BAD."""

    tag: bytes
    name: str


Command: TypeAlias = (
    Capability
    | Noop
    | Logout
    | Id
    | StartTls
    | Authenticate
    | Login
    | Enable
    | Select
    | Examine
    | Create
    | Delete
    | Rename
    | Subscribe
    | Unsubscribe
    | List
    | Lsub
    | Namespace
    | Status
    | Append
    | Idle
    | Compress
    | Check
    | Close
    | Unselect
    | Expunge
    | UidExpunge
    | Search
    | Fetch
    | Store
    | Copy
    | Move
    | UnknownCommand
)
