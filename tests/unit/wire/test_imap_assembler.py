"""Limits are checked before reading, and no octet of a refused command is read as a command."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.wire.imap import (
    DEFAULT_LIMITS,
    CommandAssembler,
    Complete,
    Drain,
    ImapLimits,
    Literal,
    LiteralKind,
    MessageLiteral,
    NeedLine,
    NeedLiteral,
    Refuse,
    ast,
    parse_command,
)
from tests.support.imap_feed import assembled, feed, logged_in

SMALL = ImapLimits(
    line_before_login=40,
    line=80,
    literal_before_login=4,
    literal=8,
    append=100,
    command=120,
    literals_before_login=1,
    literals=2,
    drain_before_login=50,
    drain=1000,
)


def small() -> CommandAssembler:
    return logged_in(SMALL)


def test_a_line_is_a_command() -> None:
    assembler = CommandAssembler()
    assert assembler.start() == NeedLine(DEFAULT_LIMITS.line_before_login)
    want = assembler.line(b"a NOOP")
    assert isinstance(want, Complete)
    assert want.assembled.text == b"a NOOP"


def test_login_widens_the_limits() -> None:
    assembler = CommandAssembler(SMALL)
    assert assembler.start() == NeedLine(40)
    assembler.line(b"a NOOP")
    assembler.authenticated = True
    assert assembler.start() == NeedLine(80)


def test_literals_are_kept_apart_from_the_text() -> None:
    command = assembled(b"a LOGIN {3}\r\nx y {0+}\r\n\r\n")
    assert command.text == b"a LOGIN {3}\r\n {0+}\r\n"
    assert command.literals == (Literal(b"x y"), Literal(b""))
    assert assembled(b"a X ~{2+}\r\n\0\r\r\n").literals == (Literal(b"\0\r", binary=True),)


def test_a_literal_may_hold_line_ends_and_announcements() -> None:
    command = assembled(b"a LOGIN {9}\r\nx\r\n{99+}\n x\r\n")
    assert command.literals == (Literal(b"x\r\n{99+}\n"),)


@pytest.mark.parametrize(
    "text",
    [b"a X {}", b"a X {+}", b"a X {5-}", b"a X {5+ }", b"a X 5}", b"a X {5a}", b"a X {-5}", b"a X }", b"a X {5}."],
)
def test_braces_that_announce_no_literal_are_text(text: bytes) -> None:
    assert assembled(text).text == text


def test_only_the_synchronising_literal_waits_for_a_continuation() -> None:
    assembler = logged_in()
    assembler.start()
    assert assembler.line(b"a X {5}") == NeedLiteral(5, True, LiteralKind.NORMAL)
    assembler.literal(b"hello")
    assert assembler.line(b" ~{5+}") == NeedLiteral(5, False, LiteralKind.LITERAL8)


# --- refusals --------------------------------------------------------------------------------------------


def test_a_synchronising_literal_over_the_limit_is_refused_unread() -> None:
    fed = feed(b"a LOGIN {9}\r\nb NOOP\r\n", small())
    refusal, following = fed.outcomes
    assert refusal == Refuse(b"a BAD [TOOBIG] Literal too large\r\n", close=False)
    assert isinstance(following, Complete)
    assert following.assembled.text == b"b NOOP"
    assert (fed.continuations, fed.drained) == (0, 0)


def test_octets_of_a_refused_literal_are_never_a_command() -> None:
    """RFC 7888 §4: the client sends them, so the server reads and discards them and the rest of the command."""
    fed = feed(b"a LOGIN {18+}\r\nx LOGOUT\r\nz NOOP\r\n {3+}\r\nq\r\n rest\r\nb NOOP\r\n", small())
    refusal, following = fed.outcomes
    assert refusal == Refuse(b"a BAD [TOOBIG] Literal too large\r\n", close=False)
    assert isinstance(following, Complete)
    assert following.assembled.text == b"b NOOP"
    assert fed.drained == 21


def test_a_refused_command_ends_where_its_client_waits() -> None:
    fed = feed(b"a LOGIN {9+}\r\n123456789 {3}\r\nb NOOP\r\n", small())
    refusal, following = fed.outcomes
    assert isinstance(refusal, Refuse)
    assert isinstance(following, Complete)
    assert following.assembled.text == b"b NOOP"


def test_an_absurd_literal_ends_the_connection() -> None:
    for size in (b"1001", b"99999999999999999999999999999999"):
        fed = feed(b"a LOGIN {" + size + b"+}\r\nb NOOP\r\n", small())
        reply = b"a BAD [TOOBIG] Literal too large\r\n* BYE Literal too large\r\n"
        assert fed.outcomes == [Refuse(reply, close=True)]


def test_discarded_octets_are_bounded_in_sum() -> None:
    fed = feed(b"a LOGIN {600+}\r\n" + b"x" * 600 + b" {600+}\r\n", small())
    (refusal,) = fed.outcomes
    assert isinstance(refusal, Refuse)
    assert refusal.close
    endless = feed(b"a LOGIN {9+}\r\n123456789" + b"{0+}\r\n" * 500, small())
    (refusal,) = endless.outcomes
    assert isinstance(refusal, Refuse)
    assert refusal.close
    assert endless.left


def test_limits_are_narrow_before_login() -> None:
    (refusal,) = feed(b"a LOGIN {5}\r\n", CommandAssembler(SMALL)).outcomes
    assert refusal == Refuse(b"a BAD [TOOBIG] Literal too large\r\n", close=False)
    refused, _ = feed(b"a LOGIN {4}\r\nabcd {1}\r\nb NOOP\r\n", CommandAssembler(SMALL)).outcomes
    assert refused == Refuse(b"a BAD [TOOBIG] Too many literals in one command\r\n", close=False)
    (refusal,) = feed(b"a LOGIN {51+}\r\n", CommandAssembler(SMALL)).outcomes
    assert isinstance(refusal, Refuse)
    assert refusal.close


def test_messages_of_an_append_are_counted() -> None:
    limits = dataclasses.replace(SMALL, literals=50, messages=2, line=1000)
    fed = feed(b"a APPEND {1+}\r\nx" + b" {1+}\r\ny" * 2 + b"\r\n", logged_in(limits))
    assert isinstance(fed.outcomes[0], Complete)
    fed = feed(b"a APPEND {1+}\r\nx" + b" {1+}\r\ny" * 3 + b"\r\nb NOOP\r\n", logged_in(limits))
    assert fed.outcomes[0] == Refuse(b"a NO [LIMIT] Too many messages in one command\r\n", close=False)
    assert isinstance(fed.outcomes[1], Complete)


def test_literals_are_counted() -> None:
    fed = feed(b"a X {1}\r\n1 {1+}\r\n2 {1+}\r\n3 rest\r\nb NOOP\r\n", small())
    assert fed.outcomes[0] == Refuse(b"a BAD [TOOBIG] Too many literals in one command\r\n", close=False)
    assert isinstance(fed.outcomes[1], Complete)


def test_a_command_is_bounded_in_sum() -> None:
    limits = dataclasses.replace(SMALL, literals=50)
    fed = feed(b"a X" + b" {8}\r\n12345678" * 9 + b" {8}\r\n", logged_in(limits))
    assert fed.outcomes == [Refuse(b"a BAD [TOOBIG] Literal too large\r\n", close=False)]
    assert fed.continuations == 9
    fed = feed(b"a X" + b"x" * 73 + b" {1}\r\n1" + b"y" * 60 + b"\r\n", logged_in(limits))
    assert fed.outcomes == [Refuse(b"a BAD [TOOBIG] Command too long\r\n", close=False)]
    fed = feed(b"a X" + b"x" * 73 + b" {1}\r\n1" + b"y" * 60 + b" {1+}\r\n1\r\nb NOOP\r\n", logged_in(limits))
    assert fed.outcomes[0] == Refuse(b"a BAD [TOOBIG] Command too long\r\n", close=False)
    assert isinstance(fed.outcomes[1], Complete)


def test_a_line_without_end_ends_the_connection() -> None:
    reply = b"a BAD [TOOBIG] Command line too long\r\n* BYE Command line too long\r\n"
    assert feed(b"a " + b"x" * 79, small()).outcomes == [Refuse(reply, close=True)]
    assert feed(b"a " + b"x" * 79 + b"\r\nb NOOP\r\n", small()).outcomes == [Refuse(reply, close=True)]
    (fits,) = feed(b"a " + b"x" * 78 + b"\r\n", small()).outcomes
    assert isinstance(fits, Complete)
    untagged = b"* BAD [TOOBIG] Command line too long\r\n* BYE Command line too long\r\n"
    assert feed(b"x" * 81, small()).outcomes == [Refuse(untagged, close=True)]


def test_a_complete_long_line_is_refused_too() -> None:
    assembler = small()
    assembler.start()
    want = assembler.line(b"a " + b"x" * 79)
    assert isinstance(want, Refuse)
    assert want.close


def test_no_literal_is_read_without_a_tag() -> None:
    fed = feed(b"{3}\r\n{3+}\r\nabc\r\n+ LOGIN {3}\r\nb NOOP\r\n")
    assert [type(outcome) for outcome in fed.outcomes] == [Refuse, Refuse, Refuse, Complete]
    assert fed.outcomes[0] == Refuse(b"* BAD expected a tag\r\n", close=False)
    assert fed.continuations == 0


# --- APPEND ----------------------------------------------------------------------------------------------


def test_the_message_is_announced_with_its_command() -> None:
    assembler = logged_in()
    assembler.start()
    want = assembler.line(b"a APPEND Drafts (\\Draft) {70000}")
    expected = ast.Append(b"a", "Drafts", (ast.AppendMessage(("\\Draft",), None, 70000),))
    assert want == NeedLiteral(70000, True, LiteralKind.APPEND_MESSAGE, expected)
    assert isinstance(assembler.message_read(), NeedLine)
    complete = assembler.line(b"")
    assert isinstance(complete, Complete)
    assert complete.assembled.literals == (MessageLiteral(70000),)
    assert parse_command(complete.assembled) == expected


def test_a_literal_mailbox_is_not_a_message() -> None:
    assembler = logged_in()
    assembler.start()
    assert assembler.line(b"a append {5}") == NeedLiteral(5, True, LiteralKind.NORMAL)
    assembler.literal(b"INBOX")
    want = assembler.line(b" {3+}")
    assert isinstance(want, NeedLiteral)
    assert want.kind is LiteralKind.APPEND_MESSAGE


def test_utf8_form_is_announced_before_its_parenthesis() -> None:
    assembler = logged_in()
    assembler.utf8 = True
    assembler.start()
    want = assembler.line(b'a APPEND "\xc3\xa9" UTF8 (~{3}')
    message = ast.AppendMessage((), None, 3, binary=True, utf8=True)
    expected = ast.Append(b"a", "\u00e9", (message,))
    assert want == NeedLiteral(3, True, LiteralKind.APPEND_MESSAGE, expected)


def test_a_message_over_the_limit_is_refused_unread() -> None:
    (refusal,) = feed(b"a APPEND x {101}\r\n", small()).outcomes
    assert refusal == Refuse(b"a NO [TOOBIG] A message may have at most 100 octets\r\n", close=False)
    fed = feed(b"a APPEND x {101+}\r\n" + b"m" * 101 + b"\r\nb NOOP\r\n", small())
    assert fed.outcomes[0] == refusal
    assert isinstance(fed.outcomes[1], Complete)
    assert fed.messages == []


def test_wrong_arguments_are_refused_before_the_message_is_sent() -> None:
    (refusal,) = feed(b'a APPEND x (\\Seen) "tomorrow" {5}\r\n').outcomes
    text = b"a BAD expected a day of two places at octet 20\r\n"
    assert refusal == Refuse(text, close=False)


def test_no_message_is_read_before_login() -> None:
    (refusal,) = feed(b"a APPEND x {5}\r\n", CommandAssembler()).outcomes
    assert refusal == Refuse(b"a BAD APPEND is not valid before login\r\n", close=False)


def test_the_service_may_refuse_a_message() -> None:
    assembler = logged_in()
    assembler.start()
    assembler.line(b"a APPEND x {5}")
    assert assembler.refuse(b"a NO [TRYCREATE] no\r\n") == Refuse(b"a NO [TRYCREATE] no\r\n", close=False)
    assembler.start()
    assembler.line(b"a APPEND x {5+}")
    assert assembler.refuse(b"a NO [TRYCREATE] no\r\n") == Drain(5)
    assert isinstance(assembler.drained(), NeedLine)
    assert assembler.line(b"") == Refuse(b"a NO [TRYCREATE] no\r\n", close=False)


def test_a_caller_out_of_phase_gets_a_runtime_error() -> None:
    assembler = CommandAssembler()
    with pytest.raises(RuntimeError):
        assembler.line(b"a NOOP")
    assembler.start()
    with pytest.raises(RuntimeError):
        assembler.literal(b"")
    assembler.line(b"a LOGIN {3}")
    with pytest.raises(RuntimeError):
        assembler.literal(b"ab")
    with pytest.raises(RuntimeError):
        assembler.message_read()


# --- any stream ------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [b"a ", b"LOGIN ", b"APPEND x ", b"{3}\r\n", b"{3+}\r\n", b"{90+}\r\n", b"~{2}\r\n", b"\r\n", b"x", b"{", b"+}"]
)


@given(st.lists(st.one_of(PIECES, st.binary(max_size=3)), max_size=60).map(b"".join), st.booleans())
def test_any_stream_is_consumed_within_the_limits(raw: bytes, authenticated: bool) -> None:
    assembler = CommandAssembler(SMALL)
    assembler.authenticated = authenticated
    fed = feed(raw, assembler)
    for outcome in fed.outcomes:
        if isinstance(outcome, Complete):
            length = len(outcome.assembled.text) + sum(
                len(literal.payload) for literal in outcome.assembled.literals if isinstance(literal, Literal)
            )
            assert length <= SMALL.command + 2 * len(outcome.assembled.literals)
        else:
            assert outcome.response.endswith(b"\r\n")
    assert all(len(message) <= SMALL.append for message in fed.messages)
