"""A transcript as a dialogue file: what differs is a star, what was left out is made up or read over."""

from __future__ import annotations

from typing import Any

import pytest

from paquebot.cli.session.dialogue import DialogueWriter
from paquebot.v1.directory_pb2 import TranscriptBeginning, TranscriptLine

ACCOUNT = "alice@example.org"


def written(protocol: str, *events: dict[str, Any]) -> list[str]:
    """The file without what begins the session."""
    lines: list[str] = []
    writer = DialogueWriter(lines.append, ACCOUNT)
    writer.add(TranscriptLine(session_id="1", protocol=protocol, begun=TranscriptBeginning(client="192.0.2.1")))
    lines.clear()
    for event in events:
        writer.add(TranscriptLine(**{"session_id": "1", "protocol": protocol, **event}))
    return lines


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b'* LIST () "/" a$b', 'S: * LIST () "/" a\\$b'),
        (b"* OK [UIDVALIDITY 3857529045] ok", "S: * OK [UIDVALIDITY *] ok"),
        (b"a OK [APPENDUID 38505 3955] ok", "S: a OK [APPENDUID * 3955] ok"),
        (b"* 1 FETCH (UID 7 MODSEQ (12345))", "S: * 1 FETCH (UID 7 MODSEQ (*))"),
        (b'* 1 FETCH (INTERNALDATE " 7-Feb-1994 21:52:25 -0800")', 'S: * 1 FETCH (INTERNALDATE "*")'),
        (b"a NO incident 01M8JRTHP1321DPTWMGQ526EDP", "S: a NO incident *"),
        (b"+ ", "S: +\\x20"),
        (b"* OK caf\xc3\xa9 \xe9", "S: * OK café \\\\xe9"),
        (b"* OK for alice@example.org", "S: * OK for {account}"),
        (b"* OK \x07", "S: * OK \\x07"),
    ],
)
def test_a_line_of_the_server(data: bytes, line: str) -> None:
    assert written("imap", {"server": data}) == [line]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b'a SELECT "a$(b) \\\\c"', 'C: a SELECT "a\\x24(b) \\\\\\\\c"'),
        (b"a SELECT caf\xe9", "C: a SELECT caf\\xe9"),
        (b"a FETCH 1 x\\c", "C: a FETCH 1 x\\x5cc"),
        (b"a LIST alice@example.org *", "C: a LIST {account} *"),
    ],
)
def test_a_line_of_the_client(data: bytes, line: str) -> None:
    assert written("imap", {"client": data}) == [line]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b'* 1 FETCH (UID 7 ENVELOPE (NIL "x" NIL))', "S: * 1 FETCH (UID 7 ENVELOPE *"),
        (b" BODYSTRUCTURE (NIL))", "S: \\x20BODYSTRUCTURE *"),
        (b'* 1 FETCH (BODY ("text" "plain"))', "S: * 1 FETCH (BODY *"),
    ],
)
def test_data_from_a_message_becomes_a_comment(data: bytes, line: str) -> None:
    comment, step = written("imap", {"server": data})
    assert comment.startswith("# ")
    assert step == line


def test_a_section_is_written_as_it_is() -> None:
    assert written("imap", {"server": b"* 1 FETCH (BODY[] {3}"}) == ["S: * 1 FETCH (BODY[] {3}"]


def test_alternating_sessions_are_kept_apart() -> None:
    lines = written(
        "imap",
        {"client": b"a NOOP"},
        {"client": b"b NOOP", "session_id": "2"},
        {"server": b"a OK"},
        {"server": b"b OK", "session_id": "2"},
    )
    assert [line for line in lines if line.startswith(("use", "connect"))] == [
        "connect imaps as s2",
        "use s1",
        "use s2",
    ]


def test_what_was_left_out() -> None:
    assert written("imap", {"client": b"a APPEND x {9+}"}, {"client_left_out": 9}, {"client": b""}) == [
        "C: a APPEND x {9+}",
        "fill 9 {account}",
        "C: ",
    ]
    assert written("imap", {"server": b"* 1 FETCH (BODY[] {9}"}, {"server_left_out": 9}) == [
        "S: * 1 FETCH (BODY[] {9}",
        "skip 9",
    ]
    assert written("pop3", {"client": b"RETR 1"}, {"server": b"+OK"}, {"server_left_out": 9}, {"server": b"."}) == [
        "C: RETR 1",
        "S: +OK",
        "S*: .",
    ]
    assert written("smtp", {"client": b"DATA"}, {"server": b"354 go"}, {"client_left_out": 103}) == [
        "C: DATA",
        "S: 354 go",
        "fill 100 {account}",
        "C: .",
    ]
    assert written("imap", {"lost": 5}) == ["# 5 lines are missing here: the recording was too slow for them"]


@pytest.mark.parametrize(("last", "end"), [(b"a LOGOUT", "closed"), (b"a NOOP", "abort")])
def test_the_end_of_a_session(last: bytes, end: str) -> None:
    assert written("imap", {"client": last}, {"ended": True})[-1] == end
