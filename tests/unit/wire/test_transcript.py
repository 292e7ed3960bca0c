"""Transcripts: the kept pieces do not depend on how the octets are cut, and hold no passwords and no messages."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.wire.transcript import (
    MAX_LITERAL,
    MAX_SERVER_LINE,
    ImapTranscriptFilter,
    LeftOut,
    Line,
    Piece,
    Pop3TranscriptFilter,
    SmtpTranscriptFilter,
)

FETCHED = (
    b"* 1 FETCH (UID 7 BODY[] {17}\r\nSubject: x\r\n\r\nhi\n FLAGS (\\Seen))\r\n"
    b"* 2 FETCH (BODY[HEADER.FIELDS (TO)]<0> {6}\r\nTo: a\n BINARY[1] ~{3}\r\na\0b RFC822.TEXT {2}\r\nok)\r\n"
    b"a1 OK FETCH completed\r\n"
)
LISTED = b'* LIST () "/" {5}\r\na"b\\c\r\n* LIST () "/" {4}\r\na\r\nb\r\na2 OK LIST completed\r\n'


Filter = ImapTranscriptFilter | Pop3TranscriptFilter | SmtpTranscriptFilter


def all_pieces(transcript: Filter, chunk: bytes, cuts: list[int]) -> list[Piece]:
    pieces: list[Piece] = []
    edges = sorted({0, len(chunk), *(cut % (len(chunk) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(edges):
        pieces += transcript.server_data(chunk[start:end])
    return pieces


def test_imap_leaves_out_literals_of_messages() -> None:
    assert ImapTranscriptFilter().server_data(FETCHED) == [
        Line(b"* 1 FETCH (UID 7 BODY[] {17}"),
        LeftOut(17),
        Line(b" FLAGS (\\Seen))"),
        Line(b"* 2 FETCH (BODY[HEADER.FIELDS (TO)]<0> {6}"),
        LeftOut(6),
        Line(b" BINARY[1] ~{3}"),
        LeftOut(3),
        Line(b" RFC822.TEXT {2}"),
        LeftOut(2),
        Line(b")"),
        Line(b"a1 OK FETCH completed"),
    ]


def test_imap_keeps_a_name_and_leaves_out_a_literal_with_line_ends() -> None:
    assert ImapTranscriptFilter().server_data(LISTED) == [
        Line(b'* LIST () "/" {5}'),
        Line(b'a"b\\c'),
        Line(b'* LIST () "/" {4}'),
        LeftOut(4),
        Line(b""),
        Line(b"a2 OK LIST completed"),
    ]


@given(st.sampled_from((FETCHED, LISTED)), st.lists(st.integers(0, 200)))
def test_imap_keeps_the_same_pieces_for_any_cuts(chunk: bytes, cuts: list[int]) -> None:
    assert all_pieces(ImapTranscriptFilter(), chunk, cuts) == ImapTranscriptFilter().server_data(chunk)


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(0, 500)))
def test_imap_never_keeps_a_message(bodies: list[bytes], cuts: list[int]) -> None:
    secret = b"SECRET"
    chunk = b"".join(
        b"* %d FETCH (BODY[1]<%d> {%d}\r\n%b)\r\n" % (number, number, len(body) + 6, secret + body)
        for number, body in enumerate(bodies, 1)
    )
    pieces = all_pieces(ImapTranscriptFilter(), chunk, cuts)
    assert not any(secret in piece.data for piece in pieces if isinstance(piece, Line))
    assert [piece.count for piece in pieces if isinstance(piece, LeftOut)] == [len(body) + 6 for body in bodies]


def test_a_line_without_end_is_not_buffered() -> None:
    transcript = ImapTranscriptFilter()
    for _ in range(100):
        assert transcript.server_data(b"x" * 10_000) == []
    [line] = transcript.server_data(b"\r\n")
    assert line == Line(b"x" * MAX_SERVER_LINE, cut=True)


def test_a_long_literal_is_left_out_even_behind_a_long_line() -> None:
    chunk = (
        b"* LIST " + b"y" * 2 * MAX_SERVER_LINE + b" {%d}\r\n" % (MAX_LITERAL + 1) + b"z" * (MAX_LITERAL + 1) + b"\r\n"
    )
    cut, left_out, rest = ImapTranscriptFilter().server_data(chunk)
    assert isinstance(cut, Line)
    assert cut.cut
    assert (left_out, rest) == (LeftOut(MAX_LITERAL + 1), Line(b""))


@pytest.mark.parametrize(
    ("make", "line", "kept"),
    [
        (ImapTranscriptFilter, b'a LOGIN alice "secret"', b"a LOGIN (left out)"),
        (ImapTranscriptFilter, b"a  login alice secret", b"a login (left out)"),
        (ImapTranscriptFilter, b"a AUTHENTICATE PLAIN AGEAcw==", b"a AUTHENTICATE (left out)"),
        (ImapTranscriptFilter, b"a SELECT secret", b"a SELECT secret"),
        (Pop3TranscriptFilter, b"PASS secret", b"PASS (left out)"),
        (Pop3TranscriptFilter, b"auth PLAIN AGEAcw==", b"auth (left out)"),
        (Pop3TranscriptFilter, b"APOP alice c4c9334bac560ecc979e58001b3e22fb", b"APOP (left out)"),
        (Pop3TranscriptFilter, b"LIST", b"LIST"),
        (SmtpTranscriptFilter, b"AUTH PLAIN AGEAcw==\r\n", b"AUTH (left out)"),
        (SmtpTranscriptFilter, b"MAIL FROM:<>\r\n", b"MAIL FROM:<>"),
        (SmtpTranscriptFilter, b" AUTH PLAIN AGEAcw==\r\n", b"AUTH (left out)"),
        (SmtpTranscriptFilter, b"AUTH\tPLAIN\tAGEAcw==\r\n", b"AUTH (left out)"),
        (SmtpTranscriptFilter, b"XCLIENT LOGIN=secret\r\n", b"XCLIENT (left out)"),
        (Pop3TranscriptFilter, b"PASS\tsecret", b"PASS (left out)"),
        (Pop3TranscriptFilter, b" pass secret", b"pass (left out)"),
        (Pop3TranscriptFilter, b"XAUTH secret", b"XAUTH (left out)"),
        (ImapTranscriptFilter, b"LOGIN alice secret", b"LOGIN (left out)"),
        (ImapTranscriptFilter, b"a XLOGIN alice secret", b"a XLOGIN (left out)"),
    ],
)
def test_passwords_are_left_out(make: Callable[[], Filter], line: bytes, kept: bytes) -> None:
    assert make().client_line(line) == [Line(kept)]


@pytest.mark.parametrize(
    ("make", "begun", "lines", "command"),
    [
        (SmtpTranscriptFilter, b"AUTH LOGIN", (b"YWxpY2U=", b"c2VjcmV0"), b"RSET"),
        (SmtpTranscriptFilter, b"AUTH LOGIN", (b"alice", b"secret"), b"MAIL FROM:<a@b.example>"),
        (SmtpTranscriptFilter, b"DATA", (b"Subject: secret", b"", b"Help me", b"Mail is secret", b"."), b"NOOP"),
        (SmtpTranscriptFilter, b"BDAT x LAST", (b"Subject: secret", b"", b"secret"), b"QUIT"),
        (Pop3TranscriptFilter, b"AUTH PLAIN", (b"AGEAcw", b"AGEAcw=="), b"STAT"),
        (ImapTranscriptFilter, b"a AUTHENTICATE PLAIN", (b"AGEAcw==",), b"b NOOP"),
        (ImapTranscriptFilter, b"a APPEND no {60}", (b"Subject: secret", b"", b"my secret is", b"secret"), b"b NOOP"),
        (ImapTranscriptFilter, b"{1+}", (b"secret",), b"b UID FETCH 1 (FLAGS)"),
    ],
)
def test_lines_after_a_refused_command_are_left_out(
    make: Callable[[], Filter], begun: bytes, lines: tuple[bytes, ...], command: bytes
) -> None:
    transcript = make()
    transcript.client_line(begun)
    for line in lines:
        [piece] = transcript.client_line(line)
        assert piece in (LeftOut(len(line) + 2), Line(b""))
    assert transcript.client_line(command) == [Line(command)]


def test_words_of_a_message_are_not_taken_for_tags() -> None:
    transcript = ImapTranscriptFilter()
    transcript.client_line(b"a APPEND no {60}")
    assert transcript.server_data(b"a NO No such mailbox\r\n") == [Line(b"a NO No such mailbox")]
    transcript.client_line(b"secret is what it is")
    assert transcript.server_data(b"secret BAD Unknown command\r\n") == [Line(b"(left out) BAD Unknown command")]


def test_an_accepted_append_is_no_refusal() -> None:
    transcript = ImapTranscriptFilter()
    transcript.client_line(b"a APPEND INBOX {60}")
    assert transcript.client_content(60) == [LeftOut(60)]
    assert transcript.client_line(b"", first=False) == [Line(b"")]
    assert transcript.client_line(b"b XUNKNOWN") == [Line(b"b XUNKNOWN")]


@pytest.mark.parametrize("command", [b" RETR 1", b"RETR\t1", b"top\t1 9"])
def test_a_message_is_left_out_for_each_form_of_its_command(command: bytes) -> None:
    transcript = Pop3TranscriptFilter()
    transcript.client_line(command)
    assert transcript.server_data(b"+OK\r\nsecret\r\n.\r\n") == [Line(b"+OK"), LeftOut(8), Line(b".")]


def test_a_password_in_a_literal_is_left_out() -> None:
    transcript = ImapTranscriptFilter()
    transcript.client_line(b"a LOGIN {5}")
    assert transcript.client_literal(b"alice") == [LeftOut(5)]
    assert transcript.client_line(b" {6}", first=False) == [LeftOut(4)]
    assert transcript.client_literal(b"secret") == [LeftOut(6)]
    assert transcript.client_line(b"b SELECT {5}") == [Line(b"b SELECT {5}")]
    assert transcript.client_literal(b"INBOX") == [Line(b"INBOX", cut=True)]


@given(st.lists(st.integers(0, 200)))
def test_pop3_keeps_lists_and_leaves_out_messages(cuts: list[int]) -> None:
    transcript = Pop3TranscriptFilter()
    transcript.client_line(b"LIST")
    listed = b"+OK 1 messages\r\n1 20\r\n.\r\n"
    assert all_pieces(transcript, listed, cuts) == [Line(b"+OK 1 messages"), Line(b"1 20"), Line(b".")]
    transcript.client_line(b"retr 1")
    message = b"+OK 20 octets\r\nSubject: x\r\n\r\n..dot\r\n.\r\n"
    assert all_pieces(transcript, message, cuts) == [Line(b"+OK 20 octets"), LeftOut(21), Line(b".")]
    transcript.client_line(b"RETR 9")
    assert all_pieces(transcript, b"-ERR No such message\r\n", cuts) == [Line(b"-ERR No such message")]
    transcript.client_line(b"NOOP")
    assert all_pieces(transcript, b"+OK\r\n", cuts) == [Line(b"+OK")]
