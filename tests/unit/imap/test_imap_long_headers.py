"""HEADER.FIELDS of long headers: read in steps, with the same bytes as in one step."""

from __future__ import annotations

import datetime
import sys

from hypothesis import given
from hypothesis import strategies as st

from paquebot.imap.fetch import sections
from paquebot.imap.fetch.long_sections import LongHeader
from paquebot.mailstore import Flag, StoredMessage
from paquebot.message import header_fields, summarise
from paquebot.v1.mail_pb2 import BlobRef
from paquebot.wire.imap.ast import FetchSection, Partial, Section, SectionSpecifier

NAMES = frozenset({b"a", b"subject"})
LINES = st.sampled_from([b"a: 1", b"Subject: x", b" folded", b"b:", b"no field", b"A:\xff", b"From x", b":", b"a :"])
ENDS = st.sampled_from([b"\r\n", b"\n", b"\r\n\r\n"])
HEADERS = st.lists(st.tuples(LINES, ENDS), max_size=8).map(
    lambda parts: b"".join(line + end for line, end in parts).partition(b"\r\n\r\n")[0]
)


def bytes_of(header: LongHeader, partial: Partial) -> bytes:
    return b"".join(header.chunks(partial))


@given(HEADERS, st.booleans(), st.booleans())
def test_the_bytes_are_those_of_a_short_header(header: bytes, ended: bool, negate: bool) -> None:
    raw = header + b"\r\n\r\n" * ended
    found = LongHeader(raw + b"body" * ended, 0, len(raw), NAMES, negate, b"")
    whole = header_fields(raw, ["a", "Subject"], negate=negate)
    *steps, size = found.size(sys.maxsize)
    assert steps == [None] * len(steps)
    assert size == len(whole)
    assert bytes_of(found, Partial(0, len(whole))) == whole
    assert bytes_of(found, Partial(3, 5)) == whole[3:8]


def test_many_fields_are_read_in_steps() -> None:
    """A quarter of a megabyte may have 65,000 fields, and a command may request 256 sections of it."""
    raw = b"a:\r\n" * 5000 + b"\r\n"
    at = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    message = StoredMessage(1, 1, Flag(0), (), len(raw), at, at, BlobRef(), b"", "", None, None)
    asked = FetchSection(Section((), SectionSpecifier.HEADER_FIELDS, (b"x",)))
    found = sections.section(message, summarise(raw), raw, asked)
    assert isinstance(found, LongHeader)
    assert list(found.size(sys.maxsize)) == [None] * 5 + [2]
