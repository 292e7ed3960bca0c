"""The commands of an IMAP client: one frozen type for each."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TypeAlias

from paquebot.wire.imap.ast.arguments import AppendMessage, ListReturn, ListSelect, QResync, StatusItem, StoreMode
from paquebot.wire.imap.ast.fetch import FetchAttribute
from paquebot.wire.imap.ast.search import SearchKey, SearchReturn
from paquebot.wire.imap.sequence_set import SequenceSet


class State(enum.Enum):
    """Connection states in which commands arrive (RFC 3501 §3)."""

    NOT_AUTHENTICATED = "not authenticated"
    AUTHENTICATED = "authenticated"
    SELECTED = "selected"


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
    """LIST, basic and extended (RFC 5258). `extended`: the client used the extended form; in the basic form a single
    empty pattern asks for the delimiter (RFC 3501 §6.3.8)."""

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
    """Macros are expanded; UID FETCH has FetchItem.UID even if the client left it out (RFC 3501 §6.4.8),
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
    """A well-formed tag and an unknown name ("X-FOO", "UID X-FOO"); answer tagged BAD."""

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
