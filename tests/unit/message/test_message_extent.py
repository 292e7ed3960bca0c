"""A summary marks omissions; one of an older version counts as complete only where nothing can be missing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.message import (
    CACHED_HEADERS,
    WHOLE,
    MessageSummary,
    has_whole_envelope,
    has_whole_structure,
    is_surely_whole,
    summarise,
)
from paquebot.message.limits import STORED, Bounds
from paquebot.message.summary.envelope import ENVELOPE_FIELDS

MIXED = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
PLAIN = b"From: a@b.test\r\nTo: c@d.test, e@f.test\r\nSubject: x\r\n\r\nbody\r\n"
FORWARD = MIXED + b"--b\r\nContent-Type: message/rfc822\r\n\r\n" + PLAIN + b"--b--\r\n"


def to(count: int) -> bytes:
    return b"To: " + b",\r\n ".join(b"u%d@example.org" % number for number in range(count)) + b"\r\n\r\n"


def parts(count: int, header: bytes = b"") -> bytes:
    return MIXED + (b"--b\r\n" + header + b"\r\nx\r\n") * count + b"--b--\r\n"


# (message, is the envelope complete, is the structure complete)
MESSAGES = {
    "plain": (PLAIN, True, True),
    "forwarded": (FORWARD, True, True),
    "a long trace": (b"X-Trace: " + b"t" * 30_000 + b"\r\n" + PLAIN, True, True),
    "a few parts": (parts(20), True, True),
    "many recipients": (to(2500), False, True),
    "a long subject": (b"Subject: " + b"s" * (STORED.envelope + 1) + b"\r\n\r\n", False, True),
    "fields behind a long one": (b"X: " + b"x" * STORED.header + b"\r\nTo: a@b\r\n\r\n", False, False),
    "many recipients of an embedded message": (FORWARD.replace(b"To: c@d.test\r\n", to(2500)[:-2]), True, True),
    "recipients of a forwarded message": (
        MIXED + b"--b\r\nContent-Type: message/rfc822\r\n\r\n" + to(2500),
        True,
        False,
    ),
    "many parts": (parts(STORED.parts), True, False),
    "long descriptions": (parts(20, b"Content-Description: " + b"d" * 5000 + b"\r\n"), True, False),
    "deep parts": (
        b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(60)),
        True,
        False,
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_omissions_are_marked(name: str) -> None:
    raw, envelope, structure = MESSAGES[name]
    summary = summarise(raw)
    assert (has_whole_envelope(summary), has_whole_structure(summary)) == (envelope, structure)
    assert is_surely_whole(summary.SerializeToString()) is (envelope and structure)
    whole = summarise(raw, WHOLE)
    assert has_whole_envelope(whole) and has_whole_structure(whole)
    if envelope:
        assert whole.envelope == summary.envelope
    if structure:
        assert whole.body == summary.body
    assert MessageSummary.FromString(whole.SerializeToString()) == whole


def test_all_fields_of_the_envelope_are_kept_or_marked_as_omitted() -> None:
    assert {name.decode() for name in ENVELOPE_FIELDS} <= CACHED_HEADERS


def before(summary: MessageSummary) -> MessageSummary:
    """Return the summary that older versions made."""
    found = MessageSummary.FromString(summary.SerializeToString())
    found.ClearField("envelope_extent")
    found.ClearField("body_extent")
    return found


@pytest.mark.parametrize("name", MESSAGES)
def test_rows_of_older_versions(name: str) -> None:
    raw, envelope, structure = MESSAGES[name]
    old = before(summarise(raw))
    assert not is_surely_whole(old.SerializeToString())
    assert not has_whole_envelope(old) or envelope
    assert not has_whole_structure(old) or structure
    if name in ("plain", "forwarded", "a few parts", "a long trace"):
        assert has_whole_envelope(old) and has_whole_structure(old)


def test_an_older_list_of_the_maximum_length_is_not_complete() -> None:
    old = before(summarise(b"To: " + b":;" * 3000 + b"\r\n\r\n"))
    assert len(old.envelope.to) == STORED.addresses
    assert not has_whole_envelope(old)


PIECES = (
    *(b"To: ", b"From: ", b"Subject: ", b"a@b, ", b":;", b",", b"x" * 900, b"\n", b"\r\n", b"\r\n\r\n", b"--b\r\n"),
    *(MIXED, b"Content-Type: message/rfc822\r\n\r\n", b"Content-Description: ", b"Content-Type: text/plain; a=b; c=d"),
)


@given(st.lists(st.tuples(st.sampled_from(PIECES), st.integers(1, 400))))
def test_an_older_summary_that_counts_as_complete_is_complete(pieces: list[tuple[bytes, int]]) -> None:
    summary = summarise(b"".join(piece * count for piece, count in pieces))
    old = before(summary)
    assert not has_whole_envelope(old) or has_whole_envelope(summary)
    assert not has_whole_structure(old) or has_whole_structure(summary)


def test_bounds_hold_for_whole_summaries() -> None:
    """The message exceeds every limit."""
    bounds = Bounds(parts=10, depth=3, header=2000, headers=5000, addresses=20, envelope=300, structure=200)
    raw = b"Subject: x\r\n" + to(1000)[:-2] + parts(50, b"Content-Description: " + b"d" * 50 + b"\r\n")
    summary = summarise(raw, bounds)
    assert not has_whole_envelope(summary) and not has_whole_structure(summary)
    assert len(summary.envelope.to) <= 20
    assert len(summary.body.parts) < 10
    assert sum(len(part.description) for part in summary.body.parts) <= 200
