"""What the IMAP load believes and what it does not: its parser, its view, its model, its messages. No server."""

from __future__ import annotations

import pytest

from tests.bench import imap_mail
from tests.bench.imap_client import Answer
from tests.bench.imap_model import MailboxModel
from tests.bench.imap_response import BadResponse, Response, ResponseStream, fetched, values
from tests.bench.imap_view import View

_BYTES = (
    b"* OK ready\r\n"
    b'* 2 FETCH (UID 7 FLAGS (\\Seen $X) BODY[HEADER.FIELDS (A B)] {10}\r\n1234\r\n}{2} ENVELOPE ("a\\"b" NIL))\r\n'
    b"* 3 FETCH (UID 8 BODY[] {0}\r\n)\r\n"
    b"a1 OK [READ-WRITE] done\r\n"
)


def test_responses_are_the_same_however_bytes_arrive() -> None:
    """Every cut into two, in lines, literals and line ends."""
    whole = ResponseStream().feed(_BYTES)
    for cut in range(1, len(_BYTES)):
        stream = ResponseStream()
        assert stream.feed(_BYTES[:cut]) + stream.feed(_BYTES[cut:]) == whole
    assert [one.text.split()[1] for one in whole] == [b"OK", b"2", b"3", b"OK"]
    one, empty = fetched(whole[1]), fetched(whole[2])
    assert one is not None and empty is not None
    assert one.items == {
        b"UID": b"7",
        b"FLAGS": [b"\\Seen", b"$X"],
        b"BODY[HEADER.FIELDS (A B)]": b"1234\r\n}{2}",
        b"ENVELOPE": [b'a"b', None],
    }
    assert empty.value(b"BODY[]") == b""


@pytest.mark.parametrize(
    "text", [b"* 1 FETCH (UID 1", b"* 1 FETCH (UID 1))", b"* 1 FETCH (UID)", b"* 1 FETCH (A 1 A 2)"]
)
def test_a_fetch_response_that_is_none(text: bytes) -> None:
    with pytest.raises(BadResponse):
        fetched(Response(text))


def test_a_number_of_another_kind_is_no_fetch() -> None:
    assert fetched(Response(b"* 1 EXISTS")) is None
    assert values(Response(b'LIST () "/" INBOX'), 5) == [[], b"/", b"INBOX"]


def _view(*lines: bytes, name: bytes = b"NOOP") -> View:
    view = View()
    view.apply(b"SELECT", Answer(b"OK", b"", [Response(b"* 3 EXISTS")]))
    view.apply(b"FETCH", Answer(b"OK", b"", [Response(b"* %d FETCH (UID %d)" % (n, n * 10)) for n in (1, 2, 3)]))
    assert not view.wrong
    view.apply(name, Answer(b"OK", b"", [Response(line) for line in lines]))
    view.check_order()
    return view


def test_a_view_follows_what_it_is_told() -> None:
    view = _view(b"* 2 EXPUNGE", b"* 4 EXISTS", b"* 4 FETCH (UID 50)", b"* 2 FETCH (UID 30 FLAGS ())")
    assert view.uids == [10, 30, 0, 50]
    assert view.taken() == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (b"FETCH", b"* 1 EXPUNGE"),
        (b"STORE", b"* 1 EXPUNGE"),
        (b"NOOP", b"* 4 EXPUNGE"),
        (b"NOOP", b"* 2 EXISTS"),
        (b"NOOP", b"* 4 FETCH (FLAGS ())"),
        (b"NOOP", b"* 1 FETCH (UID 11)"),
    ],
)
def test_a_view_finds_a_wrong_line(name: bytes, line: bytes) -> None:
    assert len(_view(line, name=name).taken()) == 1


def test_a_view_finds_uids_that_do_not_ascend() -> None:
    assert "do not ascend" in _view(b"* 4 EXISTS", b"* 4 FETCH (UID 30)").taken()[0]


def test_a_model_counts_what_may_be_there() -> None:
    """Before, during and after an APPEND and an expunge of another client."""
    model = MailboxModel()
    with model.looking() as asked:
        message = model.appending("a", frozenset())
        assert (model.count(asked).least, model.count(asked).most) == (0, 1)
        assert model.appended(message, 5, 0) == ""
        assert (model.count(asked).least, model.count(asked).most) == (0, 1)
    with model.looking() as asked:
        assert (model.count(asked).least, model.count(asked, unseen=True).most) == (1, 1)
        model.flagging(message, frozenset({b"\\Deleted"}))
        assert (model.count(asked).least, model.count(asked).most) == (0, 1)
        model.flagged(message)
        model.expunged(message)
        assert (model.count(asked).least, model.count(asked).most) == (0, 1)
        assert message.flags_since(asked) == {frozenset(), frozenset({b"\\Deleted"})}
    with model.looking() as asked:
        assert (model.count(asked).least, model.count(asked).most) == (0, 0)
    assert not model.by_uid


def test_a_model_finds_a_uid_that_is_not_new() -> None:
    model = MailboxModel()
    first, second, third = (model.appending(name, frozenset()) for name in "abc")
    assert model.appended(first, 5, 0) == ""
    assert "another message" in model.appended(second, 5, 0)
    assert "not above 5" in model.appended(third, 4, 5)


def test_flags_of_the_past_are_wrong_once_confirmed() -> None:
    model = MailboxModel()
    message = model.appending("a", frozenset())
    model.flagging(message, frozenset({b"\\Flagged"}))
    model.flagged(message)
    assert message.flags_since(model.now()) == {frozenset({b"\\Flagged"})}


def test_a_message_is_known_by_its_name_alone() -> None:
    sent = imap_mail.message("some-name")
    trace = b"Return-Path: <a@example.org>\r\nReceived: from b\r\n\tby c\r\n"
    assert len(sent) == imap_mail.BYTES
    assert imap_mail.name_of(trace + sent) == "some-name" and imap_mail.same(trace + sent)
    assert all(len(line) <= 998 and not line.startswith(b".") for line in sent.split(b"\r\n"))  # RFC 5321 §4.5.3.1.6
    assert not imap_mail.same(b"Subject: not a trace\r\n" + sent)
    assert not imap_mail.same(sent[:2000] + bytes([sent[2000] ^ 1]) + sent[2001:])
    assert not imap_mail.same(sent + b"\r\n")
    assert imap_mail.name_of(b"From: somebody else\r\n\r\n") is None
