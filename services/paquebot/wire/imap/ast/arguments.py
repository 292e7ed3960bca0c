"""The arguments of commands other than SEARCH and FETCH, as values.

RFC 3501 §6.3; RFC 5258, RFC 6154 §3, RFC 7162 §3.2.5, RFC 8438, RFC 8474 §4, RFC 3516, RFC 6855 §4.
"""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass

from paquebot.wire.imap.sequence_set import SequenceSet


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
