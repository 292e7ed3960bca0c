"""SEARCH FROM, TO, CC and BCC find an address however the message writes it (RFC 3501 §6.4.4, RFC 5322 §3.4.1)."""

from __future__ import annotations

import datetime
from array import array

import pytest

from paquebot.imap.mailbox_view.view import View
from paquebot.imap.search.facts import MessageFacts
from paquebot.mailstore import Flag, FlagRows, StoredMessage
from paquebot.message import summarise
from paquebot.v1.mail_pb2 import BlobRef

_AT = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
_VIEW = View(FlagRows(uids=array("I", (1,)), flags=bytes(1), mod_seqs=array("Q", (1,))), 1)


def found(raw: bytes, field: str, wanted: str, *, with_body: bool) -> bool | None:
    message = StoredMessage(1, 1, Flag(0), (), len(raw), _AT, _AT, BlobRef(), b"", "", None, None)
    facts = MessageFacts(_VIEW, 1, None, message, summarise(raw), raw if with_body else None)
    for _ in facts.match_fields([(field, wanted)]):
        pass
    return facts.header_contains(field, wanted)


@pytest.mark.parametrize("with_body", [False, True])
@pytest.mark.parametrize("field", ["from", "to", "cc", "bcc", "sender", "reply-to", "resent-to"])
@pytest.mark.parametrize(
    "value",
    [
        "john.doe@example.org",
        '"john.doe"@example.org',
        '"john"."doe"@example.org',
        '"john\\.doe"@example.org',
        "john.doe (at work)@ (yes) example.org",
        "john (x) . (y) doe@example . org",
        "<john.doe(((nested) \\) comments) too)@example.org>",
        'Doe <"john.doe" @example.org>',
        "<@relay.example,@b.example:\r\n\tjohn.doe @\r\n example.org>",
        "john.doe\r\n @example.org",
        'undisclosed: "john.doe"@example.org, x@y;',
        '"a, b" <a@b>, <john.doe\t@example.org>',
    ],
)
def test_an_address_is_found(value: str, field: str, with_body: bool) -> None:
    raw = f"{field}: {value}\r\n\r\n".encode()
    assert found(raw, field, "john.doe@example.org", with_body=with_body)
    assert found(raw, field, "n.doe@exa", with_body=with_body)
    assert found(raw, field, "", with_body=with_body)
    assert not found(raw, field, "doe@john", with_body=with_body)


def test_white_space_inside_of_a_quoted_local_part_is_kept() -> None:
    raw = b'From: "John Doe" (J) @ example.org\r\n\r\n'
    assert found(raw, "from", "john doe@example.org", with_body=False)
    assert not found(raw, "from", "johndoe@example.org", with_body=False)


def test_text_as_written_in_the_field_is_found_too() -> None:
    raw = b'From: =?utf-8?q?J=C3=B6rg?= "von" D. <"j d" (c)@example.org>\r\n\r\n'
    for text in ("jörg", '"von" d.', "jörg von d. <j d@example.org>", '"j d"', "(c)"):
        assert found(raw, "from", text, with_body=False), text


def test_addresses_do_not_run_into_each_other() -> None:
    raw = b'To: "a"@example.org, "b"@example.org\r\n\r\n'
    assert not found(raw, "to", "example.org> <b", with_body=False)
    assert not found(raw, "to", "example.orgb@", with_body=False)


def test_other_fields_are_searched_as_written() -> None:
    raw = b'Subject: "john.doe"@example.org\r\n\r\n'
    assert not found(raw, "subject", "john.doe@example.org", with_body=False)


@pytest.mark.parametrize("count", [3, 3000])
def test_each_address_of_a_long_list_is_found(count: int) -> None:
    value = ", ".join(f'"user {number}"@example.org' for number in range(count))
    raw = f"To: {value}\r\n\r\n".encode()
    assert all(found(raw, "to", f"user {number}@example.org", with_body=True) for number in (0, count // 2, count - 1))
