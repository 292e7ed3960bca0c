"""The items and sections of FETCH as values.

RFC 3501 §6.4.5; RFC 3516, RFC 7162, RFC 8474 §5, RFC 8514, RFC 8970.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias


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
    """The name under which the client asked for a section; the value is the response's prefix."""

    BODY = b"BODY"
    RFC822 = b"RFC822"  # BODY[]
    RFC822_HEADER = b"RFC822.HEADER"  # BODY.PEEK[HEADER]
    RFC822_TEXT = b"RFC822.TEXT"  # BODY[TEXT]


@dataclass(frozen=True, slots=True)
class FetchSection:
    """BODY[section]<partial>, BODY.PEEK[...], and the three RFC822 forms. Unless `peek`, sets \\Seen."""

    section: Section
    partial: Partial | None = None
    peek: bool = False
    form: SectionForm = SectionForm.BODY


@dataclass(frozen=True, slots=True)
class FetchBinary:
    """BINARY[path]<partial>: the part, its transfer encoding decoded (RFC 3516)."""

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
